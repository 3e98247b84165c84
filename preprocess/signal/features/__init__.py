"""Front ends: waveform -> named arrays, one row per window. One module each, found by name."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tagger.base.files import json_hash
from tagger.base.registry import Entry, Registry

Windows = dict[str, npt.NDArray[np.float32]]


class ShortClipWarning(UserWarning):
    """A clip was shorter than one window and was padded to one."""


@dataclass(frozen=True)
class LogScale:
    """What the values of a spectrogram are: ``log_base(level + offset)``.

    Parameters
    ----------
    base : float
        Of the logarithm.
    offset : float
        What silence leaves within it.
    db_per_decade : float
        Decibels in ten times the level: 20 where that is a magnitude, 10 where it is a power.
    """

    base: float
    offset: float
    db_per_decade: float


class FrontEnd(Entry):
    """Contract of a front end.

    A subclass sits in a module of its own in this package, bound to the name ``ENTRY``. The same
    object serves preprocessing and prediction; its `spec_hash` travels in store and run folder,
    and data made with another one is refused.
    """

    # Raised by one when the numbers that the code computes change while the parameters do not.
    version: ClassVar[int] = 1
    # Whether its values span more orders of magnitude than float16 holds.
    needs_float32: ClassVar[bool] = False
    # Of files that are no audio and hold windows already: `windows_in` reads them.
    suffixes: ClassVar[frozenset[str]] = frozenset()

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Samples per second that `windows` expects."""

    @property
    @abstractmethod
    def window_seconds(self) -> float | None:
        """Length of audio that one window covers; None where there is one window for each clip."""

    @property
    @abstractmethod
    def hop_seconds(self) -> float | None:
        """Time between the starts of two windows; None where there is one for each clip."""

    @property
    @abstractmethod
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one window of each named array, e.g. ``{"log_mel": (96, 64)}``."""

    @property
    def log_scales(self) -> dict[str, LogScale]:
        """Say of each array that is a spectrogram [shape=(n_frames, n_bands)] what its values are.

        These can be augmented in training; none unless overridden.
        """
        return {}

    @abstractmethod
    def windows(self, waveform: npt.NDArray[np.float32]) -> Windows:
        """Features of every window of a mono waveform at `sample_rate`.

        Parameters
        ----------
        waveform : np.ndarray [shape=(n_samples,), dtype=float32]
            Finite mono samples, at least one.

        Returns
        -------
        dict of str to np.ndarray [shape=(n_windows, *input_shapes[name]), dtype=float32]
            At least one window.

        Warns
        -----
        ShortClipWarning
            Where a clip `is_short`, as a front end sees fit.
        """

    def stream(self, blocks: Iterable[npt.NDArray[np.float32]]) -> Iterator[Windows]:
        """Features of every window of a waveform that arrives in blocks.

        Unless a front end overrides it, the whole waveform is gathered first; one that does better
        keeps memory constant. It must not warn, and `is_short` tells what there would be to warn
        of: it runs in threads, where the filters of Python's warnings cannot be changed.

        Parameters
        ----------
        blocks : iterable of np.ndarray [shape=(n_samples,), dtype=float32]
            Consecutive finite mono samples at `sample_rate`, in blocks of any size; at least one
            sample in all.

        Yields
        ------
        dict of str to np.ndarray [shape=(n_windows, *input_shapes[name]), dtype=float32]
            At least one window each time; together, bit for bit, those that `windows` gives of
            the blocks joined.
        """
        yield self.windows(np.concatenate(list(blocks)))

    def windows_in(self, path: Path, clip: str) -> Windows:
        """Windows that a file holds which is no audio, e.g. a picture, or spectrograms of others.

        They are what `windows` would make of the audio, as nearly as the file tells.

        Parameters
        ----------
        path : Path
            File whose suffix, in lower case, is one of `suffixes`.
        clip : str
            Id of the clip: a file may hold those of many.

        Returns
        -------
        dict of str to np.ndarray [shape=(n_windows, *input_shapes[name]), dtype=float32]
            At least one window.

        Raises
        ------
        AudioError
            If the file cannot be used, or holds nothing of the clip. The message names the file
            and the remedy.
        """
        raise NotImplementedError(f"{self.name} reads no {path.suffix} of {clip}")

    def is_short(self, n_samples: int) -> bool:
        """Tell whether a waveform is shorter than one window, so that it is padded to one.

        Parameters
        ----------
        n_samples : int
            Length at `sample_rate`.

        Returns
        -------
        bool
        """
        shortest = self.window_seconds or 0
        return n_samples < round(shortest * self.sample_rate)

    def spec(self) -> dict[str, Any]:
        """Everything that decides the numbers: name, version, parameters."""
        return {"name": self.name, "version": self.version, "params": self.params.model_dump()}

    def spec_hash(self) -> str:
        """Digest of `spec`."""
        return json_hash(self.spec())

    def window_starts(self, n_windows: int) -> npt.NDArray[np.float64]:
        """Start of each window in seconds [shape=(n_windows,)]."""
        return np.arange(n_windows, dtype=np.float64) * (self.hop_seconds or 0)


FRONT_ENDS: Registry[FrontEnd] = Registry("preprocess.signal.features", "front end")
