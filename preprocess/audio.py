"""The only place that decodes or resamples audio."""

import io
import json
import shutil
import stat
import subprocess
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from tagger.errors import AudioError

Waveform = npt.NDArray[np.float32]

# What libsndfile decodes; everything else goes through ffmpeg where it is installed.
SOUNDFILE_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"}
)
FFMPEG_SUFFIXES = frozenset({".m4a", ".aac", ".mp4", ".wma", ".webm", ".mka", ".ac3", ".amr"})
AUDIO_SUFFIXES = SOUNDFILE_SUFFIXES | FFMPEG_SUFFIXES

_FFMPEG_TIMEOUT_SECONDS = 600

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
    # A matrix product is some 30 times faster than samples.mean(axis=1) on the interleaved
    # channels of a stereo file, and the same average.
    weights: Waveform = np.full(n_channels, 1.0 / n_channels, dtype=np.float32)
    mono: Waveform = np.matmul(samples, weights, dtype=np.float32)
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
    lowest, highest = _SAMPLE_RATES_HZ
    if not lowest <= sample_rate <= highest:
        raise AudioError(
            f"has the sample rate {sample_rate} Hz; give one from {lowest} to {highest} Hz"
        )
    samples = np.asarray(samples)
    if not np.issubdtype(samples.dtype, np.floating):
        # Their range is not known here, and taken as it is 16-bit audio would be 90 dB too loud.
        raise AudioError(f"has samples of the type {samples.dtype}; give floats from -1 to 1")
    mono = mix_to_mono(samples)
    if mono.size == 0:
        raise AudioError("holds no samples; remove the clip or replace the file")
    # One NaN or infinity makes the sum of squares non-finite: one pass, no temporary mask.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(np.dot(mono, mono))
    if suspicious and not np.isfinite(mono).all():
        raise AudioError("holds NaN or infinite samples; export the file again")
    resampled = resample(mono, sample_rate, target_rate=target_rate)
    if resampled.size == 0:
        raise AudioError(
            f"is shorter than a sample at {target_rate} Hz; remove the clip or replace the file"
        )
    return resampled


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


def _read_with_soundfile(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    import soundfile

    missing = _missing_share(path)
    if missing > 0:
        raise AudioError(
            f"{path}: truncated: {_percent(missing)} of its audio data is missing; "
            "copy or download it again"
        )
    try:
        with soundfile.SoundFile(path) as file:
            promised = file.frames
            if file.format == "RAW":
                # libsndfile takes any file named .au, .gsm or .vox for audio without a header.
                raise AudioError(
                    f"{path}: not decodable audio (no header); convert it to wav, flac, ogg or mp3"
                )
            if promised >= _UNKNOWN_FRAMES:
                raise AudioError(
                    f"{path}: its header does not say how long it is; write it again, e.g. with "
                    "ffmpeg -i"
                )
            samples = file.read(dtype="float32", always_2d=True)
            rate = int(file.samplerate)
    except MemoryError:
        raise AudioError(
            f"{path}: not enough memory for the {promised} samples that its header promises; "
            "split the file, or replace it if it is shorter"
        ) from None
    except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError) as error:
        # libsndfile, its mp3 reader and soundfile itself each raise another class.
        reason = str(error).split(": ", 1)[-1].strip().rstrip(".")
        raise AudioError(
            f"{path}: not decodable audio ({reason}); convert it to wav, flac, ogg or mp3"
        ) from None
    # mp3 headers estimate the length; a fifth less than promised is a cut file, not an estimate.
    if len(samples) < 0.8 * promised:
        raise AudioError(
            f"{path}: truncated or damaged: {_percent(1 - len(samples) / promised)} of its audio "
            "cannot be decoded; copy or download it again"
        )
    return samples, rate


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"


def _read_with_ffmpeg(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        raise AudioError(
            f"{path}: {path.suffix} files need ffmpeg, which is not installed; "
            "install it or convert the file to wav, flac, ogg or mp3"
        )
    import soundfile

    # The prefix keeps a file name such as "-i" or "http:x" from being taken for something else.
    source = f"file:{path}"
    quiet = ["-v", "error"]
    decode = ["ffmpeg", *quiet, "-nostdin", "-i", source, "-map", "0:a:0", "-f", "wav"]
    try:
        probe = subprocess.run(
            ["ffprobe", *quiet, "-select_streams", "a:0", "-show_entries", "stream=sample_rate"]
            + ["-of", "json", source],
            capture_output=True,
            timeout=_FFMPEG_TIMEOUT_SECONDS,
            check=True,
        )
        if not json.loads(probe.stdout).get("streams"):
            raise AudioError(f"{path}: holds no audio stream; give an audio file")
        decoded = subprocess.run(
            [*decode, "-c:a", "pcm_f32le", "-"],
            capture_output=True,
            timeout=_FFMPEG_TIMEOUT_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise AudioError(
            f"{path}: ffmpeg did not finish within {_FFMPEG_TIMEOUT_SECONDS} s; convert the file"
        ) from None
    except (subprocess.CalledProcessError, json.JSONDecodeError) as error:
        lines = getattr(error, "stderr", b"").decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines else "unknown reason"
        raise AudioError(
            f"{path}: ffmpeg cannot decode it ({reason}); convert it to wav, flac, ogg or mp3"
        ) from None
    try:
        samples, rate = soundfile.read(io.BytesIO(decoded.stdout), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        raise AudioError(
            f"{path}: ffmpeg decodes nothing of it ({error}); convert it to wav, flac, ogg or mp3"
        ) from None
    return samples, int(rate)


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
    path = Path(path)
    _require_readable(path)
    if path.suffix.lower() in FFMPEG_SUFFIXES:
        samples, sample_rate = _read_with_ffmpeg(path)
    else:
        samples, sample_rate = _read_with_soundfile(path)
    try:
        return prepare_waveform(samples, sample_rate, target_rate=target_rate)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None


def find_audio_files(folder: Path) -> list[Path]:
    """Audio files below `folder`, by suffix, in sorted order; hidden files are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )
