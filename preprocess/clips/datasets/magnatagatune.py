"""MagnaTagATune (Law, West, Mandel, Bay & Downie, ISMIR 2009): 25,863 clips of 29 s, 188 tags."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from preprocess.clips.datasets import Dataset, read_table, read_table_in_parts
from preprocess.clips.index import ClipIndex, ClipRecord
from tagger.base.errors import ConfigError
from tagger.base.registry import Params

if TYPE_CHECKING:
    import pandas as pd

_REMEDY = "MagnaTagATune's files are tab-separated, with clip_id first and mp3_path last"
# artist-album-number-title-START-END.mp3: what comes before the times names the track.
_TRACK = re.compile(r"^(?P<track>.+)-\d+-\d+\.mp3$")


class MagnatagatuneParams(Params):
    """Where MagnaTagATune's tables lie below data.root."""

    annotations: Annotated[str, Field(description="clip_id, a 0/1 column per tag, mp3_path")] = (
        "annotations_final.csv"
    )
    clip_info: Annotated[str, Field(description="artist and album; optional")] = (
        "clip_info_final.csv"
    )


class Magnatagatune(Dataset):
    """MagnaTagATune, or any data set in its layout."""

    Params = MagnatagatuneParams
    params: MagnatagatuneParams

    def index(self, root: Path) -> ClipIndex:  # noqa: D102 (the contract documents it)
        path = root / self.params.annotations
        groups = self._groups(root)
        tags: list[str] = []
        # In bytes, as these can grow where they are.
        labels = bytearray()
        clips: list[ClipRecord] = []
        for table in read_table_in_parts(
            path, separator="\t", required=["clip_id", "mp3_path"], remedy=_REMEDY
        ):
            tags = [name for name in map(str, table.columns) if name not in ("clip_id", "mp3_path")]
            if not tags:
                raise ConfigError(f"{path}: has no tag columns; {_REMEDY}")
            labels += _labels(path, table, tags).tobytes()
            for clip_id, mp3_path in zip(table["clip_id"], table["mp3_path"], strict=True):
                match = _TRACK.match(mp3_path)
                artist, album = groups.get(clip_id, ("", ""))
                track = match["track"] if match else mp3_path
                clips.append(ClipRecord(clip_id, mp3_path, track, artist, album))
        matrix = np.frombuffer(labels, np.uint8).reshape(len(clips), len(tags))
        return ClipIndex(tuple(tags), clips, matrix, str(path))

    def _groups(self, root: Path) -> dict[str, tuple[str, str]]:
        """Artist and album by clip id; empty where the data set has no such table."""
        path = root / self.params.clip_info
        if not path.exists():
            return {}
        table = read_table(
            path, separator="\t", required=["clip_id", "artist", "album"], remedy=_REMEDY
        )
        return dict(
            zip(table["clip_id"], zip(table["artist"], table["album"], strict=True), strict=True)
        )


def _labels(path: Path, table: "pd.DataFrame", tags: list[str]) -> npt.NDArray[np.uint8]:
    values: npt.NDArray[np.object_] = table[tags].to_numpy(dtype=object)
    labels = values == "1"
    wrong = ~(labels | (values == "0"))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ConfigError(
            f"{path}: column {tags[column]!r} of clip {table['clip_id'][row]} holds "
            f"{values[row, column]!r}; a tag column holds 0 or 1 only"
        )
    return np.asarray(labels, dtype=np.uint8)


ENTRY = Magnatagatune
