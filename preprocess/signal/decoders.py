"""Audio files -> samples of all channels: the contract, and what libsndfile decodes."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from preprocess.clips.audio_files import MOST_MISSING
from preprocess.signal.byte_ranges import Piece
from preprocess.signal.mended import Mended, mend, opened
from tagger.base.errors import AudioError

Waveform = npt.NDArray[np.float32]

# Of all channels [shape=(n_samples, n_channels)].
Samples = npt.NDArray[np.float32]

# Values of all channels decoded at once at most, however many channels and whatever rate: 16 MB.
_BLOCK_VALUES = 4_000_000

# An mp3 decoder that has jumped into a file lacks what its first frames take from those before
# them; so much in front of the wanted part is decoded and thrown away.
LEAD_SECONDS = 0.25

# Others are damaged headers; resampling from 1 Hz would ask for 16,000 times the memory.
_SAMPLE_RATES_HZ = (1_000, 1_000_000)

# Frames that a header promises where nobody knew: libsndfile's largest number.
_UNKNOWN_FRAMES = 2**40

# Frames that are decoded at once near damage, and after how many failures no more is tried.
_STEP_FRAMES = 4096
_MOST_FAILURES = 16


# libsndfile's code for a file of a known format whose structure is broken.
_MALFORMED = 3


class UndecodableError(AudioError):
    """A file that libsndfile cannot decode; another decoder may.

    Attributes
    ----------
    is_malformed : bool
        It is libsndfile's own kind of file, cut off or damaged: others would give a part of it and
        not say so.
    """

    is_malformed = False


def require_rate(sample_rate: int) -> None:
    """Raise an AudioError, which does not name the file, for a rate that no audio has."""
    lowest, highest = _SAMPLE_RATES_HZ
    if not lowest <= sample_rate <= highest:
        raise AudioError(
            f"has the sample rate {sample_rate} Hz; give one from {lowest} to {highest} Hz"
        )


@dataclass(frozen=True)
class Part:
    """The part of a file that is read, in seconds."""

    start: float
    length: float


def middle_part(path: Path, seconds: float, *, n_frames: int, sample_rate: int) -> Part | None:
    """Part of so many seconds in the middle of a file; None where that is all of it."""
    try:
        require_rate(sample_rate)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None
    wanted = max(1, round(seconds * sample_rate))
    if wanted >= n_frames:
        return None
    return Part((n_frames - wanted) // 2 / sample_rate, wanted / sample_rate)


def block_frames(block_seconds: float, sample_rate: int, n_channels: int) -> int:
    """Frames of a block, which is shorter where there are many channels."""
    return max(1, min(round(block_seconds * sample_rate), _BLOCK_VALUES // n_channels))


class Decoder(Protocol):
    """What decodes a file.

    Attributes
    ----------
    missing : float
        Share of the audio that is not there or cannot be decoded, as far as the file tells; known
        once all blocks have been given.
    """

    missing: float

    def middle(self, seconds: float) -> Part | None:
        """Part of so many seconds in the middle; None where the file is no longer than that."""

    def blocks(
        self, part: Part | None, block_seconds: float | None
    ) -> Generator[tuple[Samples, int], None, None]:
        """Give samples of all channels and their rate; at least one block, which may be empty."""


@dataclass
class SoundfileDecoder:
    """wav, flac, ogg, mp3 and the like, through libsndfile."""

    path: Path
    most_missing: float = MOST_MISSING
    missing: float = field(default=0.0, init=False)

    def require_readable(self) -> None:
        """Raise an UndecodableError where libsndfile knows no such format."""
        with self._open(self._mended().streams[0]):
            pass

    def middle(self, seconds: float) -> Part | None:  # noqa: D102 (in Decoder)
        lengths = []
        for pieces in self._mended().streams:
            with self._open(pieces) as file:
                lengths.append((int(file.frames), int(file.samplerate)))
        rate = lengths[0][1]
        n_frames = sum(round(length * rate / own) for length, own in lengths)
        return middle_part(self.path, seconds, n_frames=n_frames, sample_rate=rate)

    def blocks(  # noqa: D102
        self, part: Part | None, block_seconds: float | None
    ) -> Generator[tuple[Samples, int], None, None]:
        mended = self._mended()
        self.missing = mended.missing
        start, left = (0.0, 0.0) if part is None else (part.start, part.length)
        for pieces in mended.streams:
            with self._open(pieces) as file:
                seconds = file.frames / file.samplerate
                if len(mended.streams) == 1 or part is None:
                    own = part
                elif start >= seconds or left <= 0:
                    start -= seconds
                    continue
                else:
                    own = Part(start, min(left, seconds - start))
                    start, left = 0.0, left - own.length
                missing = yield from self._blocks_of(file, pieces, own, block_seconds=block_seconds)
                self.missing = max(self.missing, missing)

    def _mended(self) -> Mended:
        try:
            mended = mend(self.path)
        except OSError as error:
            raise AudioError(
                f"{self.path}: cannot be read ({error.strerror}); check the disk"
            ) from None
        require_most_of(self.path, mended.missing, most_missing=self.most_missing)
        return mended

    def _blocks_of(
        self,
        file: Any,
        pieces: Sequence[Piece] | None,
        part: Part | None,
        *,
        block_seconds: float | None,
    ) -> Generator[tuple[Samples, int], None, float]:
        """Give the blocks of one stream; return the share of it that cannot be decoded."""
        rate, promised = int(file.samplerate), int(file.frames)
        start = lead = 0
        if part is not None:
            start, promised = round(part.start * rate), round(part.length * rate)
            lead = self._seek(file, start)
        # After each read soundfile seeks to where it is, from where an mp3 goes on without what
        # its next frames take from the last ones. Nothing is read twice here.
        file.seekable = lambda: False
        if lead:
            self._read(file, lead)
        size = max(1, promised)
        if block_seconds is not None:
            size = min(size, block_frames(block_seconds, rate, file.channels))
        n_passed = n_read = 0
        damage: UndecodableError | None = None
        while True:
            wanted = min(size, promised - n_passed)
            try:
                samples = self._read(file, wanted) if damage is None else None
            except UndecodableError as error:
                samples, damage = None, error
            if samples is None:
                samples = self._salvaged(pieces, start + n_passed, wanted)
            n_passed += wanted
            n_read += len(samples)
            ended = len(samples) < wanted if damage is None else len(samples) == 0
            if ended or n_passed >= promised:
                break
            yield samples, rate
        missing = 1 - n_read / promised if promised else 0.0
        if damage is not None and missing > self.most_missing:
            raise damage
        require_most_of(self.path, missing, most_missing=self.most_missing)
        yield samples, rate
        return missing

    def _salvaged(self, pieces: Sequence[Piece] | None, start: int, n_frames: int) -> Samples:
        """Decode what can be of a stretch, in small steps past what cannot."""
        found = [np.zeros((0, 1), dtype=np.float32)]
        position, end, n_failures = start, start + n_frames, 0
        while position < end and n_failures < _MOST_FAILURES:
            try:
                with self._open(pieces) as file:
                    with self._errors_named():
                        file.seek(position)
                    while position < end:
                        found.append(self._read(file, min(_STEP_FRAMES, end - position)))
                        if not len(found[-1]):
                            break
                        position += len(found[-1])
                        n_failures = 0
                    break
            except UndecodableError:
                position += _STEP_FRAMES
                n_failures += 1
        return np.concatenate(found[1:] or found)

    @contextmanager
    def _open(self, pieces: Sequence[Piece] | None) -> Iterator[Any]:
        import soundfile

        with opened(self.path, pieces) as source:
            with self._errors_named():
                file = soundfile.SoundFile(source, closefd=False)
            with closing(file):
                self._require_a_length(file)
                yield file

    def _require_a_length(self, file: Any) -> None:
        problem = None
        if file.format == "RAW":
            problem = "not decodable audio (no header); convert it to wav, flac, ogg or mp3"
        if file.frames >= _UNKNOWN_FRAMES:
            problem = "its header does not say how long it is; write it again, e.g. with ffmpeg -i"
        if problem is not None:
            raise AudioError(f"{self.path}: {problem}")

    def _seek(self, file: Any, start: int) -> int:
        """Go to a little before `start`; return by how many frames."""
        lead = min(start, round(LEAD_SECONDS * file.samplerate)) if file.format == "MP3" else 0
        with self._errors_named():
            file.seek(start - lead)
        return lead

    def _read(self, file: Any, n_frames: int) -> Samples:
        # Never more at once than a block: room is made for as many frames as are asked for, and a
        # damaged header may promise any number.
        largest = max(1, _BLOCK_VALUES // file.channels)
        parts = []
        try:
            while True:
                wanted = min(n_frames, largest)
                with self._errors_named():
                    part: Samples = file.read(wanted, dtype="float32", always_2d=True)
                parts.append(part)
                n_frames -= wanted
                if not n_frames or len(part) < wanted:
                    return part if len(parts) == 1 else np.concatenate(parts)
        except MemoryError:
            raise AudioError(
                f"{self.path}: not enough memory for the {file.frames} samples that its header "
                "promises; split the file, or replace it if it is shorter"
            ) from None

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        import soundfile

        try:
            yield
        except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError) as error:
            # libsndfile, its mp3 reader and soundfile itself each raise another class.
            reason = str(error).split(": ", 1)[-1].strip().rstrip(".")
            problem = UndecodableError(
                f"{self.path}: not decodable audio ({reason}); convert it to wav, flac, ogg or mp3"
            )
            problem.is_malformed = getattr(error, "code", None) == _MALFORMED
            raise problem from None


def require_most_of(path: Path, missing: float, *, most_missing: float) -> None:
    """Raise an AudioError for a file of which too large a share is missing."""
    if missing > most_missing:
        raise AudioError(
            f"{path}: truncated or damaged: {percent(missing)} of its audio is missing; copy or "
            "download it again"
        )


def percent(share: float) -> str:
    """Write a share in words."""
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
