"""VGGish's front end: 0.96 s log-mel patches of 96 frames x 64 bands.

Follows the published implementation of Hershey et al., "CNN Architectures for Large-Scale Audio
Classification" (ICASSP 2017; the files mel_features.py and vggish_params.py of its release):
magnitude (not power) spectrum, triangles that are linear in mel (not in Hz) and not normalised,
no padding and no centring.
"""

import warnings
from functools import cached_property
from typing import Annotated

import numpy as np
import numpy.typing as npt
import scipy.fft
from pydantic import ConfigDict, Field, model_validator

from preprocess.features import FrontEnd, ShortClipWarning, Windows
from preprocess.patches import slice_windows
from tagger.registry import Params

# HTK's mel scale (Young et al., The HTK Book, 5.4), natural logarithm form.
_MEL_BREAK_HZ = 700.0
_MEL_HIGH_Q = 1127.0

# Frames transformed at once: their spectra stay in the processor's cache, which is twice as fast as
# whole files at a time, and memory does not grow with the length of the file.
_CHUNK_FRAMES = 256


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


class VggishFrontEnd(FrontEnd):
    """Log-mel patches under the name ``log_mel``."""

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
    def input_shapes(self) -> dict[str, tuple[int, ...]]:  # noqa: D102
        return {"log_mel": (self.params.patch_frames, self.params.n_bands)}

    @cached_property
    def _hann(self) -> npt.NDArray[np.float64]:
        # Periodic, as the published code has it: the period is the window's length.
        length = self.params.frame_samples
        phase = 2 * np.pi / length * np.arange(length, dtype=np.float64)
        return 0.5 - 0.5 * np.cos(phase)

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

    def log_mel(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Log-mel spectrogram.

        Parameters
        ----------
        waveform : np.ndarray [shape=(n_samples,), dtype=float32]
            Mono samples at `sample_rate`.

        Returns
        -------
        np.ndarray [shape=(n_frames, n_bands), dtype=float32]
            ``ln(mel + log_offset)``; only frames that lie wholly inside the waveform, so a waveform
            shorter than one analysis window gives none.
        """
        params = self.params
        waveform = np.ascontiguousarray(waveform, dtype=np.float32)
        n_frames = max(0, 1 + (len(waveform) - params.frame_samples) // params.frame_hop_samples)
        log_mel = np.empty((n_frames, params.n_bands), dtype=np.float32)
        if n_frames == 0:
            return log_mel
        frames = np.lib.stride_tricks.sliding_window_view(waveform, params.frame_samples)[
            :: params.frame_hop_samples
        ]
        for start in range(0, n_frames, _CHUNK_FRAMES):
            chunk = frames[start : min(start + _CHUNK_FRAMES, n_frames)]
            # The transform alone is in float64: in float32 its rounding reaches 2.6e-4 in the
            # log-mel of the silent bands beside a pure tone. Everything after it can be float32.
            spectrum = scipy.fft.rfft(chunk * self._hann, params.n_fft, axis=1)
            magnitude = np.abs(spectrum.astype(np.complex64))
            np.matmul(magnitude, self._mel_matrix, out=log_mel[start : start + len(chunk)])
        log_mel += np.float32(params.log_offset)
        np.log(log_mel, out=log_mel)
        return log_mel

    def windows(self, waveform: npt.NDArray[np.float32]) -> Windows:  # noqa: D102
        frames = self.log_mel(waveform)
        if len(frames) < self.params.patch_frames:
            warnings.warn(
                f"clip of {len(waveform) / self.sample_rate:.3f} s gives {len(frames)} of the "
                f"{self.params.patch_frames} frames of a patch: padded with zeros to one patch",
                ShortClipWarning,
                stacklevel=2,
            )
        patches = slice_windows(
            frames,
            window_frames=self.params.patch_frames,
            hop_frames=self.params.hop_frames,
            keep_partial=self.params.keep_partial,
        )
        return {"log_mel": patches}


ENTRY = VggishFrontEnd
