"""What is known of the clips of GTZAN: genres, artists, published splits and faults."""

import csv
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath

GENRES = (
    "blues",
    "classical",
    "country",
    "disco",
    "hiphop",
    "jazz",
    "metal",
    "pop",
    "reggae",
    "rock",
)
CLIPS_PER_GENRE = 100
# In the copy in .wav that most people download.
UNREADABLE = "jazz.00054"
# The file of published splits.
PUBLISHED = "gtzan.csv"

# Pictures of its spectrograms go around without the dot.
_NAME = re.compile(rf"({'|'.join(GENRES)})\.?(\d{{5}})(?!\d)")


@dataclass(frozen=True)
class GtzanClip:
    """A clip in published splits.

    Parameters
    ----------
    part : str
        Of the fault-filtered split: ``"train"``, ``"validation"``, ``"test"``, or empty.
    fold : int or None
        1 to 3, of the artist-filtered folds.
    artist : str
        Known for clips of these folds, else empty.
    """

    part: str
    fold: int | None
    artist: str


@functools.cache
def known_clips() -> Mapping[str, GtzanClip]:
    """Clips that are in a published split, by name, e.g. ``blues.00000``."""
    text = resources.files("preprocess.clips").joinpath(PUBLISHED).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {
        row["clip"]: GtzanClip(
            row["part"], int(row["fold"]) if row["fold"] else None, row["artist"]
        )
        for row in csv.DictReader(lines)
    }


def clip_name(file: str) -> str:
    """Name of the clip that a file is, or is a segment of; empty if it is none of GTZAN's.

    ``blues.00000.wav``, ``blues/blues.00000.au``, ``blues.00000.3.wav`` and ``blues00000.png`` are
    ``blues.00000``.
    """
    match = _NAME.search(PurePosixPath(file).name)
    return f"{match[1]}.{match[2]}" if match else ""


def artist_of(file: str) -> str:
    """Artist of the clip that a file is, or is a segment of, by its name; empty if not known."""
    known = known_clips().get(clip_name(file))
    return "" if known is None else known.artist
