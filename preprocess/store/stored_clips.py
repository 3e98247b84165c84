"""What a manifest says of a clip."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from preprocess.clips.index import ClipRecord, is_inside
from tagger.base.files import content_hash

CLIP_FOLDER = "clips"


def clip_file_name(clip_id: str) -> str:
    """File name of a clip's pickle: readable, unique and safe whatever the id holds."""
    digest = content_hash(clip_id.encode("utf-8"))
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", clip_id)[-60:]
    # Two levels: a folder with a million files is slow on most file systems.
    return f"{CLIP_FOLDER}/{digest[:2]}/{readable}-{digest[:10]}.pkl"


@dataclass(frozen=True)
class StoredClip:
    """What the manifest says of one clip.

    Parameters
    ----------
    record : ClipRecord
        Id, path and group keys.
    tags : tuple of int
        Columns of the store's tags that are 1.
    file : str
        Its pickle, relative to the store.
    n_windows : int
        Windows in it.
    checksum : str
        Of the pickle's bytes.
    source_bytes, source_mtime_ns : int
        Size and time of change of the audio file when it was read.
    padded : bool
        The clip was shorter than a window and was padded with zeros.
    """

    record: ClipRecord
    tags: tuple[int, ...]
    file: str
    n_windows: int
    checksum: str
    source_bytes: int
    source_mtime_ns: int
    padded: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain form for manifest and journal."""
        return {**vars(self), "record": dict(vars(self.record)), "tags": list(self.tags)}

    def check(self, tag_numbers: range) -> None:
        """Raise a TypeError that says what is lacking where a field holds what it cannot hold."""
        numbers = (self.n_windows, self.source_bytes, self.source_mtime_ns, *self.tags)
        texts = (*vars(self.record).values(), self.file, self.checksum)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a text")
        if not all(isinstance(number, int) for number in numbers) or self.n_windows < 1:
            raise TypeError("a number")
        # It is read there, and where a store is copied it is written there as well.
        if not self.file or "\0" in self.file or not is_inside(self.file):
            raise TypeError("a file of the store")
        if not all(number in tag_numbers for number in self.tags):
            raise TypeError("a tag of that number")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "StoredClip":
        """Inverse of `to_json`."""
        return cls(
            **{
                **content,
                "record": ClipRecord(**content["record"]),
                "tags": tuple(content["tags"]),
            }
        )
