"""Splits: which clips train, which choose, which test. One module each, found by name."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from preprocess.clips.index import ClipIndex
from tagger.base.errors import ConfigError
from tagger.base.registry import Entry, Registry

PARTS = ("train", "validation", "test")
# A clip in no part takes no part.
Parts = npt.NDArray[np.str_]
# With a type of its own: of no clips at all NumPy would make numbers.
DTYPE = "<U10"

# What others, or earlier releases, call a split, and what it is called here.
_RENAMED = {"report": "random", "official": "column"}


class Split(Entry):
    """Contract of a split.

    A subclass sits in a module of its own in this package, bound to the name ``ENTRY``.
    """

    # Whether segments of one clip may be in two parts: where that is asked for by name alone.
    leaks_segments: ClassVar[bool] = False

    @property
    def n_folds(self) -> int:
        """In how many ways it splits the same clips; one unless overridden."""
        return 1

    @abstractmethod
    def parts(self, index: ClipIndex, *, seed: int, fold: int) -> Parts:
        """Part of every clip.

        Parameters
        ----------
        index : ClipIndex
            The clips.
        seed : int
            For a split that draws.
        fold : int
            Which of `n_folds`, from 0.

        Returns
        -------
        np.ndarray [shape=(n_clips,), dtype=str]
            ``"train"``, ``"validation"``, ``"test"`` or, for a clip left out, ``""``.

        Raises
        ------
        ConfigError
            If the clips lack what it goes by.
        """


SPLITS: Registry[Split] = Registry("preprocess.clips.splits", "split")


def check_split(name: str, params: dict[str, Any], *, fold: int) -> Split:
    """Find a split and make sure that it has a fold.

    Raises
    ------
    ConfigError
        If there is no such split or fold, or it has no such parameter.
    """
    if name in _RENAMED and name not in SPLITS.names():
        raise ConfigError(f"the split {name!r} is called {_RENAMED[name]!r} here; say that")
    split = SPLITS.create(name, params)
    if not 0 <= fold < split.n_folds:
        raise ConfigError(
            f"data.split_fold={fold}: the split {name!r} has {split.n_folds}; "
            f"give 0 to {split.n_folds - 1}"
        )
    return split


def split_parts(
    index: ClipIndex,
    name: str,
    *,
    params: dict[str, Any] | None = None,
    seed: int = 0,
    fold: int = 0,
) -> Parts:
    """Part of every clip.

    Parameters
    ----------
    index : ClipIndex
        The clips.
    name : str
        One of `SPLITS`.
    params : dict, optional
        Parameters of the split.
    seed, fold : int
        As of `Split.parts`.

    Returns
    -------
    np.ndarray [shape=(n_clips,), dtype=str]

    Raises
    ------
    ConfigError
        If there is no such split or fold, the clips lack what it goes by, or segments of one
        clip would be in two parts.
    """
    split = check_split(name, params or {}, fold=fold)
    parts = split.parts(index, seed=seed, fold=fold)
    if index.segments and not split.leaks_segments:
        _refuse_leaks(index, name, parts)
    return parts


def _refuse_leaks(index: ClipIndex, name: str, parts: Parts) -> None:
    part_of: dict[str, str] = {}
    for clip, part in zip(index.clips, parts.tolist(), strict=True):
        if part and part_of.setdefault(clip.track, part) != part:
            raise ConfigError(
                f"{index.source}: split {name!r} puts segments of {clip.track!r} into "
                f"{part_of[clip.track]} and {part}; give its segments one part, or use k_fold"
            )
