"""What a manifest says of its clips: one of them, and all of them in little memory.

As objects of Python a clip takes more than a kilobyte; packed, two hundred bytes. An object is made
of it when somebody asks for that clip.
"""

import marshal
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from preprocess.index import ClipRecord
from tagger.files import content_hash

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


class _Equal:
    """Equality with any sequence of equal items, such as a list."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if not isinstance(self, Sequence) or not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )


class StoredClips(_Equal, Sequence[StoredClip]):
    """A list of clips that are kept packed.

    Parameters
    ----------
    clips : iterable of StoredClip
        To begin with. Their fields are of the types that `StoredClip.check` wants.
    """

    def __init__(self, clips: Iterable[StoredClip] = ()) -> None:
        self._content = bytearray()
        self._ends = array("q", [0])
        for clip in clips:
            self.append(clip)

    def append(self, clip: StoredClip) -> None:
        """Add a clip at the end."""
        record, file, checksum = clip.record, clip.file, clip.checksum
        fields = (
            (record.id, record.path, record.track, record.artist, record.album, record.part),
            clip.tags,
            None if file == clip_file_name(record.id) else file,
            clip.n_windows,
            bytes.fromhex(checksum) if _DIGEST.fullmatch(checksum) else checksum,
            clip.source_bytes,
            clip.source_mtime_ns,
            clip.padded,
        )
        # Read by this process alone: marshal's format is that of one version of Python.
        self._content += marshal.dumps(fields)
        self._ends.append(len(self._content))

    def _fields(self, row: int) -> tuple[Any, ...]:
        n_clips = len(self)
        if not -n_clips <= row < n_clips:
            raise IndexError(f"clip {row} of {n_clips}")
        row %= n_clips
        fields: tuple[Any, ...] = marshal.loads(
            self._content[self._ends[row] : self._ends[row + 1]]
        )
        return fields

    def _clip(self, row: int) -> StoredClip:
        keys, tags, file, n_windows, checksum, source_bytes, mtime, padded = self._fields(row)
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

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, row: int) -> StoredClip: ...
    @overload
    def __getitem__(self, row: slice) -> list[StoredClip]: ...
    def __getitem__(self, row: int | slice) -> StoredClip | list[StoredClip]:
        if isinstance(row, slice):
            return [self._clip(number) for number in range(*row.indices(len(self)))]
        return self._clip(row)

    @property
    def records(self) -> "Sequence[ClipRecord]":
        """The clips' records alone."""
        return _Records(self)


class _Records(_Equal, Sequence[ClipRecord]):
    def __init__(self, clips: StoredClips) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    @overload
    def __getitem__(self, row: int) -> ClipRecord: ...
    @overload
    def __getitem__(self, row: slice) -> list[ClipRecord]: ...
    def __getitem__(self, row: int | slice) -> ClipRecord | list[ClipRecord]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        return ClipRecord(*self._clips._fields(row)[0])


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
