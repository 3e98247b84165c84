"""Channels -> mono: their mean, or the loudest one where they cancel one another."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.signal.decoders import Samples, Waveform, block_frames
from tagger.base.errors import AudioError
from tagger.base.log import warn

# The start of a file tells whether its channels cancel one another; each eighth sample is enough.
_HEARD_SECONDS = 30.0
_HEARD_STEP = 8
# The mean of n channels that have nothing in common has 1/n of their energy. It is less than a
# fifth of that where they are each other's opposites.
_CANCELLED = 0.2


def mix_to_mono(samples: npt.NDArray[np.floating], channel: int | None = None) -> Waveform:
    """Average the channels.

    Parameters
    ----------
    samples : np.ndarray [shape=(n_samples,) or (n_samples, n_channels)]
        Samples as soundfile returns them.
    channel : int, optional
        Take this one alone.

    Returns
    -------
    np.ndarray [shape=(n_samples,), dtype=float32]
        Mono samples.

    Raises
    ------
    AudioError
        If the array has another shape, or no channels.
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
    if n_channels == 1 or channel is not None:
        return np.ascontiguousarray(samples[:, channel or 0])
    # Channel by channel: faster than a mean or a matrix product over interleaved channels, and the
    # rounding of a sample does not depend on where in a block it stands.
    with np.errstate(over="ignore", invalid="ignore"):
        mono: Waveform = np.add(samples[:, 0], samples[:, 1])
        for number in range(2, n_channels):
            mono += samples[:, number]
        mono *= np.float32(1.0 / n_channels)
    return mono


def channel_to_use(samples: npt.NDArray[np.floating], sample_rate: int) -> int | None:
    """Find out whether the mean of channels would lose most of what they hold.

    Parameters
    ----------
    samples : np.ndarray [shape=(n_samples, n_channels)]
        Of the start of a file, or all of it.
    sample_rate : int
        Samples per second.

    Returns
    -------
    int or None
        The loudest channel where it would; None where the mean is as good.
    """
    n_channels = samples.shape[1]
    heard = samples[: block_frames(_HEARD_SECONDS, sample_rate, n_channels) : _HEARD_STEP]
    with np.errstate(over="ignore", invalid="ignore"):
        mono = mix_to_mono(heard)
        energies = np.einsum("ij,ij->j", heard, heard, dtype=np.float64)
        energy = float(np.dot(mono, mono))
        is_cancelled = energy < _CANCELLED / n_channels * float(energies.mean())
    return int(energies.argmax()) if is_cancelled else None


def mono_blocks(blocks: Iterable[tuple[Samples, int]], name: str) -> Iterator[tuple[Waveform, int]]:
    """Mix blocks of a file to mono, all of them alike.

    Parameters
    ----------
    blocks : iterable of (np.ndarray [shape=(n_samples, n_channels)], int)
        Samples and their rate.
    name : str
        The file, for what is said where its channels cancel one another.

    Yields
    ------
    waveform : np.ndarray [shape=(n_samples,), dtype=float32]
        One for each block.
    sample_rate : int
        Its rate.
    """
    held: list[Samples] = []
    kind: Any = None
    channel: int | None = None
    is_decided = False

    def decided() -> Iterator[tuple[Waveform, int]]:
        nonlocal channel, is_decided
        if held and not is_decided:
            channel = channel_to_use(np.concatenate(held), kind[1])
            if channel is not None:
                warn(f"{name}: its channels cancel one another; the loudest alone is used")
            is_decided = True
        yield from ((mix_to_mono(each, channel), kind[1]) for each in held)
        held.clear()

    for samples, rate in blocks:
        if (samples.shape[1], rate) != kind:
            yield from decided()
            kind, channel, is_decided = (samples.shape[1], rate), None, samples.shape[1] == 1
        held.append(samples)
        heard = block_frames(_HEARD_SECONDS, rate, samples.shape[1])
        if is_decided or sum(map(len, held)) >= heard:
            yield from decided()
    yield from decided()
