"""The only place that decodes or resamples audio."""

import os
import stat
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.clips.audio_files import FFMPEG_SUFFIXES, MOST_MISSING, where_it_may_be
from preprocess.signal.channels import channel_to_use, mix_to_mono, mono_blocks
from preprocess.signal.container_decoder import nothing_decodes
from preprocess.signal.contents import (
    FLAC,
    HEAD_BYTES,
    MP3,
    after_id3,
    kind_for_ffmpeg,
    kind_for_soundfile,
)
from preprocess.signal.decoders import (
    Decoder,
    Part,
    Samples,
    SoundfileDecoder,
    UndecodableError,
    Waveform,
    percent,
    require_rate,
)
from preprocess.signal.ffmpeg_decoder import FfmpegDecoder
from preprocess.signal.pyav_decoder import PyavDecoder
from tagger.base.addresses import is_remote
from tagger.base.errors import AudioError
from tagger.base.log import warn

# An array with more channels than this, and fewer samples, has its channels first.
_MOST_CHANNELS = 32
# Mixes in floats go beyond 1, but not by 36 dB: these are integers that have become floats.
_LOUDEST = 64.0
# Less is not worth a word: encoders themselves leave a frame or two out.
_TOLD_SHARE = 0.01
# Samples resampled at once: more of them leave the processor's cache.
_RESAMPLED_SAMPLES = 65_536


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
        Samples in [-1, 1]; also [shape=(n_channels, n_samples)], which its lengths tell.
    sample_rate, target_rate : int
        Samples per second before and after.

    Returns
    -------
    np.ndarray [shape=(n_target_samples,), dtype=float32]
        Mono samples at `target_rate`.

    Raises
    ------
    AudioError
        If there are no samples, they are integers or in the range of integers, one is NaN or
        infinite, or the rate is no rate of audio.
    """
    require_rate(sample_rate)
    samples = np.asarray(samples)
    if not np.issubdtype(samples.dtype, np.floating):
        # Their range is not known here, and taken as it is 16-bit audio would be 90 dB too loud.
        raise AudioError(f"has samples of the type {samples.dtype}; give floats from -1 to 1")
    if samples.ndim == 2 and samples.shape[0] <= _MOST_CHANNELS < samples.shape[1]:
        # As librosa and torchaudio give them.
        samples = samples.T
    channel = None
    if samples.ndim == 2 and samples.shape[1] > 1:
        channel = channel_to_use(samples, sample_rate)
    mono = mix_to_mono(samples, channel)
    if mono.size == 0:
        raise AudioError(_NO_SAMPLES)
    _require_finite(mono)
    peak = float(np.abs(mono).max())
    if peak > _LOUDEST:
        raise AudioError(
            f"has samples up to {peak:.0f}; give floats from -1 to 1: divide those of 16-bit audio "
            "by 32768"
        )
    resampled = resample(mono, sample_rate, target_rate=target_rate)
    if resampled.size == 0:
        raise AudioError(_too_short(target_rate))
    return resampled


_NO_SAMPLES = "holds no samples; remove the clip or replace the file"


def _too_short(target_rate: int) -> str:
    return f"is shorter than a sample at {target_rate} Hz; remove the clip or replace the file"


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
            if not is_remote(path) and not os.access(path, os.R_OK | os.X_OK):
                raise AudioError(f"{path}: no permission to look into it; change its rights")
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
        raise AudioError(f"{path}: no such file; check the path{where_it_may_be(path)}") from None
    except ValueError as error:
        raise AudioError(f"{str(path)!r}: is not a file name ({error}); check the path") from None
    except PermissionError:
        raise AudioError(f"{path}: no permission to read; change the file's rights") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}); check the disk") from None
    if size == 0:
        raise AudioError(f"{path}: empty file (0 bytes); copy or download it again")


class AudioStream:
    """Mono samples of a file, block by block; use `stream_audio`.

    Each iteration decodes the file anew. An iterator that is dropped half way leaves nothing open.

    Attributes
    ----------
    offset_seconds : float
        Where the part that is read starts within the file; 0 for the whole.
    missing : float
        Share of the audio that is not there or cannot be decoded, as far as the file tells; known
        once the iterator is exhausted, and then told on stderr.
    """

    def __init__(
        self,
        path: Path,
        decoder: Decoder,
        *,
        target_rate: int,
        part: Part | None,
        block_seconds: float | None,
    ) -> None:
        self._path = path
        self._decoder = decoder
        self._target_rate = target_rate
        self._part = part
        self._block_seconds = block_seconds
        self.offset_seconds = 0.0 if part is None else part.start
        self.missing = 0.0
        # In what is said of it.
        self.name = str(path)

    def __iter__(self) -> Generator[Waveform, None, None]:
        # It may have gone since the stream was made.
        _require_readable(self._path)
        n_decoded = n_given = 0

        def counted(blocks: Iterator[tuple[Samples, int]]) -> Iterator[tuple[Samples, int]]:
            nonlocal n_decoded
            for samples, rate in blocks:
                n_decoded += len(samples)
                yield samples, rate

        with closing(self._decoder.blocks(self._part, self._block_seconds)) as blocks:
            for block in self._at_target_rate(mono_blocks(counted(blocks), self.name)):
                n_given += len(block)
                yield block
        if n_given == 0:
            problem = _too_short(self._target_rate) if n_decoded else _NO_SAMPLES
            raise AudioError(f"{self._path}: {problem}")
        if self._decoder.missing >= _TOLD_SHARE:
            self.missing = self._decoder.missing
            warn(
                f"{self.name}: truncated or damaged: {percent(self.missing)} or more of its audio "
                "is missing, the rest is used; copy or download it again"
            )

    def _at_target_rate(self, blocks: Iterator[tuple[Waveform, int]]) -> Iterator[Waveform]:
        """Resample blocks to the wanted rate, also of a file whose streams have several."""
        resampler: Any = None
        last_rate: int | None = None
        for mono, rate in blocks:
            if rate != last_rate:
                yield from resampled(None, resampler)
                resampler, last_rate = self._resampler(rate), rate
            try:
                _require_finite(mono)
            except AudioError as error:
                raise AudioError(f"{self._path}: {error}") from None
            yield from resampled(mono, resampler)
        yield from resampled(None, resampler)

    def _resampler(self, rate: int) -> Any:
        try:
            require_rate(rate)
        except AudioError as error:
            raise AudioError(f"{self._path}: {error}") from None
        return block_resampler(rate, self._target_rate)


def block_resampler(rate: int, target_rate: int) -> Any:
    """Make what `resampled` resamples blocks with, as `resample` does a whole; None: no need to."""
    if rate == target_rate:
        return None
    import soxr

    return soxr.ResampleStream(rate, target_rate, 1, dtype="float32", quality="HQ")


def resampled(mono: Waveform | None, resampler: Any) -> Iterator[Waveform]:
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
        self.missing = 0.0

    def __iter__(self) -> Generator[Waveform, None, None]:
        with self._fetched.named(), closing(iter(self._stream)) as blocks:
            yield from blocks
        self.missing = self._stream.missing


def stream_audio(
    path: Path,
    *,
    target_rate: int,
    middle_seconds: float | None = None,
    block_seconds: float | None = 30.0,
    most_missing: float = MOST_MISSING,
) -> AudioStream:
    """Decode a file to mono samples at `target_rate`, block by block.

    The samples are the same, bit for bit, whatever the size of the blocks.

    Parameters
    ----------
    path : Path
        wav, flac, ogg, mp3 and the like through libsndfile; m4a, aac and others through ffmpeg
        where it is installed. What a file is its content says, not its name. A file at an address
        is fetched first.
    target_rate : int
        Samples per second of the result.
    middle_seconds : float, optional
        Only so many seconds in the middle of the file are read, and the whole of a shorter one;
        default the whole file.
    block_seconds : float, optional
        So much is decoded at once at most, and less of many channels; None decodes all at once.
    most_missing : float
        Share of its audio that may be missing or damaged, from 0 to 1.

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
        If `middle_seconds` or `block_seconds` is not positive, or `most_missing` is no share.
    """
    if not 0 <= most_missing <= 1:
        raise ValueError(f"most_missing must be from 0 to 1, not {most_missing}")
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
                most_missing=most_missing,
            )
        stream.name = str(path)
        return _FetchedAudioStream(stream, fetched)
    path = Path(path)
    _require_readable(path)
    decoder = _decoder(path, most_missing)
    return AudioStream(
        path,
        decoder,
        target_rate=target_rate,
        part=None if middle_seconds is None else decoder.middle(middle_seconds),
        block_seconds=block_seconds,
    )


def _decoder(path: Path, most_missing: float) -> Decoder:
    """Choose who decodes a file: by what it is, and by its name where that cannot be told."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(after_id3(file))
        behind_id3 = file.read(HEAD_BYTES)
    kind = kind_for_ffmpeg(head) or kind_for_ffmpeg(behind_id3)
    known = kind_for_soundfile(head)
    if kind is not None or (known is None and path.suffix.lower() in FFMPEG_SUFFIXES):
        other = _installed_decoder()
        if other is None:
            raise nothing_decodes(path, kind)
        return other.probe(path, most_missing=most_missing)
    decoder = SoundfileDecoder(path, most_missing)
    # Of the codecs in other containers libsndfile knows some.
    if known in (FLAC, MP3):
        return decoder
    try:
        decoder.require_readable()
    except UndecodableError as error:
        other = None if error.is_malformed else _installed_decoder()
        if other is not None:
            # What others say of files that are no audio helps nobody.
            with suppress(AudioError):
                return other.probe(path, most_missing=most_missing)
        raise
    return decoder


def _installed_decoder() -> type[PyavDecoder] | type[FfmpegDecoder] | None:
    return next((one for one in (PyavDecoder, FfmpegDecoder) if one.is_installed()), None)


def load_audio(path: Path, *, target_rate: int, most_missing: float = MOST_MISSING) -> Waveform:
    """Decode a file to mono samples at `target_rate`.

    Parameters
    ----------
    path : Path
        wav, flac, ogg, mp3 and the like through libsndfile; m4a, aac and others through ffmpeg
        where it is installed.
    target_rate : int
        Samples per second of the result.
    most_missing : float
        Share of its audio that may be missing or damaged, from 0 to 1.

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
    stream = stream_audio(
        path, target_rate=target_rate, block_seconds=None, most_missing=most_missing
    )
    blocks = list(stream)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
