"""What front ends share that make one window of each stretch of audio, from mel bands in dB.

The numbers are those of librosa 0.11, which is not needed for them ::

    mel = librosa.feature.melspectrogram(y=y, sr=sr, n_fft=n_fft, hop_length=hop, n_mels=bands)
    librosa.power_to_db(mel, ref=numpy.max)
"""

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from preprocess.signal.features import FrontEnd, ShortClipWarning, Windows
from preprocess.signal.features._frames import (
    Samples,
    complex_spectra,
    frame_chunks,
    periodic_hann,
)
from preprocess.signal.features.musicnn import mel_matrix

Floats = npt.NDArray[np.float32]

# librosa's `top_db`: what lies deeper under the maximum is raised to it.
RANGE_DB = 80.0
# librosa's `amin`: no power is taken for less.
_LEAST_POWER = 1e-10
# Frames of 2,048 samples that stay in the cache of a core: a third faster than chunks of 256.
_FRAMES_AT_ONCE = 64
# Bands whose weights are one matrix: its other rows are zeros, and are not multiplied.
_BANDS_AT_ONCE = 32
# Louder than any audio; more would overflow float32 in the sum over a band.
_LARGEST_POWER = np.float32(1e30)


@dataclass(frozen=True)
class MelDb:
    """Mel spectrogram in dB under its maximum.

    Parameters
    ----------
    sample_rate : int
        Samples per second.
    n_fft, hop : int
        Length of a frame, and distance between the starts of two, in samples.
    bands : int
        Slaney's mel bands, from 0 Hz to half of the sample rate.
    range_db : float
        The lowest value is this many dB under the maximum.
    least_power : float
        No power of a band is taken for less.
    """

    sample_rate: int
    n_fft: int
    hop: int
    bands: int
    range_db: float = RANGE_DB
    least_power: float = _LEAST_POWER

    @cached_property
    def _hann(self) -> npt.NDArray[np.float64]:
        return periodic_hann(self.n_fft)

    @cached_property
    def _weights(self) -> list[tuple[slice, slice, Floats]]:
        """Bins, bands, and the weights from the one to the other."""
        matrix = mel_matrix(
            n_bands=self.bands,
            n_bins=self.n_fft // 2 + 1,
            sample_rate=self.sample_rate,
            min_hz=0.0,
            max_hz=self.sample_rate / 2,
        )
        parts = []
        for start in range(0, self.bands, _BANDS_AT_ONCE):
            bands = slice(start, start + _BANDS_AT_ONCE)
            used = np.flatnonzero(matrix[:, bands].any(axis=1))
            # Bands that are narrower than a bin may have none.
            bins = slice(used[0], used[-1] + 1) if len(used) else slice(0, 1)
            parts.append((bins, bands, np.ascontiguousarray(matrix[bins, bands], np.float32)))
        return parts

    def n_frames(self, n_samples: int) -> int:
        """Count the frames of so many samples: they are centred on the multiples of the hop."""
        return 1 + (n_samples + 2 * (self.n_fft // 2) - self.n_fft) // self.hop

    def __call__(self, samples: Samples) -> Floats:
        """Compute the spectrogram of samples, with zeros beyond their ends.

        Parameters
        ----------
        samples : np.ndarray [shape=(n_samples,), dtype=float32]
            At least one.

        Returns
        -------
        np.ndarray [shape=(n_frames, bands), dtype=float32]
            From ``-range_db`` to 0; of silence all values are 0.
        """
        margin = np.zeros(self.n_fft // 2, dtype=np.float32)
        chunks = (
            frames[start : start + _FRAMES_AT_ONCE]
            for frames in frame_chunks(
                [margin, samples, margin], frame_samples=self.n_fft, hop_samples=self.hop
            )
            for start in range(0, len(frames), _FRAMES_AT_ONCE)
        )
        mel = np.empty((self.n_frames(len(samples)), self.bands), dtype=np.float32)
        done = 0
        for spectra in complex_spectra(chunks, self._hann, n_fft=self.n_fft):
            with np.errstate(over="ignore"):
                power = np.square(spectra.real) + np.square(spectra.imag)
            np.minimum(power, _LARGEST_POWER, out=power)
            for bins, bands, weights in self._weights:
                mel[done : done + len(power), bands] = power[:, bins] @ weights
            done += len(power)
        decibels = np.log10(np.maximum(mel, np.float32(self.least_power), out=mel), out=mel)
        decibels *= np.float32(10)
        decibels -= decibels.max()
        return np.maximum(decibels, np.float32(-self.range_db), out=decibels)


def fitted(rows: Floats, n_rows: int, *, fill: float) -> Floats:
    """First rows of an array, or all of it and then rows that hold `fill`."""
    found = np.full((n_rows, *rows.shape[1:]), fill, dtype=np.float32)
    found[: len(rows)] = rows[:n_rows]
    return found


def stretches(blocks: Iterable[Samples], *, length: int, tolerance: int) -> Iterator[Samples]:
    """Cut samples that arrive in blocks into stretches, of which none is kept.

    Parameters
    ----------
    blocks : iterable of np.ndarray [shape=(n_samples,), dtype=float32]
        Consecutive samples, in blocks of any size; at least one sample in all.
    length, tolerance : int
        Samples of a stretch, and how many the last one may lack; a shorter rest is left out.

    Yields
    ------
    np.ndarray [shape=(n_samples,), dtype=float32]
        At least one; `length` samples, but for the last.
    """
    held: list[Samples] = []
    n_held = 0
    is_first = True
    for block in blocks:
        held.append(block)
        n_held += len(block)
        if n_held < length:
            continue
        samples = np.concatenate(held) if len(held) > 1 else block
        end = n_held - n_held % length
        for start in range(0, end, length):
            yield samples[start : start + length]
        is_first = False
        held, n_held = [samples[end:].copy()], n_held - end
    if is_first or n_held >= length - tolerance:
        yield np.concatenate(held)


class StretchFrontEnd(FrontEnd):
    """Front end that makes one window of each stretch of audio, and keeps one in memory."""

    # What a short clip is padded with, for the warning.
    _padding = f"-{RANGE_DB:.0f} dB"

    @property
    @abstractmethod
    def _stretch(self) -> tuple[int, int]:
        """Samples of a stretch, and how many the last one may lack."""

    @abstractmethod
    def _window(self, samples: Samples) -> Windows:
        """Compute the window of a stretch, without the axis that counts windows."""

    @property
    def window_seconds(self) -> float:
        return self._stretch[0] / self.sample_rate

    @property
    def hop_seconds(self) -> float:
        return self.window_seconds

    def windows(self, waveform: npt.NDArray[np.float32]) -> Windows:
        if self.is_short(len(waveform)):
            warnings.warn(
                f"clip of {len(waveform) / self.sample_rate:.3f} s does not fill a window of "
                f"{self.window_seconds:.3f} s: padded with {self._padding}",
                ShortClipWarning,
                stacklevel=2,
            )
        found = list(self.stream([waveform]))
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}

    def stream(self, blocks: Iterable[npt.NDArray[np.float32]]) -> Iterator[Windows]:
        length, tolerance = self._stretch
        for samples in stretches(blocks, length=length, tolerance=tolerance):
            window = self._window(np.ascontiguousarray(samples, dtype=np.float32))
            yield {name: array[np.newaxis] for name, array in window.items()}


def tolerance_of(n_samples: int, sample_rate: int) -> int:
    """Give the samples that a stretch may lack: half a second; clips of 30 s are often 29.98 s."""
    return min(sample_rate, n_samples) // 2
