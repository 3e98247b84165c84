"""What front ends have in common whose windows are slices of one log-mel spectrogram."""

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from preprocess.signal.features import FrontEnd, ShortClipWarning, Windows
from preprocess.signal.patches import Filling, slice_stream, slice_windows


class Slicing(TypedDict):
    """How frames become windows: the parameters of `preprocess.signal.patches.slice_windows`."""

    window_frames: int
    hop_frames: int
    keep_partial: bool
    fill: Filling


class LogMelFrontEnd(FrontEnd):
    """Windows of a log-mel spectrogram under the name ``log_mel``.

    In one piece and in blocks the very same chunks of frames are computed.
    """

    @property
    @abstractmethod
    def _slicing(self) -> Slicing:
        """How its frames become windows."""

    @abstractmethod
    def _n_frames(self, n_samples: int) -> int:
        """Count the frames of a waveform."""

    @abstractmethod
    def _log_mel_chunks(
        self, blocks: Iterable[npt.NDArray[np.float32]]
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Compute the frames [shape=(n_frames, n_bands)] of samples that arrive in blocks."""

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"log_mel": (self._slicing["window_frames"], self._n_bands)}

    @property
    @abstractmethod
    def _n_bands(self) -> int:
        """Mel bands."""

    def log_mel(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Log-mel spectrogram, before it is cut into windows.

        Parameters
        ----------
        waveform : np.ndarray [shape=(n_samples,), dtype=float32]
            Mono samples at `sample_rate`.

        Returns
        -------
        np.ndarray [shape=(n_frames, n_bands), dtype=float32]
        """
        log_mel = np.empty((self._n_frames(len(waveform)), self._n_bands), dtype=np.float32)
        start = 0
        for chunk in self._log_mel_chunks([waveform]):
            log_mel[start : start + len(chunk)] = chunk
            start += len(chunk)
        return log_mel

    def _warn_if_short(self, n_samples: int) -> None:
        """Warn whoever called `windows` of a clip that is padded."""
        if self.is_short(n_samples):
            slicing = self._slicing
            way = "padded with zeros" if slicing["fill"] == "zeros" else "repeated"
            warnings.warn(
                f"clip of {n_samples / self.sample_rate:.3f} s gives {self._n_frames(n_samples)} "
                f"of the {slicing['window_frames']} frames of a patch: {way} to one patch",
                ShortClipWarning,
                stacklevel=3,
            )

    def windows(self, waveform: npt.NDArray[np.float32]) -> Windows:
        self._warn_if_short(len(waveform))
        return {"log_mel": slice_windows(self.log_mel(waveform), **self._slicing)}

    def stream(self, blocks: Iterable[npt.NDArray[np.float32]]) -> Iterator[Windows]:
        chunks = self._log_mel_chunks(blocks)
        for patches in slice_stream(chunks, n_bands=self._n_bands, **self._slicing):
            yield {"log_mel": patches}

    def is_short(self, n_samples: int) -> bool:
        # Exact, where `window_seconds` is not: the last frame may reach beyond it, or stop before.
        return self._n_frames(n_samples) < self._slicing["window_frames"]
