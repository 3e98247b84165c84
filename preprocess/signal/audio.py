"""The only place that decodes or resamples audio."""

import json
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tagger.base.addresses import is_remote
from tagger.base.errors import AudioError

Waveform = npt.NDArray[np.float32]
# Of all channels [shape=(n_samples, n_channels)].
_Samples = npt.NDArray[np.float32]

# What libsndfile decodes; everything else goes through ffmpeg where it is installed.
SOUNDFILE_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"}
)
FFMPEG_SUFFIXES = frozenset({".m4a", ".aac", ".mp4", ".wma", ".webm", ".mka", ".ac3", ".amr"})
AUDIO_SUFFIXES = SOUNDFILE_SUFFIXES | FFMPEG_SUFFIXES

# For a block, or for the whole file where it is read at once.
_FFMPEG_TIMEOUT_SECONDS = 600

# Values of all channels decoded at once at most, however many channels and whatever rate: 16 MB.
_BLOCK_VALUES = 4_000_000

# Samples resampled at once: more of them leave the processor's cache.
_RESAMPLED_SAMPLES = 65_536

# An mp3 decoder that has jumped into a file lacks what its first frames take from those before
# them; so much in front of the wanted part is decoded and thrown away.
_LEAD_SECONDS = 0.25

# Others are damaged headers; resampling from 1 Hz would ask for 16,000 times the memory.
_SAMPLE_RATES_HZ = (1_000, 1_000_000)

# Frames that a header promises where nobody knew: libsndfile's largest number.
_UNKNOWN_FRAMES = 2**40

# Containers of chunks: magic, form types, byte order of lengths, the chunk that holds the audio.
_CHUNKED: dict[bytes, tuple[tuple[bytes, ...], Literal["little", "big"], bytes]] = {
    b"RIFF": ((b"WAVE",), "little", b"data"),
    b"FORM": ((b"AIFF", b"AIFC"), "big", b"SSND"),
}
_OGG_PAGE_HEADER = 27
_OGG_LARGEST_PAGE = _OGG_PAGE_HEADER + 255 + 255 * 255


def mix_to_mono(samples: npt.NDArray[np.floating]) -> Waveform:
    """Average the channels.

    Parameters
    ----------
    samples : np.ndarray [shape=(n_samples,) or (n_samples, n_channels)]
        Samples as soundfile returns them.

    Returns
    -------
    np.ndarray [shape=(n_samples,), dtype=float32]
        Mono samples.
    """
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim == 1:
        return samples
    if samples.ndim != 2:
        raise AudioError(
            f"a waveform has shape (n_samples,) or (n_samples, n_channels), not {samples.shape}"
        )
    n_channels = samples.shape[1]
    if n_channels == 0:
        raise AudioError("a waveform without channels; give at least one")
    if n_channels == 1:
        return samples[:, 0]
    # Channel by channel: faster than a mean or a matrix product over interleaved channels, and the
    # rounding of a sample does not depend on where in a block it stands.
    with np.errstate(over="ignore", invalid="ignore"):
        mono: Waveform = np.add(samples[:, 0], samples[:, 1])
        for channel in range(2, n_channels):
            mono += samples[:, channel]
        mono *= np.float32(1.0 / n_channels)
    return mono


def resample(waveform: Waveform, sample_rate: int, *, target_rate: int) -> Waveform:
    """Resample with soxr's high quality preset; a waveform at the wanted rate is returned as is.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,), dtype=float32]
        Mono samples.
    sample_rate, target_rate : int
        Samples per second before and after.

    Returns
    -------
    np.ndarray [shape=(n_samples * target_rate / sample_rate,), dtype=float32]
        Resampled mono samples.
    """
    if sample_rate == target_rate:
        return waveform
    import soxr

    resampled: Waveform = soxr.resample(waveform, sample_rate, target_rate, quality="HQ")
    return resampled


def prepare_waveform(
    samples: npt.NDArray[np.floating], sample_rate: int, *, target_rate: int
) -> Waveform:
    """Check samples, mix them to mono and resample them.

    Parameters
    ----------
    samples : np.ndarray [shape=(n_samples,) or (n_samples, n_channels)]
        Samples in [-1, 1].
    sample_rate, target_rate : int
        Samples per second before and after.

    Returns
    -------
    np.ndarray [shape=(n_target_samples,), dtype=float32]
        Mono samples at `target_rate`.

    Raises
    ------
    AudioError
        If there are no samples, they are integers, one is NaN or infinite, or the rate is no rate
        of audio.
    """
    _require_rate(sample_rate)
    samples = np.asarray(samples)
    if not np.issubdtype(samples.dtype, np.floating):
        # Their range is not known here, and taken as it is 16-bit audio would be 90 dB too loud.
        raise AudioError(f"has samples of the type {samples.dtype}; give floats from -1 to 1")
    mono = mix_to_mono(samples)
    if mono.size == 0:
        raise AudioError(_NO_SAMPLES)
    _require_finite(mono)
    resampled = resample(mono, sample_rate, target_rate=target_rate)
    if resampled.size == 0:
        raise AudioError(_too_short(target_rate))
    return resampled


_NO_SAMPLES = "holds no samples; remove the clip or replace the file"


def _too_short(target_rate: int) -> str:
    return f"is shorter than a sample at {target_rate} Hz; remove the clip or replace the file"


def _require_rate(sample_rate: int) -> None:
    lowest, highest = _SAMPLE_RATES_HZ
    if not lowest <= sample_rate <= highest:
        raise AudioError(
            f"has the sample rate {sample_rate} Hz; give one from {lowest} to {highest} Hz"
        )


def _require_finite(mono: Waveform) -> None:
    # One NaN or infinity makes the sum of squares non-finite: one pass, no temporary mask.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(np.dot(mono, mono))
    if suspicious and not np.isfinite(mono).all():
        raise AudioError("holds NaN or infinite samples; export the file again")


def _require_readable(path: Path) -> None:
    """Raise an AudioError that tells missing, forbidden, empty and non-file apart."""
    try:
        if path.is_dir():
            raise AudioError(
                f"{path}: is a folder without audio files; give files, or a folder that holds some"
            )
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would wait for its other end.
            raise AudioError(f"{path}: is a pipe or a device; give an audio file")
        size = status.st_size
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file; check the path") from None
    except ValueError as error:
        raise AudioError(f"{str(path)!r}: is not a file name ({error}); check the path") from None
    except PermissionError:
        raise AudioError(f"{path}: no permission to read; change the file's rights") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}); check the disk") from None
    if size == 0:
        raise AudioError(f"{path}: empty file (0 bytes); copy or download it again")


def _missing_share(path: Path) -> float:
    """Share of its audio data that a file lacks, by its own account; 0 for a whole file.

    libsndfile reads truncated wav, aiff and ogg files to the end that is there and says nothing.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == b"OggS":
            return _missing_of_last_page(file, size)
        if magic in _CHUNKED:
            return _missing_of_chunk(file, size, *_CHUNKED[magic])
    return 0.0


def _missing_of_chunk(
    file: BinaryIO,
    size: int,
    forms: tuple[bytes, ...],
    byte_order: Literal["little", "big"],
    audio_chunk: bytes,
) -> float:
    file.seek(8)
    if file.read(4) not in forms:
        return 0.0
    position = 12
    while position + 8 <= size:
        file.seek(position)
        chunk = file.read(8)
        length = int.from_bytes(chunk[4:8], byte_order)
        if chunk[:4] == audio_chunk:
            # Streaming writers put 0 or the largest number there when they do not know.
            if length in (0, 0xFFFFFFFF):
                return 0.0
            return max(0.0, (position + 8 + length - size) / length)
        position += 8 + length + (length & 1)
    return 0.0


def _missing_of_last_page(file: BinaryIO, size: int) -> float:
    """Tell an Ogg file that ends inside a page; how many pages are missing, it does not say."""
    file.seek(max(0, size - _OGG_LARGEST_PAGE))
    tail = file.read()
    start = tail.rfind(b"OggS")
    if start < 0:
        return 0.0
    page = tail[start:]
    n_segments = page[_OGG_PAGE_HEADER - 1] if len(page) >= _OGG_PAGE_HEADER else 255
    segments = page[_OGG_PAGE_HEADER : _OGG_PAGE_HEADER + n_segments]
    length = _OGG_PAGE_HEADER + n_segments + sum(segments)
    return max(0.0, (length - len(page)) / size)


@dataclass(frozen=True)
class _Part:
    """The part of a file that is read, in seconds."""

    start: float
    length: float


def _middle_part(path: Path, seconds: float, *, n_frames: int, sample_rate: int) -> _Part | None:
    """Part of so many seconds in the middle of a file; None where that is all of it."""
    try:
        _require_rate(sample_rate)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None
    wanted = max(1, round(seconds * sample_rate))
    if wanted >= n_frames:
        return None
    return _Part((n_frames - wanted) // 2 / sample_rate, wanted / sample_rate)


def _block_frames(block_seconds: float, sample_rate: int, n_channels: int) -> int:
    return max(1, min(round(block_seconds * sample_rate), _BLOCK_VALUES // n_channels))


class _Decoder(Protocol):
    """What decodes a file."""

    def middle(self, seconds: float) -> _Part | None:
        """Part of so many seconds in the middle; None where the file is no longer than that."""

    def blocks(
        self, part: _Part | None, block_seconds: float | None
    ) -> Generator[tuple[_Samples, int], None, None]:
        """Give samples of all channels and their rate; at least one block, which may be empty."""


@dataclass(frozen=True)
class _SoundfileDecoder:
    """wav, flac, ogg, mp3 and the like, through libsndfile."""

    path: Path

    def middle(self, seconds: float) -> _Part | None:
        with closing(self._open()) as file:
            return _middle_part(
                self.path, seconds, n_frames=file.frames, sample_rate=int(file.samplerate)
            )

    def blocks(
        self, part: _Part | None, block_seconds: float | None
    ) -> Generator[tuple[_Samples, int], None, None]:
        with closing(self._open()) as file:
            rate, promised = int(file.samplerate), int(file.frames)
            if part is not None:
                promised = round(part.length * rate)
                lead = self._seek(file, round(part.start * rate))
            # After each read soundfile seeks to where it is, from where an mp3 goes on without what
            # its next frames take from the last ones. Nothing is read twice here.
            file.seekable = lambda: False
            if part is not None and lead:
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

    def _open(self) -> Any:
        import soundfile

        missing = _missing_share(self.path)
        if missing > 0:
            raise AudioError(
                f"{self.path}: truncated: {_percent(missing)} of its audio data is missing; "
                "copy or download it again"
            )
        with self._errors_named():
            # As a str, a name that is no Unicode is refused; Windows has names that are no bytes.
            name = self.path if os.name == "nt" else os.fsencode(self.path)
            file = soundfile.SoundFile(name)
        if file.format == "RAW":
            # libsndfile takes any file named .au, .gsm or .vox for audio without a header.
            file.close()
            raise AudioError(
                f"{self.path}: not decodable audio (no header); convert it to wav, flac, ogg or mp3"
            )
        if file.frames >= _UNKNOWN_FRAMES:
            file.close()
            raise AudioError(
                f"{self.path}: its header does not say how long it is; write it again, e.g. with "
                "ffmpeg -i"
            )
        return file

    def _seek(self, file: Any, start: int) -> int:
        """Go to a little before `start`; return by how many frames."""
        lead = min(start, round(_LEAD_SECONDS * file.samplerate)) if file.format == "MP3" else 0
        with self._errors_named():
            file.seek(start - lead)
        return lead

    def _read(self, file: Any, n_frames: int) -> _Samples:
        # Never more at once than a block: room is made for as many frames as are asked for, and a
        # damaged header may promise any number.
        largest = max(1, _BLOCK_VALUES // file.channels)
        parts = []
        try:
            while True:
                wanted = min(n_frames, largest)
                with self._errors_named():
                    part: _Samples = file.read(wanted, dtype="float32", always_2d=True)
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
            raise AudioError(
                f"{self.path}: not decodable audio ({reason}); convert it to wav, flac, ogg or mp3"
            ) from None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"


@dataclass(frozen=True)
class _FfmpegDecoder:
    """m4a, aac and others, through a pipe from ffmpeg."""

    path: Path
    sample_rate: int
    n_channels: int
    seconds: float | None

    @classmethod
    def probe(cls, path: Path) -> "_FfmpegDecoder":
        """Ask ffprobe for what raw samples do not tell of themselves."""
        if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
            raise AudioError(
                f"{path}: {path.suffix} files need ffmpeg, which is not installed; "
                "install it or convert the file to wav, flac, ogg or mp3"
            )
        entries = "stream=sample_rate,channels,duration:format=duration"
        command = ["ffprobe", "-v", "error", "-select_streams", "a:0", "-show_entries", entries]
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

    def middle(self, seconds: float) -> _Part | None:
        if self.seconds is None:
            raise AudioError(
                f"{self.path}: it does not say how long it is, so that its middle is not known; "
                "use all of it, or convert it to wav, flac, ogg or mp3"
            )
        n_frames = round(self.seconds * self.sample_rate)
        return _middle_part(self.path, seconds, n_frames=n_frames, sample_rate=self.sample_rate)

    def blocks(
        self, part: _Part | None, block_seconds: float | None
    ) -> Generator[tuple[_Samples, int], None, None]:
        cut = [] if part is None else ["-ss", f"{part.start:.6f}", "-t", f"{part.length:.6f}"]
        # Rate and channels are those of the file; given, they cannot be others than is thought.
        form = ["-ar", str(self.sample_rate), "-ac", str(self.n_channels)]
        source = [*cut, "-i", _ffmpeg_name(self.path), "-map", "0:a:0"]
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

    def _read(self, process: "subprocess.Popen[bytes]", size: int | None) -> _Samples:
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
        part: _Part | None,
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


class AudioStream:
    """Mono samples of a file, block by block; use `stream_audio`.

    Each iteration decodes the file anew. An iterator that is dropped half way leaves nothing open.

    Attributes
    ----------
    offset_seconds : float
        Where the part that is read starts within the file; 0 for the whole.
    """

    def __init__(
        self,
        path: Path,
        decoder: _Decoder,
        *,
        target_rate: int,
        part: _Part | None,
        block_seconds: float | None,
    ) -> None:
        self._path = path
        self._decoder = decoder
        self._target_rate = target_rate
        self._part = part
        self._block_seconds = block_seconds
        self.offset_seconds = 0.0 if part is None else part.start

    def __iter__(self) -> Generator[Waveform, None, None]:
        # It may have gone since the stream was made.
        _require_readable(self._path)
        n_decoded = n_given = 0
        resampler: Any = None
        with closing(self._decoder.blocks(self._part, self._block_seconds)) as blocks:
            for samples, rate in blocks:
                if n_decoded == 0:
                    resampler = self._resampler(rate)
                mono = self._mono(samples)
                n_decoded += len(mono)
                for block in _resampled(mono, resampler):
                    n_given += len(block)
                    yield block
        for block in _resampled(None, resampler):
            n_given += len(block)
            yield block
        if n_given == 0:
            problem = _too_short(self._target_rate) if n_decoded else _NO_SAMPLES
            raise AudioError(f"{self._path}: {problem}")

    def _resampler(self, rate: int) -> Any:
        try:
            _require_rate(rate)
        except AudioError as error:
            raise AudioError(f"{self._path}: {error}") from None
        if rate == self._target_rate:
            return None
        import soxr

        return soxr.ResampleStream(rate, self._target_rate, 1, dtype="float32", quality="HQ")

    def _mono(self, samples: _Samples) -> Waveform:
        mono = mix_to_mono(samples)
        try:
            _require_finite(mono)
        except AudioError as error:
            raise AudioError(f"{self._path}: {error}") from None
        return mono


def _resampled(mono: Waveform | None, resampler: Any) -> Iterator[Waveform]:
    """Resample more samples, or those still inside where None tells the end."""
    if resampler is None:
        if mono is not None and len(mono):
            yield mono
        return
    last = mono is None
    samples = np.empty(0, dtype=np.float32) if mono is None else mono
    for start in range(0, max(1, len(samples)), _RESAMPLED_SAMPLES):
        piece: Waveform = resampler.resample_chunk(
            samples[start : start + _RESAMPLED_SAMPLES], last=last
        )
        if len(piece):
            yield piece


class _Fetched:
    """A copy of a file at an address, in a folder that goes when nobody needs it any more."""

    def __init__(self, address: Path) -> None:
        self._address = address
        self._folder = tempfile.TemporaryDirectory(prefix="tagger-")
        # The suffix says how to decode it.
        self.local = Path(self._folder.name) / f"audio{address.suffix}"
        try:
            self.local.write_bytes(address.read_bytes())
        except FileNotFoundError:
            raise AudioError(f"{address}: no such file; check the address") from None
        except PermissionError:
            raise AudioError(f"{address}: no permission to read; check your rights") from None
        except OSError as error:
            raise AudioError(
                f"{address}: cannot be fetched ({error.strerror}); check the network and the disk"
            ) from None

    @contextmanager
    def named(self) -> Iterator[None]:
        """Let errors name the address, not the copy."""
        try:
            yield
        except AudioError as error:
            raise AudioError(str(error).replace(str(self.local), str(self._address))) from None


class _FetchedAudioStream(AudioStream):
    """A stream of a fetched file."""

    def __init__(self, stream: AudioStream, fetched: _Fetched) -> None:
        self._stream = stream
        self._fetched = fetched
        self.offset_seconds = stream.offset_seconds

    def __iter__(self) -> Generator[Waveform, None, None]:
        with self._fetched.named(), closing(iter(self._stream)) as blocks:
            yield from blocks


def stream_audio(
    path: Path,
    *,
    target_rate: int,
    middle_seconds: float | None = None,
    block_seconds: float | None = 30.0,
) -> AudioStream:
    """Decode a file to mono samples at `target_rate`, block by block.

    The samples are the same, bit for bit, whatever the size of the blocks.

    Parameters
    ----------
    path : Path
        wav, flac, ogg, mp3 and the like through libsndfile; m4a, aac and others through ffmpeg
        where it is installed. A file at an address is fetched first.
    target_rate : int
        Samples per second of the result.
    middle_seconds : float, optional
        Only so many seconds in the middle of the file are read, and the whole of a shorter one;
        default the whole file.
    block_seconds : float, optional
        So much is decoded at once at most, and less of many channels; None decodes all at once.

    Returns
    -------
    AudioStream
        An iterable of blocks [shape=(n_samples,), dtype=float32], none of them empty.

    Raises
    ------
    AudioError
        If the file is missing, forbidden, empty, truncated, not audio, or holds no finite samples.
        The message names the file and the remedy. What only decoding shows is raised by the
        iterator, at the end if need be.
    ValueError
        If `middle_seconds` or `block_seconds` is not positive.
    """
    for name, value in (("middle_seconds", middle_seconds), ("block_seconds", block_seconds)):
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite, not {value}")
    if is_remote(path):
        fetched = _Fetched(path)
        with fetched.named():
            stream = stream_audio(
                fetched.local,
                target_rate=target_rate,
                middle_seconds=middle_seconds,
                block_seconds=block_seconds,
            )
        return _FetchedAudioStream(stream, fetched)
    path = Path(path)
    _require_readable(path)
    decoder: _Decoder
    if path.suffix.lower() in FFMPEG_SUFFIXES:
        decoder = _FfmpegDecoder.probe(path)
    else:
        decoder = _SoundfileDecoder(path)
    return AudioStream(
        path,
        decoder,
        target_rate=target_rate,
        part=None if middle_seconds is None else decoder.middle(middle_seconds),
        block_seconds=block_seconds,
    )


def load_audio(path: Path, *, target_rate: int) -> Waveform:
    """Decode a file to mono samples at `target_rate`.

    Parameters
    ----------
    path : Path
        wav, flac, ogg, mp3 and the like through libsndfile; m4a, aac and others through ffmpeg
        where it is installed.
    target_rate : int
        Samples per second of the result.

    Returns
    -------
    np.ndarray [shape=(n_samples,), dtype=float32]
        Mono samples, channels averaged.

    Raises
    ------
    AudioError
        If the file is missing, forbidden, empty, truncated, not audio, or holds no finite samples.
        The message names the file and the remedy.
    """
    blocks = list(stream_audio(path, target_rate=target_rate, block_seconds=None))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def find_audio_files(folder: Path) -> list[Path]:
    """Audio files below `folder`, by suffix, in sorted order; hidden files are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )
