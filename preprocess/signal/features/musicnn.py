"""musicnn's front end: 3 s log-mel windows of 187 frames x 96 bands.

Follows the input of Pons & Serra, "musicnn: pre-trained convolutional neural networks for music
audio tagging" (ISMIR 2019 late-breaking): the power spectrum of centred frames, Slaney's mel bands
of equal area, and ``log10(10000 * mel + 1)``. The numbers are those that librosa gives of ::

    mel = librosa.feature.melspectrogram(
        y=waveform, sr=16000, n_fft=512, hop_length=256, n_mels=96, pad_mode="reflect"
    )
    numpy.log10(10000 * mel.T + 1)
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from preprocess.signal.features import LogScale
from preprocess.signal.features._frames import (
    complex_spectra,
    frame_chunks,
    periodic_hann,
    reflected,
)
from preprocess.signal.features._log_mel import LogMelFrontEnd, Slicing
from tagger.base.registry import Params

# Slaney's mel scale (Auditory Toolbox, Interval Research technical report 1998-010): linear up to
# 1 kHz, from there on 27 steps for a ratio of 6.4.
_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0

# Added to the scaled mel power before the logarithm.
_LOG_OFFSET = 1.0

# Louder than any audio; more would overflow float32 in the sum over a band.
_LARGEST_POWER = np.float32(1e30)


def hz_to_mel(frequencies_hz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Frequencies in Hz on Slaney's mel scale."""
    hz = np.asarray(frequencies_hz, dtype=np.float64)
    above = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    mel: npt.NDArray[np.float64] = np.where(hz < _BREAK_HZ, hz / _HZ_PER_MEL, above)
    return mel


def mel_to_hz(mels: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Values of Slaney's mel scale in Hz."""
    mel = np.asarray(mels, dtype=np.float64)
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    hz: npt.NDArray[np.float64] = np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, above)
    return hz


def mel_matrix(
    *, n_bands: int, n_bins: int, sample_rate: int, min_hz: float, max_hz: float
) -> npt.NDArray[np.float64]:
    """Weights from power-spectrum bins to mel bands.

    Parameters
    ----------
    n_bands, n_bins : int
        Columns and rows of the matrix; `n_bins` is half the FFT length plus one.
    sample_rate : int
        Samples per second; the last bin is half of it in Hz.
    min_hz, max_hz : float
        Lower edge of the first triangle and upper edge of the last.

    Returns
    -------
    np.ndarray [shape=(n_bins, n_bands), dtype=float64]
        Triangles that are linear in Hz, each with an area of 1 over frequency in Hz.
    """
    bins_hz = np.linspace(0.0, sample_rate / 2, n_bins)[:, np.newaxis]
    mels = np.linspace(float(hz_to_mel(min_hz)), float(hz_to_mel(max_hz)), n_bands + 2)
    edges = mel_to_hz(mels)
    lower, center, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins_hz - lower) / (center - lower)
    falling = (upper - bins_hz) / (upper - center)
    weights: npt.NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    weights *= 2.0 / (upper - lower)
    return weights


class MusicnnParams(Params):
    """Parameters of musicnn's front end; the defaults are the published values."""

    sample_rate: Annotated[int, Field(gt=0, description="samples per second")] = 16000
    n_fft: Annotated[int, Field(ge=2, description="samples in a frame")] = 512
    hop_samples: Annotated[int, Field(gt=0, description="between starts of frames")] = 256
    n_bands: Annotated[int, Field(gt=0, description="mel bands")] = 96
    min_hz: Annotated[float, Field(ge=0)] = 0.0
    max_hz: Annotated[float, Field(gt=0)] = 8000.0
    log_scale: Annotated[float, Field(gt=0, description="times the mel power, before 1 + it")] = (
        10000.0
    )
    window_frames: Annotated[int, Field(gt=0, description="frames in a window")] = 187
    hop_frames: Annotated[int, Field(gt=0, description="between starts of windows")] = 187
    keep_partial: Annotated[bool, Field(description="keep a last, zero-padded partial window")] = (
        False
    )

    @model_validator(mode="after")
    def _consistent(self) -> "MusicnnParams":
        if not self.min_hz < self.max_hz <= self.sample_rate / 2:
            raise ValueError("needs min_hz < max_hz <= sample_rate / 2")
        return self


class MusicnnFrontEnd(LogMelFrontEnd):
    """Log-mel windows under the name ``log_mel``.

    A frame is centred on each multiple of the hop; beyond its ends the waveform is continued by its
    mirror image. The frames of a clip shorter than a window are repeated until they fill one, as in
    the training of the published models.
    """

    Params = MusicnnParams
    params: MusicnnParams

    @property
    def sample_rate(self) -> int:  # noqa: D102 (the contract documents it)
        return self.params.sample_rate

    @property
    def window_seconds(self) -> float:  # noqa: D102
        return self.params.window_frames * self.params.hop_samples / self.params.sample_rate

    @property
    def hop_seconds(self) -> float:  # noqa: D102
        return self.params.hop_frames * self.params.hop_samples / self.params.sample_rate

    @property
    def log_scales(self) -> dict[str, LogScale]:  # noqa: D102 (the contract documents it)
        return {"log_mel": LogScale(base=10, offset=_LOG_OFFSET, db_per_decade=10)}

    @property
    def _n_bands(self) -> int:
        return self.params.n_bands

    @property
    def _slicing(self) -> Slicing:
        return {
            "window_frames": self.params.window_frames,
            "hop_frames": self.params.hop_frames,
            "keep_partial": self.params.keep_partial,
            "fill": "repeat",
        }

    @cached_property
    def _hann(self) -> npt.NDArray[np.float64]:
        return periodic_hann(self.params.n_fft)

    @cached_property
    def _mel_matrix(self) -> npt.NDArray[np.float32]:
        matrix = mel_matrix(
            n_bands=self.params.n_bands,
            n_bins=self.params.n_fft // 2 + 1,
            sample_rate=self.params.sample_rate,
            min_hz=self.params.min_hz,
            max_hz=self.params.max_hz,
        )
        return matrix.astype(np.float32)

    def _n_frames(self, n_samples: int) -> int:
        # Half a frame is added at each end, which for an odd length is a sample less than a frame.
        margin = self.params.n_fft // 2
        return 1 + (n_samples + 2 * margin - self.params.n_fft) // self.params.hop_samples

    def _log_mel_chunks(
        self, blocks: Iterable[npt.NDArray[np.float32]]
    ) -> Iterator[npt.NDArray[np.float32]]:
        params = self.params
        frames = frame_chunks(
            reflected(blocks, margin=params.n_fft // 2),
            frame_samples=params.n_fft,
            hop_samples=params.hop_samples,
        )
        for spectra in complex_spectra(frames, self._hann, n_fft=params.n_fft):
            with np.errstate(over="ignore"):
                power = np.square(spectra.real) + np.square(spectra.imag)
            np.minimum(power, _LARGEST_POWER, out=power)
            log_mel = power @ self._mel_matrix
            log_mel *= np.float32(params.log_scale)
            log_mel += np.float32(_LOG_OFFSET)
            yield np.log10(log_mel, out=log_mel)


ENTRY = MusicnnFrontEnd
