"""What a manifest says of its clips: one of them, and all of them in little memory."""

import re
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from preprocess.clips.index import ClipRecord, ClipRecords, fields_of, is_inside
from preprocess.clips.packed import Packed
from tagger.base.files import content_hash

CLIP_FOLDER = "clips"
_DIGEST = re.compile(r"(?:[0-9a-f]{2})+")


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


class StoredClips(Packed[StoredClip]):
    """A list of clips that are kept packed.

    Their fields are of the types that `StoredClip.check` wants.
    """

    def _pack(self, item: StoredClip) -> tuple[Any, ...]:
        record, file, checksum = item.record, item.file, item.checksum
        return (
            fields_of(record),
            item.tags,
            None if file == clip_file_name(record.id) else file,
            item.n_windows,
            bytes.fromhex(checksum) if _DIGEST.fullmatch(checksum) else checksum,
            item.source_bytes,
            item.source_mtime_ns,
            item.padded,
        )

    def _unpack(self, fields: tuple[Any, ...]) -> StoredClip:
        keys, tags, file, n_windows, checksum, source_bytes, mtime, padded = fields
        return StoredClip(
            ClipRecord(*keys),
            tags,
            clip_file_name(keys[0]) if file is None else file,
            n_windows,
            checksum.hex() if isinstance(checksum, bytes) else checksum,
            source_bytes,
            mtime,
            padded,
        )

    @property
    def records(self) -> ClipRecords:
        """The clips' records alone."""
        return _RecordsOf(self)

    @property
    def tags(self) -> Iterator[tuple[int, ...]]:
        """The clips' tags alone."""
        return (fields[1] for fields in self.packed())


class _RecordsOf(ClipRecords):
    """Records that are taken out of packed clips, not kept once more."""

    def __init__(self, clips: StoredClips) -> None:
        self._clips = clips

    def _fields(self, row: int) -> tuple[Any, ...]:
        fields: tuple[Any, ...] = self._clips._fields(row)[0]
        return fields

    def __len__(self) -> int:
        return len(self._clips)


class FinishedClips(MutableMapping[str, StoredClip]):
    """Clips by id that are kept packed."""

    def __init__(self) -> None:
        self._clips = StoredClips()
        self._row_of: dict[str, int] = {}

    def __getitem__(self, clip_id: str) -> StoredClip:
        return self._clips[self._row_of[clip_id]]

    def __setitem__(self, clip_id: str, clip: StoredClip) -> None:
        # What it replaces stays behind: a clip is replaced once in a run, if at all.
        self._row_of[clip_id] = len(self._clips)
        self._clips.append(clip)

    def __delitem__(self, clip_id: str) -> None:
        del self._row_of[clip_id]

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._row_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._row_of)

    def __len__(self) -> int:
        return len(self._row_of)
