"""The only place that decodes or resamples audio."""

import io
import json
import shutil
import subprocess
from pathlib import Path

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
    weights = np.full(n_channels, 1.0 / n_channels, dtype=np.float32)
    mono: Waveform = samples @ weights
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
        If there are no samples, a sample is NaN or infinite, or the rate is not positive.
    """
    if sample_rate <= 0:
        raise AudioError(f"sample rate {sample_rate} Hz; it must be positive")
    mono = mix_to_mono(samples)
    if mono.size == 0:
        raise AudioError("holds no samples; remove the clip or replace the file")
    # One NaN or infinity makes the sum of squares non-finite: one pass, no temporary mask.
    if not np.isfinite(np.dot(mono, mono)) and not np.isfinite(mono).all():
        raise AudioError("holds NaN or infinite samples; export the file again")
    return resample(mono, sample_rate, target_rate=target_rate)


def _require_readable(path: Path) -> None:
    """Raise an AudioError that tells missing, forbidden, empty and non-file apart."""
    try:
        if path.is_dir():
            raise AudioError(f"{path}: is a folder; give an audio file")
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file; check the path") from None
    except PermissionError:
        raise AudioError(f"{path}: no permission to read; change the file's rights") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}); check the disk") from None
    if size == 0:
        raise AudioError(f"{path}: empty file (0 bytes); copy or download it again")


def _wav_shortfall(path: Path) -> str | None:
    """Say how much a WAV file lacks of what its header promises; None for a whole file.

    libsndfile reads a truncated WAV to the end that is there and says nothing.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(12)
        if len(header) < 12 or header[:4] != b"RIFF" or header[8:12] != b"WAVE":
            return None
        position = 12
        while position + 8 <= size:
            file.seek(position)
            chunk = file.read(8)
            length = int.from_bytes(chunk[4:8], "little")
            if chunk[:4] == b"data":
                # Streaming writers put 0 or the largest number there when they do not know.
                if length in (0, 0xFFFFFFFF) or position + 8 + length <= size:
                    return None
                missing = 100.0 * (position + 8 + length - size) / length
                return f"truncated: {missing:.0f} % of its audio data is missing"
            position += 8 + length + (length & 1)
    return None


def _read_with_soundfile(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    import soundfile

    shortfall = _wav_shortfall(path)
    if shortfall is not None:
        raise AudioError(f"{path}: {shortfall}; copy or download it again")
    try:
        with soundfile.SoundFile(path) as file:
            promised = file.frames
            samples = file.read(dtype="float32", always_2d=True)
            rate = int(file.samplerate)
    except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError) as error:
        # libsndfile, its mp3 reader and soundfile itself each raise another class.
        reason = str(error).split(": ", 1)[-1].strip().rstrip(".")
        raise AudioError(
            f"{path}: not decodable audio ({reason}); convert it to wav, flac, ogg or mp3"
        ) from None
    # mp3 headers estimate the length; a fifth less than promised is a cut file, not an estimate.
    if len(samples) < 0.8 * promised and promised < 2**40:
        missing = 100.0 * (1 - len(samples) / promised)
        raise AudioError(
            f"{path}: truncated or damaged: {missing:.0f} % of its audio cannot be decoded; "
            "copy or download it again"
        )
    return samples, rate


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
    samples, rate = soundfile.read(io.BytesIO(decoded.stdout), dtype="float32", always_2d=True)
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
