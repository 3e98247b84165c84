"""Cross-validation: each clip is tested in one of several folds, whole groups together."""

import os
from abc import abstractmethod
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.clips.splits import DTYPE, Parts, Split
from tagger.base.errors import ConfigError
from tagger.base.files import content_hash
from tagger.base.log import warn
from tagger.base.registry import Params

Group = Literal["artist", "album", "track"]


class FoldsParams(Params):
    """How many folds, and whether one of them validates."""

    folds: Annotated[int, Field(ge=2, le=100)] = 5
    validation: Annotated[
        bool, Field(description="the fold after the one that is tested validates")
    ] = True


class KFoldParams(FoldsParams):
    """Which clips stay together; segments of one clip always do."""

    group: Annotated[
        Literal["known", "artist", "album", "track", "none"],
        Field(description="known: by artist, else album, else track, as far as the data tell"),
    ] = "known"


class Folds(Split):
    """Folds that are alike in size and in how many clips carry each tag."""

    Params = FoldsParams
    params: FoldsParams

    @abstractmethod
    def groups(self, index: ClipIndex) -> list[str]:
        """Name of the group of each clip; clips of one group stay together."""

    @property
    def n_folds(self) -> int:  # noqa: D102 (in Split)
        return self.params.folds

    def parts(self, index: ClipIndex, *, seed: int, fold: int) -> Parts:  # noqa: D102 (in Split)
        groups = self.groups(index)
        folds = folds_of(index.labels, groups, n_folds=self.n_folds, seed=seed)
        _warn_of_rare(index, groups, n_folds=self.n_folds)
        parts = np.full(len(index), "train", dtype=DTYPE)
        if self.params.validation and self.n_folds > 2:
            parts[folds == (fold + 1) % self.n_folds] = "validation"
        parts[folds == fold] = "test"
        return parts


class KFold(Folds):
    """Whole artists, albums or tracks in each fold."""

    Params = KFoldParams
    params: KFoldParams

    def groups(self, index: ClipIndex) -> list[str]:  # noqa: D102 (in Folds)
        return groups_of(index, self.params.group)


def groups_of(index: ClipIndex, by: str) -> list[str]:
    """Name the group of each clip: its artist, album or track, or the clip itself.

    Parameters
    ----------
    index : ClipIndex
        The clips.
    by : str
        ``"artist"``, ``"album"`` or ``"track"``; ``"known"`` for the first of these that a clip
        has; ``"none"`` for no groups, but those of segments of one clip.

    Raises
    ------
    ConfigError
        If no clip has what is asked for.
    """
    keys: tuple[Group, ...] = ("artist", "album", "track")
    if by == "none":
        return [_alone(index, clip) for clip in index.clips]
    if by != "known":
        if not any(getattr(clip, by) for clip in index.clips):
            raise ConfigError(
                f"split k_fold by {by}: {index.source} names none; set data.split_params.group to "
                "known or none"
            )
        keys = tuple(key for key in keys if key == by)
    groups = []
    for clip in index.clips:
        named = next((f"{key}:{value}" for key in keys if (value := getattr(clip, key))), "")
        groups.append(named or _alone(index, clip))
    return groups


def _alone(index: ClipIndex, clip: ClipRecord) -> str:
    return f"track:{clip.track}" if index.segments else f"clip:{clip.id}"


def _warn_of_rare(index: ClipIndex, groups: list[str], *, n_folds: int) -> None:
    """Say which labels some folds cannot test; those that no clip carries do not matter."""
    group_of = np.unique(groups, return_inverse=True)[1].reshape(-1)
    counts = [len(np.unique(group_of[column == 1])) for column in index.labels.T]
    rare = [(n, tag) for n, tag in zip(counts, index.tags, strict=True) if 0 < n < n_folds]
    if rare:
        fewest, tag = min(rare)
        more = f" (and {len(rare) - 1} more labels)" if len(rare) > 1 else ""
        warn(
            f"{index.source}: {n_folds} folds, but {fewest} clips or groups of clips carry "
            f"{tag!r}{more}, so that some folds test none; set data.split_params.folds lower, "
            "or add clips"
        )


def folds_of(
    labels: npt.NDArray[np.uint8], groups: list[str], *, n_folds: int, seed: int
) -> npt.NDArray[np.intp]:
    """Deal groups of clips to folds.

    Large groups go first, and each to the fold that lacks most of what the group carries, rare
    tags counting more: the greedy rule of scikit-learn's StratifiedGroupKFold, for any number of
    tags per clip.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        1 where a clip carries a tag.
    groups : list of str
        Of each clip.
    n_folds, seed : int
        How many folds; the seed orders groups of one size.

    Returns
    -------
    np.ndarray [shape=(n_clips,), dtype=intp]
        Fold of each clip; it depends on no order of the rows.

    Raises
    ------
    ConfigError
        If there are fewer groups than folds.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    if len(names) < n_folds:
        raise ConfigError(
            f"{n_folds} folds of {len(names)} groups of clips; ask for fewer folds, or add clips"
        )
    # The last column counts clips.
    wide = np.concatenate([labels, np.ones((len(labels), 1), np.uint8)], axis=1)
    carried = np.zeros((len(names), wide.shape[1]))
    np.add.at(carried, group_of.reshape(-1), wide)
    weights = 1 / np.maximum(carried.sum(axis=0), 1)
    hashes = [content_hash(os.fsencode(f"{seed}:{name}")) for name in names]
    order = sorted(range(len(names)), key=lambda group: (-carried[group, -1], hashes[group]))
    filled = np.zeros((n_folds, wide.shape[1]))
    fold_of_group = np.zeros(len(names), dtype=np.intp)
    wanted = carried.sum(axis=0) / n_folds
    for group in order:
        # By how much each fold would exceed its share, over what it lacks now.
        gain = ((wanted - filled) * carried[group] * weights).sum(axis=1)
        fold = int(np.argmax(gain))
        fold_of_group[group] = fold
        filled[fold] += carried[group]
    found: npt.NDArray[np.intp] = fold_of_group[group_of.reshape(-1)]
    return found


ENTRY = KFold
