"""Sound as it is heard: blocks of mono samples from a microphone, or from a WAV stream."""

import io
import queue
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from preprocess.signal.audio import block_resampler, resampled
from preprocess.signal.channels import mix_to_mono
from tagger.base.errors import AudioError

Block = npt.NDArray[np.float32]
# Samples of a WAV stream, by their format and bits.
_FORMATS = {(1, 16): "<i2", (1, 32): "<i4", (3, 32): "<f4"}
_EXTENSIBLE = 0xFFFE
_LONGEST_CHUNK = 1 << 20


def of_microphone(sample_rate: int, *, block_seconds: float) -> Iterator[Block]:
    """Hear the default microphone, for ever.

    Yields
    ------
    np.ndarray [shape=(n_samples,), dtype=float32]
        Mono samples at `sample_rate`.

    Raises
    ------
    AudioError
        If there is none that can be heard.
    """
    try:
        import sounddevice
    except OSError as error:
        raise AudioError(
            f"the microphone cannot be heard ({error}); install PortAudio (libportaudio2), or send "
            "a WAV stream: tagger listen -"
        ) from None
    blocks: queue.SimpleQueue[Block] = queue.SimpleQueue()

    def heard(samples: Any, *_: Any) -> None:
        blocks.put(samples[:, 0].copy())

    try:
        stream = sounddevice.InputStream(
            samplerate=sample_rate,
            channels=1,
            dtype="float32",
            blocksize=round(block_seconds * sample_rate),
            callback=heard,
        )
        with stream:
            while True:
                yield blocks.get()
    except sounddevice.PortAudioError as error:
        raise AudioError(
            f"the microphone cannot be heard ({error}); check that one is there and free, or send "
            "a WAV stream: tagger listen -"
        ) from None


def of_wav_stream(stream: BinaryIO, sample_rate: int, *, block_seconds: float) -> Iterator[Block]:
    """Read a WAV stream to its end, whatever length its header tells.

    Parameters
    ----------
    stream : BinaryIO
        16 or 32 bits, or floats; any rate and number of channels.
    sample_rate : int
        Of the result.
    block_seconds : float
        Length of a block.

    Yields
    ------
    np.ndarray [shape=(n_samples,), dtype=float32]
        Mono samples at `sample_rate`.

    Raises
    ------
    AudioError
        If it is no such stream.
    """
    kind, rate, n_channels = _header(stream)
    dtype, resampler = np.dtype(kind), block_resampler(rate, sample_rate)
    n_bytes = round(block_seconds * rate) * n_channels * dtype.itemsize
    while content := _exactly(stream, n_bytes):
        whole = len(content) - len(content) % (n_channels * dtype.itemsize)
        samples = np.frombuffer(content[:whole], dtype).astype(np.float32)
        if dtype.kind == "i":
            samples /= np.float32(2 ** (8 * dtype.itemsize - 1))
        yield from resampled(mix_to_mono(samples.reshape(-1, n_channels)), resampler)
    yield from resampled(None, resampler)


def _header(stream: BinaryIO) -> tuple[str, int, int]:
    """Sample type, rate and channels of a WAV stream, up to its samples."""
    start = _exactly(stream, 12)
    if start[:4] != b"RIFF" or start[8:] != b"WAVE":
        raise AudioError("standard input: is no WAV stream; make one, e.g. with ffmpeg -f wav -")
    found = None
    while True:
        chunk = _exactly(stream, 8)
        if len(chunk) < 8:
            raise AudioError("standard input: the WAV stream ends within its header; send it again")
        length = int.from_bytes(chunk[4:], "little")
        if chunk[:4] == b"data":
            break
        content = _exactly(stream, min(length + length % 2, _LONGEST_CHUNK))
        if chunk[:4] == b"fmt ":
            fields = np.frombuffer(content[:16].ljust(16, b"\0"), "<u2")
            kind = int(fields[0])
            if kind == _EXTENSIBLE and len(content) >= 26:
                kind = int.from_bytes(content[24:26], "little")
            rate = int.from_bytes(content[4:8], "little")
            found = _FORMATS.get((kind, int(fields[7]))), rate, int(fields[1])
    if found is None or found[0] is None or not found[2] or not 1000 <= found[1] <= 1_000_000:
        raise AudioError(
            "standard input: a WAV stream of 16 or 32 bits or floats is wanted; e.g. ffmpeg -c:a "
            "pcm_s16le -f wav -"
        )
    return found[0], found[1], found[2]


def _exactly(stream: BinaryIO, n_bytes: int) -> bytes:
    """Read so many bytes; fewer at the end."""
    parts = io.BytesIO()
    while parts.tell() < n_bytes:
        part = stream.read(n_bytes - parts.tell())
        if not part:
            break
        parts.write(part)
    return parts.getvalue()
