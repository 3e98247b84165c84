"""The index of a data set: which clips there are, their labels and their group keys."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ConfigError

# As in C:/music or gs://bucket: what follows is of no folder that was given.
_DRIVE_OR_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[/\\]")


@dataclass(frozen=True)
class ClipRecord:
    """One clip of a data set.

    Parameters
    ----------
    id : str
        Unique within the data set.
    path : str
        Audio file, relative to the data set's root, with forward slashes.
    track, artist, album : str
        Group keys; empty where unknown. Clips that share one must not be split apart when a
        split is to be disjoint in it.
    part : str
        ``"train"``, ``"validation"`` or ``"test"`` where the data set itself says so, else empty.
    """

    id: str
    path: str
    track: str = ""
    artist: str = ""
    album: str = ""
    part: str = ""

    @property
    def folder(self) -> str:
        """First folder of the path (MagnaTagATune's 0..f)."""
        parts = PurePosixPath(self.path).parts
        return parts[0] if len(parts) > 1 else ""


@dataclass(frozen=True)
class ClipIndex:
    """Clips with their labels.

    Parameters
    ----------
    tags : tuple of str
        Names of the label columns.
    clips : sequence of ClipRecord
        In the data set's own order.
    labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        1 where a clip carries a tag.
    source : str
        Where it was read from, for messages.
    segments : bool
        Whether each row is a segment of the clip that its track names, as in a table of features.
        No split may then part rows of one track; and rows may share a file.

    Raises
    ------
    ConfigError
        If clip ids repeat, or paths other than of segments; or a path is empty or leaves the data
        set's root.
    """

    tags: tuple[str, ...]
    clips: Sequence[ClipRecord]
    labels: npt.NDArray[np.uint8]
    source: str = field(default="the annotations", compare=False)
    segments: bool = False

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.clips), len(self.tags)):
            raise ValueError(
                f"labels of shape {self.labels.shape} for {len(self.clips)} clips "
                f"and {len(self.tags)} tags"
            )
        refuse_repeats([clip.id for clip in self.clips], "clip ids", self.source)
        if not self.segments:
            refuse_repeats([clip.path for clip in self.clips], "paths", self.source)
        refuse_repeats(self.tags, "tag columns", self.source)
        for clip in self.clips:
            if not PurePosixPath(clip.path).parts:
                raise ConfigError(
                    f"{self.source}: clip {clip.id!r} has no path; fill it or remove the row"
                )
            if not is_inside(clip.path):
                raise ConfigError(
                    f"{self.source}: clip {clip.id} has the path {clip.path!r}, which is not "
                    "inside the data root; give paths relative to data.root"
                )

    def __len__(self) -> int:
        return len(self.clips)

    def subset(self, rows: npt.NDArray[np.intp] | Sequence[int]) -> "ClipIndex":
        """Index of the clips at `rows`, in that order."""
        rows = np.asarray(rows, dtype=np.intp)
        clips = [self.clips[row] for row in rows]
        return ClipIndex(self.tags, clips, self.labels[rows], self.source, self.segments)


def is_inside(path: str) -> bool:
    """Whether a name with forward slashes stays inside its folder, on whatever system."""
    return not (
        path.startswith(("/", "\\"))
        or _DRIVE_OR_SCHEME.match(path)
        or ".." in re.split(r"[/\\]", path)
    )


def refuse_repeats(values: Sequence[str], what: str, source: str) -> None:
    """Raise a ConfigError that names values which occur more than once."""
    if len(set(values)) == len(values):
        return
    repeated = [value for value, count in Counter(values).items() if count > 1]
    shown = ", ".join(repr(value) for value in repeated[:5])
    more = f" and {len(repeated) - 5} more" if len(repeated) > 5 else ""
    raise ConfigError(f"{source}: {what} that occur more than once: {shown}{more}; keep one each")
