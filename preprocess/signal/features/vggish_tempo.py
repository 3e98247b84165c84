"""VGGish's front end with a tempogram beside each patch: what repeats within seconds around it.

A patch of 0.96 s holds hardly two beats, so that no network can tell a slow clip from a fast one by
it. The tempogram is the autocorrelation of the strength of onsets (Grosche, Mueller & Kurth,
"Cyclic tempogram", ICASSP 2010, section 2.2) in the seconds around the patch. On a logarithmic lag
axis another tempo is the same pattern moved along.
"""

import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from preprocess.signal.features import Windows
from preprocess.signal.features.vggish import VggishFrontEnd, VggishParams
from preprocess.signal.patches import slice_stream

# Of the strength of onsets, below which there is nothing to correlate: silence, or digital noise.
_FAINT = 1e-6


class VggishTempoParams(VggishParams):
    """Parameters of the tempogram, beside those of VGGish's front end."""

    context_seconds: Annotated[
        float, Field(ge=0, description="that count before and after a patch")
    ] = 6.72
    onset_seconds: Annotated[
        float, Field(gt=0, description="over which a rise in level is an onset")
    ] = 0.03
    n_groups: Annotated[
        int, Field(gt=0, description="groups of neighbouring bands with onsets of their own")
    ] = 8
    n_lags: Annotated[int, Field(gt=1)] = 90
    min_lag_seconds: Annotated[float, Field(gt=0)] = 0.15
    max_lag_seconds: Annotated[float, Field(gt=0)] = 3.0

    @property
    def context_frames(self) -> int:
        """Frames that count before and after a patch."""
        return round(self.context_seconds / self.frame_hop_seconds)

    @property
    def bands_per_group(self) -> int:
        """Neighbouring bands whose onsets are added up."""
        return self.n_bands // self.n_groups

    @property
    def onset_frames(self) -> int:
        """Distance of the two frames whose difference is an onset."""
        return round(self.onset_seconds / self.frame_hop_seconds)

    @model_validator(mode="after")
    def _tempogram_is_possible(self) -> "VggishTempoParams":
        if self.n_bands % self.n_groups:
            raise ValueError(f"n_groups={self.n_groups} does not divide n_bands={self.n_bands}")
        if self.onset_frames < 1:
            raise ValueError("onset_seconds is shorter than frame_hop_seconds")
        if not self.frame_hop_seconds <= self.min_lag_seconds < self.max_lag_seconds:
            raise ValueError("needs frame_hop_seconds <= min_lag_seconds < max_lag_seconds")
        longest = self.patch_frames * self.frame_hop_seconds + 2 * self.context_seconds
        if self.max_lag_seconds > longest / 2:
            raise ValueError(
                f"max_lag_seconds={self.max_lag_seconds} must repeat within the {longest:g} s of a "
                "patch and its context"
            )
        return self


class VggishTempoFrontEnd(VggishFrontEnd):
    """VGGish's patches under ``log_mel``, and under ``tempogram`` what repeats around each.

    The two columns of a tempogram [shape=(n_lags, 2)] are the mean and the maximum over groups of
    bands of the normalised autocorrelation; lags that the clip is too short for are zero.
    """

    Params = VggishTempoParams
    params: VggishTempoParams

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:  # noqa: D102 (the contract documents it)
        return super().input_shapes | {"tempogram": (self.params.n_lags, 2)}

    @property
    def lags_seconds(self) -> npt.NDArray[np.float64]:
        """Lag of each row of a tempogram [shape=(n_lags,)]."""
        params = self.params
        return np.geomspace(params.min_lag_seconds, params.max_lag_seconds, params.n_lags)

    def windows(self, waveform: npt.NDArray[np.float32]) -> Windows:  # noqa: D102
        self._warn_if_short(len(waveform))
        parts = list(self.stream([waveform]))
        return {name: np.concatenate([part[name] for part in parts]) for name in self.input_shapes}

    def stream(self, blocks: Iterable[npt.NDArray[np.float32]]) -> Iterator[Windows]:  # noqa: D102
        return self._with_tempograms(self._log_mel_chunks(blocks))

    def _with_tempograms(self, chunks: Iterable[npt.NDArray[np.float32]]) -> Iterator[Windows]:
        """Windows of frames, each as soon as all of its context is there."""
        onsets = _Onsets(self.params)
        waiting: list[npt.NDArray[np.float32]] = []
        n_given = 0

        def passed_on() -> Iterator[npt.NDArray[np.float32]]:
            for chunk in chunks:
                onsets.add(chunk)
                yield chunk

        def given(patches: npt.NDArray[np.float32]) -> Windows:
            starts = (n_given + np.arange(len(patches))) * self.params.hop_frames
            return {
                "log_mel": patches,
                "tempogram": np.stack([self._tempogram(onsets, int(start)) for start in starts]),
            }

        for patches in slice_stream(passed_on(), n_bands=self._n_bands, **self._slicing):
            waiting.extend(patches)
            # Of a window that ends `context_frames` before the last frame nothing more will come.
            known = onsets.n_frames - self.params.patch_frames - self.params.context_frames
            n_ready = min(len(waiting), max(0, known // self.params.hop_frames + 1 - n_given))
            if n_ready:
                yield given(np.stack(waiting[:n_ready]))
                del waiting[:n_ready]
                n_given += n_ready
                onsets.forget(n_given * self.params.hop_frames - self.params.context_frames)
        if waiting:
            yield given(np.stack(waiting))

    @cached_property
    def _first_lags(self) -> npt.NDArray[np.intp]:
        """First lag in frames of each row, and last one of the last row [shape=(n_lags + 1,)]."""
        lags = self.lags_seconds / self.params.frame_hop_seconds
        half_a_step = math.sqrt(lags[1] / lags[0])
        edges = np.append(lags / half_a_step, lags[-1] * half_a_step)
        first: npt.NDArray[np.intp] = np.rint(edges).astype(np.intp)
        return first

    def _tempogram(self, onsets: "_Onsets", start: int) -> npt.NDArray[np.float32]:
        """Tempogram [shape=(n_lags, 2)] of the window that starts with frame `start`."""
        params = self.params
        around = onsets.between(
            start - params.context_frames, start + params.patch_frames + params.context_frames
        )
        first, end = self._first_lags[:-1], int(self._first_lags[-1])
        correlation = _autocorrelation(around, n_lags=end + 1)
        # Of several lags the highest: the peak of an exact beat is a few frames wide. Short lags,
        # of which a row has less than one, come several times.
        values = np.maximum.reduceat(correlation, first, axis=1)
        return np.stack([values.mean(axis=0), values.max(axis=0)], axis=1)


class _Onsets:
    """Strength of the onsets of each frame and group of bands, as frames come."""

    def __init__(self, params: VggishTempoParams) -> None:
        self._params = params
        self._first = 0
        self._strengths = np.empty((0, params.n_groups), dtype=np.float32)
        self._last = np.empty((0, params.n_bands), dtype=np.float32)

    @property
    def n_frames(self) -> int:
        """Frames that have come."""
        return self._first + len(self._strengths)

    def add(self, log_mel: npt.NDArray[np.float32]) -> None:
        """Take in the next frames [shape=(n_frames, n_bands)]."""
        distance = self._params.onset_frames
        frames = np.concatenate([self._last, log_mel])
        rises = np.maximum(frames[distance:] - frames[:-distance], 0)
        # The first frames of all have none before them that they could have risen from.
        missing = len(log_mel) - len(rises)
        rises = np.concatenate([np.zeros((missing, rises.shape[1]), np.float32), rises])
        groups = rises.reshape(len(rises), self._params.n_groups, self._params.bands_per_group).sum(
            axis=2
        )
        self._strengths = np.concatenate([self._strengths, groups])
        self._last = frames[-distance:]

    def between(self, start: int, end: int) -> npt.NDArray[np.float32]:
        """Strengths of the frames from `start` to before `end`, as far as there are such frames."""
        return self._strengths[max(0, start - self._first) : max(0, end - self._first)]

    def forget(self, before: int) -> None:
        """Drop the frames before frame `before`."""
        n_dropped = max(0, before - self._first)
        self._strengths = self._strengths[n_dropped:]
        self._first += n_dropped


def _autocorrelation(strengths: npt.NDArray[np.float32], *, n_lags: int) -> npt.NDArray[np.float32]:
    """Autocorrelation coefficients of columns [shape=(n_columns, n_lags)].

    Each lag is divided by the share of frames that it leaves to be compared; lags that leave less
    than a quarter of them are zero.
    """
    n_frames = len(strengths)
    result = np.zeros((strengths.shape[1], n_lags), dtype=np.float32)
    usable = min(n_lags, n_frames - n_frames // 4)
    if usable < 1:
        return result
    # Column by column in memory, and in float32: half the time, and the same to seven digits.
    columns = np.ascontiguousarray(strengths.T)
    columns = columns - columns.mean(axis=1, keepdims=True)
    n_fft = 1 << (n_frames + n_lags - 1).bit_length()
    spectrum = np.fft.rfft(columns, n_fft)
    power = spectrum.real**2 + spectrum.imag**2
    correlation = np.fft.irfft(power, n_fft)[:, :usable]
    share = (n_frames - np.arange(usable, dtype=np.float32)) / np.float32(n_frames)
    result[:, :usable] = correlation / (np.maximum(correlation[:, :1], _FAINT) * share)
    return result


ENTRY = VggishTempoFrontEnd
