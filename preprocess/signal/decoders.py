"""Audio files -> samples of all channels: through libsndfile, or through a pipe from ffmpeg."""

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from preprocess.clips.audio_files import FFMPEG_SUFFIXES
from preprocess.signal.byte_ranges import Piece
from preprocess.signal.mended import Mended, mend, opened
from tagger.base.errors import AudioError
from tagger.base.log import warn

Waveform = npt.NDArray[np.float32]

# Of all channels [shape=(n_samples, n_channels)].
Samples = npt.NDArray[np.float32]

# For a block, or for the whole file where it is read at once.
_FFMPEG_TIMEOUT_SECONDS = 600

# Values of all channels decoded at once at most, however many channels and whatever rate: 16 MB.
_BLOCK_VALUES = 4_000_000

# An mp3 decoder that has jumped into a file lacks what its first frames take from those before
# them; so much in front of the wanted part is decoded and thrown away.
_LEAD_SECONDS = 0.25

# Others are damaged headers; resampling from 1 Hz would ask for 16,000 times the memory.
_SAMPLE_RATES_HZ = (1_000, 1_000_000)

# Frames that a header promises where nobody knew: libsndfile's largest number.
_UNKNOWN_FRAMES = 2**40

# Formats that refer to no other files: a playlist by the name of a song would be followed.
_ONLY_AUDIO_FILES = (
    "-format_whitelist",
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,loas,matroska,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,ogg,rm,tak,truehd,tta,voc,w64,wav,webm,wv,xwma",
)

# Of what headers promise, at least so much has to be there.
_LEAST_SHARE = 0.5
# Less is not worth a word: encoders themselves leave a frame or two out.
_TOLD_SHARE = 0.01


class UndecodableError(AudioError):
    """A file that libsndfile cannot decode; another decoder may."""


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


def _middle_part(path: Path, seconds: float, *, n_frames: int, sample_rate: int) -> Part | None:
    """Part of so many seconds in the middle of a file; None where that is all of it."""
    try:
        require_rate(sample_rate)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None
    wanted = max(1, round(seconds * sample_rate))
    if wanted >= n_frames:
        return None
    return Part((n_frames - wanted) // 2 / sample_rate, wanted / sample_rate)


def _block_frames(block_seconds: float, sample_rate: int, n_channels: int) -> int:
    return max(1, min(round(block_seconds * sample_rate), _BLOCK_VALUES // n_channels))


class Decoder(Protocol):
    """What decodes a file."""

    def middle(self, seconds: float) -> Part | None:
        """Part of so many seconds in the middle; None where the file is no longer than that."""

    def blocks(
        self, part: Part | None, block_seconds: float | None
    ) -> Generator[tuple[Samples, int], None, None]:
        """Give samples of all channels and their rate; at least one block, which may be empty."""


@dataclass(frozen=True)
class SoundfileDecoder:
    """wav, flac, ogg, mp3 and the like, through libsndfile."""

    path: Path

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
        return _middle_part(self.path, seconds, n_frames=n_frames, sample_rate=rate)

    def blocks(  # noqa: D102
        self, part: Part | None, block_seconds: float | None
    ) -> Generator[tuple[Samples, int], None, None]:
        mended = self._mended()
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
                yield from self._blocks_of(file, own, block_seconds)
        if mended.missing >= _TOLD_SHARE:
            warn(
                f"{self.path}: {_percent(mended.missing)} of its audio is missing or damaged; the "
                "rest is used"
            )

    def _mended(self) -> Mended:
        try:
            mended = mend(self.path)
        except OSError as error:
            raise AudioError(
                f"{self.path}: cannot be read ({error.strerror}); check the disk"
            ) from None
        is_left_out = mended.streams != [None] and mended.missing < _LEAST_SHARE
        if mended.missing > 0 and not is_left_out:
            raise AudioError(
                f"{self.path}: truncated: {_percent(mended.missing)} of its audio data is missing; "
                "copy or download it again"
            )
        return mended

    def _blocks_of(
        self, file: Any, part: Part | None, block_seconds: float | None
    ) -> Generator[tuple[Samples, int], None, None]:
        rate, promised = int(file.samplerate), int(file.frames)
        lead = 0
        if part is not None:
            promised = round(part.length * rate)
            lead = self._seek(file, round(part.start * rate))
        # After each read soundfile seeks to where it is, from where an mp3 goes on without what
        # its next frames take from the last ones. Nothing is read twice here.
        file.seekable = lambda: False
        if lead:
            self._read(file, lead)
        size = max(1, promised)
        if block_seconds is not None:
            size = min(size, _block_frames(block_seconds, rate, file.channels))
        n_read, exhausted = 0, False
        while not exhausted:
            wanted = min(size, promised - n_read)
            samples = self._read(file, wanted)
            n_read += len(samples)
            exhausted = len(samples) < wanted or n_read >= promised
            if exhausted:
                self._require_enough(n_read, promised)
            yield samples, rate

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
        lead = min(start, round(_LEAD_SECONDS * file.samplerate)) if file.format == "MP3" else 0
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

    def _require_enough(self, n_read: int, promised: int) -> None:
        # mp3 headers estimate the length; a fifth less than promised is a cut file, not an
        # estimate.
        if n_read < 0.8 * promised:
            raise AudioError(
                f"{self.path}: truncated or damaged: {_percent(1 - n_read / promised)} of its "
                "audio cannot be decoded; copy or download it again"
            )

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        import soundfile

        try:
            yield
        except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError) as error:
            # libsndfile, its mp3 reader and soundfile itself each raise another class.
            reason = str(error).split(": ", 1)[-1].strip().rstrip(".")
            raise UndecodableError(
                f"{self.path}: not decodable audio ({reason}); convert it to wav, flac, ogg or mp3"
            ) from None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"


@dataclass(frozen=True)
class FfmpegDecoder:
    """m4a, aac and others, through a pipe from ffmpeg."""

    path: Path
    sample_rate: int
    n_channels: int
    seconds: float | None

    @staticmethod
    def is_installed() -> bool:
        """Tell whether there are the programs that it needs."""
        return all(shutil.which(name) is not None for name in ("ffmpeg", "ffprobe"))

    @classmethod
    def probe(cls, path: Path, kind: str | None = None) -> "FfmpegDecoder":
        """Ask ffprobe for what raw samples do not tell of themselves.

        Parameters
        ----------
        path : Path
            The file.
        kind : str, optional
            What it is, in words; default what its suffix says.
        """
        if not cls.is_installed():
            what = f"{path.suffix} files need"
            if kind is not None and path.suffix.lower() not in FFMPEG_SUFFIXES:
                what = f"is {kind}{f' named {path.suffix}' if path.suffix else ''}, and needs"
            raise AudioError(
                f"{path}: {what} ffmpeg, which is not installed; "
                "install it or convert the file to wav, flac, ogg or mp3"
            )
        entries = "stream=sample_rate,channels,duration:format=duration"
        command = ["ffprobe", "-v", "error", *_ONLY_AUDIO_FILES, "-select_streams", "a:0"]
        command += ["-show_entries", entries]
        try:
            probe = subprocess.run(  # noqa: S603 (no shell; the name begins with no dash)
                [*command, "-of", "json", _ffmpeg_name(path)],
                capture_output=True,
                timeout=_FFMPEG_TIMEOUT_SECONDS,
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise _ffmpeg_too_slow(path) from None
        except subprocess.CalledProcessError as error:
            raise _ffmpeg_failed(path, error.stderr) from None
        try:
            found = json.loads(probe.stdout)
            streams = found.get("streams")
            if not streams:
                raise AudioError(f"{path}: holds no audio stream; give an audio file")
            stream = streams[0]
            rate, channels = int(stream["sample_rate"]), int(stream["channels"])
            if channels < 1:
                raise ValueError("no channels")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _ffmpeg_failed(path, b"ffprobe tells no sample rate and channels") from None
        return cls(path, rate, channels, _duration(stream) or _duration(found.get("format")))

    def middle(self, seconds: float) -> Part | None:  # noqa: D102
        if self.seconds is None:
            raise AudioError(
                f"{self.path}: it does not say how long it is, so that its middle is not known; "
                "use all of it, or convert it to wav, flac, ogg or mp3"
            )
        n_frames = round(self.seconds * self.sample_rate)
        return _middle_part(self.path, seconds, n_frames=n_frames, sample_rate=self.sample_rate)

    def blocks(  # noqa: D102
        self, part: Part | None, block_seconds: float | None
    ) -> Generator[tuple[Samples, int], None, None]:
        cut = [] if part is None else ["-ss", f"{part.start:.6f}", "-t", f"{part.length:.6f}"]
        # Rate and channels are those of the file; given, they cannot be others than is thought.
        form = ["-ar", str(self.sample_rate), "-ac", str(self.n_channels)]
        source = [*_ONLY_AUDIO_FILES, *cut, "-i", _ffmpeg_name(self.path), "-map", "0:a:0"]
        command = ["ffmpeg", "-v", "error", "-nostdin", *source, *form, "-f", "f32le"]
        size = None
        if block_seconds is not None:
            size = _block_frames(block_seconds, self.sample_rate, self.n_channels)
        n_read = 0
        # Into a file, for a pipe that nobody reads would stop ffmpeg when it is full.
        with (
            tempfile.TemporaryFile() as complaints,
            subprocess.Popen(  # noqa: S603 (no shell; the name begins with no dash)
                [*command, "-c:a", "pcm_f32le", "-"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
            ) as process,
        ):
            try:
                while True:
                    samples = self._read(process, size)
                    ended = size is None or len(samples) < size
                    n_read += len(samples)
                    if ended:
                        self._require_success(process, complaints, n_read, part)
                    yield samples, self.sample_rate
                    if ended:
                        break
            finally:
                # Dropped half way, it would wait for a reader for ever.
                process.kill()

    def _read(self, process: "subprocess.Popen[bytes]", size: int | None) -> Samples:
        assert process.stdout is not None
        frame_bytes = 4 * self.n_channels
        with _killed_after(process, _FFMPEG_TIMEOUT_SECONDS) as overdue:
            content = process.stdout.read(-1 if size is None else size * frame_bytes)
        if overdue.is_set():
            raise _ffmpeg_too_slow(self.path)
        n_frames, left_over = divmod(len(content), frame_bytes)
        if left_over:
            raise AudioError(
                f"{self.path}: what ffmpeg decodes of it breaks off within a sample; "
                "convert it to wav, flac, ogg or mp3"
            )
        samples = np.frombuffer(content, dtype="<f4").reshape(n_frames, self.n_channels)
        # A copy that may be written to, as from every other decoder.
        return samples.astype(np.float32)

    def _require_success(
        self,
        process: "subprocess.Popen[bytes]",
        complaints: IO[bytes],
        n_read: int,
        part: Part | None,
    ) -> None:
        with _killed_after(process, _FFMPEG_TIMEOUT_SECONDS) as overdue:
            status = process.wait()
        if overdue.is_set():
            raise _ffmpeg_too_slow(self.path)
        if status != 0:
            complaints.seek(0)
            raise _ffmpeg_failed(self.path, complaints.read())
        if n_read == 0:
            raise AudioError(
                f"{self.path}: ffmpeg decodes nothing of it; convert it to wav, flac, ogg or mp3"
            )
        if part is not None and n_read < 0.8 * part.length * self.sample_rate:
            raise AudioError(
                f"{self.path}: truncated or damaged: of the {part.length:.1f} s in its middle "
                f"{n_read / self.sample_rate:.1f} s can be decoded; copy or download it again"
            )


def _ffmpeg_name(path: Path) -> str:
    # The prefix keeps a file name such as "-i" or "http:x" from being taken for something else.
    return f"file:{path}"


def _duration(entry: Any) -> float | None:
    try:
        seconds = float(entry["duration"])
    except (KeyError, TypeError, ValueError):
        return None
    # Not of NaN or infinity.
    return seconds if 0 < seconds < 1e9 else None


@contextmanager
def _killed_after(process: "subprocess.Popen[bytes]", seconds: float) -> Iterator[threading.Event]:
    """Kill a process that keeps its reader waiting; the event tells that it was."""
    overdue = threading.Event()

    def kill() -> None:
        overdue.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield overdue
    finally:
        timer.cancel()


def _ffmpeg_too_slow(path: Path) -> AudioError:
    return AudioError(
        f"{path}: ffmpeg did not finish within {_FFMPEG_TIMEOUT_SECONDS} s; convert the file"
    )


def _ffmpeg_failed(path: Path, complaints: bytes) -> AudioError:
    lines = complaints.decode("utf-8", "replace").strip().splitlines()
    reason = lines[-1] if lines else "unknown reason"
    return AudioError(
        f"{path}: ffmpeg cannot decode it ({reason}); convert it to wav, flac, ogg or mp3"
    )
