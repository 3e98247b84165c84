"""VGGish's front end: 0.96 s log-mel patches of 96 frames x 64 bands.

Follows the published implementation of Hershey et al., "CNN Architectures for Large-Scale Audio
Classification" (ICASSP 2017; the files mel_features.py and vggish_params.py of its release):
magnitude (not power) spectrum, triangles that are linear in mel (not in Hz) and not normalised,
no padding and no centring.
"""

import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, model_validator

from preprocess.signal.features import LogScale
from preprocess.signal.features._frames import complex_spectra, frame_chunks, periodic_hann
from preprocess.signal.features._log_mel import LogMelFrontEnd, Slicing
from tagger.base.registry import Params

# HTK's mel scale (Young et al., The HTK Book, 5.4), natural logarithm form.
_MEL_BREAK_HZ = 700.0
_MEL_HIGH_Q = 1127.0


def hz_to_mel(frequencies_hz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Frequencies in Hz on HTK's mel scale."""
    return _MEL_HIGH_Q * np.log1p(np.asarray(frequencies_hz, dtype=np.float64) / _MEL_BREAK_HZ)


def mel_matrix(
    *, n_bands: int, n_bins: int, sample_rate: int, min_hz: float, max_hz: float
) -> npt.NDArray[np.float64]:
    """Weights from magnitude-spectrum bins to mel bands.

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
        Triangles with peak 1, linear in mel; the row of bin 0 (DC) is zero.
    """
    bins_mel = hz_to_mel(np.linspace(0.0, sample_rate / 2, n_bins))[:, np.newaxis]
    edges = np.linspace(float(hz_to_mel(min_hz)), float(hz_to_mel(max_hz)), n_bands + 2)
    lower, center, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins_mel - lower) / (center - lower)
    falling = (upper - bins_mel) / (upper - center)
    weights: npt.NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    return weights


class VggishParams(Params):
    """Parameters of VGGish's front end; the defaults are the published values."""

    model_config = ConfigDict(allow_inf_nan=False)

    sample_rate: Annotated[int, Field(gt=0, description="samples per second")] = 16000
    frame_seconds: Annotated[float, Field(gt=0, description="length of a Hann window")] = 0.025
    frame_hop_seconds: Annotated[float, Field(gt=0)] = 0.010
    n_bands: Annotated[int, Field(gt=0, description="mel bands")] = 64
    min_hz: Annotated[float, Field(ge=0)] = 125.0
    max_hz: Annotated[float, Field(gt=0)] = 7500.0
    log_offset: Annotated[float, Field(gt=0, description="added before the logarithm")] = 0.01
    patch_frames: Annotated[int, Field(gt=0, description="frames in a patch")] = 96
    hop_seconds: Annotated[float, Field(gt=0, description="between starts of patches")] = 0.96
    keep_partial: Annotated[bool, Field(description="keep a last, zero-padded partial patch")] = (
        False
    )

    @property
    def frame_samples(self) -> int:
        """Samples in one analysis window."""
        return round(self.frame_seconds * self.sample_rate)

    @property
    def frame_hop_samples(self) -> int:
        """Samples between the starts of two analysis windows."""
        return round(self.frame_hop_seconds * self.sample_rate)

    @property
    def n_fft(self) -> int:
        """FFT length: the power of two that holds an analysis window."""
        return 1 << (self.frame_samples - 1).bit_length()

    @property
    def hop_frames(self) -> int:
        """Frames between the starts of two patches."""
        return round(self.hop_seconds / self.frame_hop_seconds)

    @model_validator(mode="after")
    def _consistent(self) -> "VggishParams":
        if not self.min_hz < self.max_hz <= self.sample_rate / 2:
            raise ValueError("needs min_hz < max_hz <= sample_rate / 2")
        if self.frame_samples < 2 or self.frame_hop_samples < 1:
            raise ValueError("frame_seconds or frame_hop_seconds is shorter than a sample")
        hops = self.hop_seconds / self.frame_hop_seconds
        if self.hop_frames < 1 or abs(hops - self.hop_frames) > 1e-6:
            raise ValueError(
                f"hop_seconds={self.hop_seconds} is not a multiple of "
                f"frame_hop_seconds={self.frame_hop_seconds}"
            )
        return self


class VggishFrontEnd(LogMelFrontEnd):
    """Log-mel patches under the name ``log_mel``.

    Only frames that lie wholly inside the waveform count: one shorter than an analysis window gives
    none. A clip shorter than a patch is padded with zeros.
    """

    Params = VggishParams
    params: VggishParams

    @property
    def sample_rate(self) -> int:  # noqa: D102 (the contract documents it)
        return self.params.sample_rate

    @property
    def window_seconds(self) -> float:  # noqa: D102
        return self.params.patch_frames * self.params.frame_hop_seconds

    @property
    def hop_seconds(self) -> float:  # noqa: D102
        return self.params.hop_seconds

    @property
    def log_scales(self) -> dict[str, LogScale]:  # noqa: D102
        return {"log_mel": LogScale(base=math.e, offset=self.params.log_offset, db_per_decade=20)}

    @property
    def _n_bands(self) -> int:
        return self.params.n_bands

    @property
    def _slicing(self) -> Slicing:
        return {
            "window_frames": self.params.patch_frames,
            "hop_frames": self.params.hop_frames,
            "keep_partial": self.params.keep_partial,
            "fill": "zeros",
        }

    @cached_property
    def _hann(self) -> npt.NDArray[np.float64]:
        return periodic_hann(self.params.frame_samples)

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
        params = self.params
        return max(0, 1 + (n_samples - params.frame_samples) // params.frame_hop_samples)

    def _log_mel_chunks(
        self, blocks: Iterable[npt.NDArray[np.float32]]
    ) -> Iterator[npt.NDArray[np.float32]]:
        params = self.params
        frames = frame_chunks(
            blocks, frame_samples=params.frame_samples, hop_samples=params.frame_hop_samples
        )
        for spectra in complex_spectra(frames, self._hann, n_fft=params.n_fft):
            log_mel = np.abs(spectra) @ self._mel_matrix
            log_mel += np.float32(params.log_offset)
            yield np.log(log_mel, out=log_mel)


ENTRY = VggishFrontEnd
