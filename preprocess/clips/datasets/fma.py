"""FMA (Defferrard, Benzi, Vandergheynst & Bresson, ISMIR 2017): tracks of the Free Music Archive.

Genres, artists, albums and the official split come from ``fma_metadata/tracks.csv``.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from preprocess.clips.datasets import Dataset, read_table_in_parts
from preprocess.clips.index import ClipIndex, ClipRecord
from tagger.base.errors import ConfigError
from tagger.base.log import notice
from tagger.base.registry import Params

# Without sound or cut short in small and medium: the wiki of github.com/mdeff/fma, "Excerpts
# shorter than 30s and erroneous audio length metadata". Large has more, which fail when read.
BROKEN = frozenset(
    (1486, 5574, 65753, 80391, 98558, 98559, 98560, 98565, 98566, 98567, 98568, 98569, 98571)
    + (99134, 105247, 108924, 108925, 126981, 127336, 133297, 143992)
)

_SUBSETS = ("small", "medium", "large")
_PARTS = {"training": "train", "validation": "validation", "test": "test"}
_COLUMNS = ["track_id", "set.split", "set.subset", "track.genre_top", "artist.id", "album.id"]
_REMEDY = (
    "give tracks.csv of fma_metadata.zip as it is published: a row of groups (set, track, ...), a "
    "row of names (split, genre_top, ...) and a row with track_id"
)


class FmaParams(Params):
    """Which subset, and where its files lie below data.root."""

    subset: Annotated[
        Literal["small", "medium", "large"], Field(description="each holds those before it")
    ] = "small"
    tracks: Annotated[str, Field(description="the table, relative to data.root")] = (
        "fma_metadata/tracks.csv"
    )
    audio: Annotated[
        str, Field(description="folder of 000, 001, ..., below data.root; none: fma_SUBSET")
    ] = ""
    keep_broken: Annotated[
        bool, Field(description="keep clips that are known to be silent or cut short")
    ] = False


class Fma(Dataset):
    """One genre per clip (``genre_top``); the split ``column`` is the official one."""

    Params = FmaParams
    params: FmaParams

    def index(self, root: Path) -> ClipIndex:  # noqa: D102 (the contract documents it)
        path = root / self.params.tracks
        clips: list[ClipRecord] = []
        genres: list[str] = []
        n_broken = n_without = 0
        for row in self._rows(path):
            number, split, _, genre, artist, album = row
            if not re.fullmatch(r"[0-9]{1,6}", number):
                raise ConfigError(f"{path}: {number!r} for a track_id; {_REMEDY}")
            if split not in _PARTS:
                raise ConfigError(f"{path}: track {number} has the split {split!r}; {_REMEDY}")
            if int(number) in BROKEN and not self.params.keep_broken:
                n_broken += 1
            elif not genre:
                n_without += 1
            else:
                clips.append(self._clip(number, artist, album, _PARTS[split]))
                genres.append(genre)
        if not clips:
            raise ConfigError(f"{path}: no track of {self.params.subset} has a genre; {_REMEDY}")
        if n_broken:
            notice(
                f"{path}: {n_broken} clips are known to be broken and left out; "
                "data.params.keep_broken=true keeps them"
            )
        if n_without:
            notice(f"{path}: {n_without} clips have no genre_top; left out")
        tags, columns = np.unique(genres, return_inverse=True)
        labels = np.eye(len(tags), dtype=np.uint8)[columns.reshape(-1)]
        return ClipIndex(tuple(tags.tolist()), clips, labels, str(path))

    def _rows(self, path: Path) -> list[list[str]]:
        """Fields in the order of `_COLUMNS`, of tracks of the subset."""
        subsets = _SUBSETS[: _SUBSETS.index(self.params.subset) + 1]
        found: list[list[str]] = []
        for table in read_table_in_parts(
            path, separator=",", required=_COLUMNS, remedy=_REMEDY, n_header_rows=3
        ):
            kept = table[table["set.subset"].isin(subsets)]
            found += kept[_COLUMNS].to_numpy(dtype=object).tolist()
        return found

    def _clip(self, number: str, artist: str, album: str, part: str) -> ClipRecord:
        name = f"{int(number):06d}"
        folder = self.params.audio or f"fma_{self.params.subset}"
        path = (PurePosixPath(folder) / name[:3] / f"{name}.mp3").as_posix()
        return ClipRecord(name, path, artist=artist, album=album, part=part)


ENTRY = Fma
