"""Clips that a pipeline reads: samples in memory, and clips that somebody watches."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from preprocess.signal.features import FrontEnd

if TYPE_CHECKING:
    from preprocess.signal.features import Windows
    from tagger.tagging.pipeline import Stream


class WaveformClip:
    """Samples in memory, as a stream of windows."""

    offset_seconds = 0.0
    missing = 0.0

    def __init__(self, samples: npt.NDArray[np.float32], front_end: FrontEnd) -> None:
        self._samples, self._front_end = samples, front_end
        self.seconds = len(samples) / front_end.sample_rate
        self.padded = front_end.is_short(len(samples))

    def __iter__(self) -> "Iterator[Windows]":
        return self._front_end.stream([self._samples])


class WatchedClip:
    """Another clip, of which each chunk of windows is told.

    Parameters
    ----------
    clip : Stream
        The other one.
    tell : callable
        Called with the number of windows that have been read; it may raise to stop reading.
    """

    def __init__(self, clip: "Stream", tell: Callable[[int], None]) -> None:
        self._clip, self._tell = clip, tell
        self.offset_seconds = clip.offset_seconds

    def __iter__(self) -> "Iterator[Windows]":
        n_windows = 0
        for windows in self._clip:
            n_windows += len(next(iter(windows.values())))
            self._tell(n_windows)
            yield windows

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return self._clip.seconds

    @property
    def padded(self) -> bool:
        """Whether it was shorter than a window."""
        return self._clip.padded

    @property
    def missing(self) -> float:
        """Share of the audio that is missing."""
        return self._clip.missing
