"""Leakage of a split: tracks, artists and albums that have clips on both sides of it."""

from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import PARTS, Parts

GROUPS = ("track", "artist", "album")


@dataclass(frozen=True)
class SharedGroups:
    """What two parts of a split have in common.

    Parameters
    ----------
    group : str
        ``"track"``, ``"artist"`` or ``"album"``.
    first, second : str
        The parts.
    n_shared : int
        Groups with clips in both.
    n_clips : int
        Clips of the second part that belong to these groups.
    n_second : int
        All clips of the second part.
    """

    group: str
    first: str
    second: str
    n_shared: int
    n_clips: int
    n_second: int


@dataclass(frozen=True)
class Leakage:
    """Leakage of a split.

    Parameters
    ----------
    shared : tuple of SharedGroups
        For each kind of group that the data know of, and each two parts.
    unknown : tuple of str
        Kinds of groups that no clip of the data names.
    """

    shared: tuple[SharedGroups, ...]
    unknown: tuple[str, ...]

    def between(self, group: str, first: str, second: str) -> SharedGroups | None:
        """Find one kind of group between two parts; None where it is not known."""
        for item in self.shared:
            if (item.group, item.first, item.second) == (group, first, second):
                return item
        return None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"shared": [asdict(item) for item in self.shared], "unknown": list(self.unknown)}

    def lines(self, part: str) -> list[str]:
        """Text for people: what the clips of `part` share with the others."""
        asked = [item for item in self.shared if item.second == part]
        leaking = [item for item in asked if item.n_shared]
        lines = [
            f"{item.n_shared} {item.group}s are in {item.first} and {item.second}: "
            f"{item.n_clips} of {item.n_second} {item.second} clips"
            for item in leaking
        ]
        # What all is well with is said at once.
        of_leaking = {item.group for item in leaking}
        clean = list(dict.fromkeys(i.group for i in asked if i.group not in of_leaking))
        if clean:
            others = " or ".join(dict.fromkeys(item.first for item in asked))
            lines.append(f"no {' or '.join(clean)} of {part} is in {others}")
        if self.unknown:
            lines.append(f"not known for these clips: {', '.join(self.unknown)}")
        return lines


def find_leakage(index: ClipIndex, parts: Parts) -> Leakage:
    """Count the groups that have clips in two parts of a split.

    Parameters
    ----------
    index : ClipIndex
        The clips and their groups.
    parts : np.ndarray [shape=(n_clips,), dtype=str]
        Part of each clip; empty for a clip that takes no part.

    Returns
    -------
    Leakage
        Clips whose group is not known are in no group.
    """
    present = [part for part in PARTS if (parts == part).any()]
    shared, unknown = [], []
    for group in GROUPS:
        keys = [getattr(clip, group) for clip in index.clips]
        if not any(keys):
            unknown.append(group)
            continue
        rows_of = {part: np.flatnonzero(parts == part) for part in present}
        groups_of = {part: {keys[row] for row in rows_of[part]} - {""} for part in present}
        for first, second in combinations(present, 2):
            both = groups_of[first] & groups_of[second]
            n_clips = sum(keys[row] in both for row in rows_of[second])
            shared.append(
                SharedGroups(group, first, second, len(both), n_clips, len(rows_of[second]))
            )
    return Leakage(tuple(shared), tuple(unknown))
