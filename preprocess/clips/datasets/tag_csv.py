"""Your own data: one CSV file with a row per clip."""

from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
from pydantic import Field

from preprocess.clips.datasets import Dataset, read_table
from preprocess.clips.index import ClipIndex, ClipRecord, refuse_repeats
from tagger.base.errors import ConfigError
from tagger.base.registry import Params

_OPTIONAL = ("part", "track", "artist", "album")
_PARTS = ("", "train", "validation", "test")
_REMEDY = (
    "give a comma-separated file with the columns path and tags "
    f"(and, if you like, {', '.join(_OPTIONAL)})"
)


class TagCsvParams(Params):
    """Which file below data.root, and how its tags are separated."""

    file: Annotated[str, Field(description="the CSV file, relative to data.root")] = "clips.csv"
    tag_separator: Annotated[str, Field(min_length=1, description="between two tags")] = ";"


class TagCsv(Dataset):
    """Rows of ``path,tags``; tags are separated by semicolons, e.g. ``a/song.mp3,rock;fast``."""

    Params = TagCsvParams
    params: TagCsvParams

    def index(self, root: Path) -> ClipIndex:  # noqa: D102 (the contract documents it)
        file = root / self.params.file
        table = read_table(file, separator=",", required=["path", "tags"], remedy=_REMEDY)
        known = ("path", "tags", *_OPTIONAL)
        unknown = [str(column) for column in table.columns if column not in known]
        if unknown:
            raise ConfigError(f"{file}: unknown columns {', '.join(unknown)}; {_REMEDY}")
        rows = table.to_dict("records")
        tags_of_clip = [
            {tag.strip() for tag in row["tags"].split(self.params.tag_separator)} - {""}
            for row in rows
        ]
        tags = tuple(sorted(set().union(*tags_of_clip)))
        if not tags:
            raise ConfigError(
                f"{file}: no clip has a tag; fill the column tags, with "
                f"{self.params.tag_separator!r} between two tags"
            )
        column = {tag: position for position, tag in enumerate(tags)}
        labels = np.zeros((len(rows), len(tags)), dtype=np.uint8)
        clips: list[ClipRecord] = []
        # The path is the id: a second row for it would be a second id otherwise.
        refuse_repeats([row["path"] for row in rows], "paths", str(file))
        for number, (row, clip_tags) in enumerate(zip(rows, tags_of_clip, strict=True)):
            part = row.get("part", "")
            if part not in _PARTS:
                raise ConfigError(
                    f"{file}: clip {row['path']} has the part {part!r}; "
                    "use train, validation or test, or leave it empty"
                )
            labels[number, [column[tag] for tag in clip_tags]] = 1
            path = PurePosixPath(row["path"]).as_posix()
            groups = {key: row.get(key, "") for key in _OPTIONAL}
            clips.append(ClipRecord(path, path, **groups))
        return ClipIndex(tags, clips, labels, str(file))


ENTRY = TagCsv
