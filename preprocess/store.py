"""The store: the only place that writes or reads patches.

A store is a folder: a pickle per clip (its windows, its multi-hot label and its id), and
``manifest.json``, which says how they were made and what is in them. While clips are being added,
a journal records the finished ones, so that a run that was killed goes on where it stopped.

The folder may be local or at an address (`tagger.locations`).
"""

import contextlib
import json
import pickle
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess import safe_pickle
from preprocess.features import FrontEnd
from preprocess.index import ClipIndex, ClipRecord
from preprocess.journal import open_journal
from tagger.errors import StoreError
from tagger.files import content_hash, remove_temporary_files, write_bytes, write_json
from tagger.locations import is_remote, location

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_CLIP_FOLDER = "clips"


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
        content = asdict(self)
        content["tags"] = list(self.tags)
        return content

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
    def from_json(cls, content: dict[str, Any]) -> "StoredClip":
        """Inverse of `to_json`."""
        return cls(
            **{
                **content,
                "record": ClipRecord(**content["record"]),
                "tags": tuple(content["tags"]),
            }
        )


@dataclass(frozen=True)
class StoreSpec:
    """How the windows of a store were made.

    Parameters
    ----------
    front_end : dict
        The front end's `spec`: name, version, parameters.
    front_end_hash : str
        Its digest.
    input_shapes : dict of str to tuple of int
        Shape of one window of each named array.
    dtype : str
        ``"float16"`` or ``"float32"``, as stored.
    """

    front_end: dict[str, Any]
    front_end_hash: str
    input_shapes: dict[str, tuple[int, ...]]
    dtype: str

    @classmethod
    def of(cls, front_end: FrontEnd, dtype: str) -> "StoreSpec":
        """Spec of a store that `front_end` fills."""
        return cls(front_end.spec(), front_end.spec_hash(), front_end.input_shapes, dtype)


def describe_front_end_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Say in words where two front-end specs differ."""
    if ours["name"] != theirs["name"]:
        return f"front end {theirs['name']!r} instead of {ours['name']!r}"
    differences = [
        f"{key}={theirs['params'].get(key)!r} instead of {ours['params'].get(key)!r}"
        for key in sorted({*ours["params"], *theirs["params"]})
        if ours["params"].get(key) != theirs["params"].get(key)
    ]
    if ours["version"] != theirs["version"]:
        differences.append(f"version {theirs['version']} instead of {ours['version']}")
    return f"front end {ours['name']!r} with " + ", ".join(differences)


def clip_file_name(clip_id: str) -> str:
    """File name of a clip's pickle: readable, unique and safe whatever the id holds."""
    digest = content_hash(clip_id.encode("utf-8"))
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", clip_id)[-60:]
    # Two levels: a folder with a million files is slow on most file systems.
    return f"{_CLIP_FOLDER}/{digest[:2]}/{readable}-{digest[:10]}.pkl"


class Store:
    """A store opened for reading.

    Parameters
    ----------
    root : Path
        Its folder, local or at an address.

    Raises
    ------
    StoreError
        If there is no store, it is of another schema version, or its manifest is damaged.
    """

    def __init__(self, root: Path) -> None:
        self.root = location(root)
        path = self.root / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            interrupted = open_journal(self.root).exists()
            half = " (a preprocess run was interrupted)" if interrupted else ""
            raise StoreError(
                f"{self.root}: no complete patch store here{half}; run 'tagger preprocess' with "
                "the same store.root"
            ) from None
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and is_remote(path):
                raise StoreError(
                    f"{path}: cannot be read ({error.strerror}); check the address, your rights "
                    "and the network"
                ) from None
            raise StoreError(
                f"{path}: damaged manifest ({error}); delete it and run 'tagger preprocess' again"
            ) from None
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{path}: schema version {version}, but this release reads {SCHEMA_VERSION}; "
                "preprocess into a new store.root"
            )
        try:
            spec = content["spec"]
            shapes = {name: tuple(shape) for name, shape in spec["input_shapes"].items()}
            self.spec = StoreSpec(**{**spec, "input_shapes": shapes})
            self.tags: tuple[str, ...] = tuple(content["tags"])
            self.clips = [StoredClip.from_json(clip) for clip in content["clips"]]
            for clip in self.clips:
                clip.check(range(len(self.tags)))
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{path}: damaged manifest (lacks {error}); delete it and run 'tagger preprocess' "
                "again"
            ) from None

    def __len__(self) -> int:
        return len(self.clips)

    def manifest(self) -> dict[str, Any]:
        """Give what its manifest holds."""
        return _manifest(self.spec, self.tags, clips=[clip.to_json() for clip in self.clips])

    def require_front_end(self, front_end: FrontEnd, *, user: str) -> None:
        """Refuse the store if `front_end` would make other windows.

        Parameters
        ----------
        front_end : FrontEnd
            What the model needs.
        user : str
            Who needs it, for the message.

        Raises
        ------
        StoreError
            Naming each difference.
        """
        if self.spec.front_end_hash != front_end.spec_hash():
            difference = describe_front_end_difference(front_end.spec(), self.spec.front_end)
            raise StoreError(
                f"{self.root}: made by {difference} that {user} asks for; "
                "preprocess into another store.root, or use the parameters of the store"
            )

    @cached_property
    def index(self) -> ClipIndex:
        """The clips of the store as a data set: all that splits and vocabularies need."""
        labels = np.zeros((len(self.clips), len(self.tags)), dtype=np.uint8)
        for row, clip in enumerate(self.clips):
            labels[row, list(clip.tags)] = 1
        records = [clip.record for clip in self.clips]
        return ClipIndex(self.tags, records, labels, str(self.root / MANIFEST))

    @cached_property
    def n_windows(self) -> npt.NDArray[np.int64]:
        """Windows of each clip [shape=(n_clips,)]."""
        return np.array([clip.n_windows for clip in self.clips], dtype=np.int64)

    def read(self, row: int) -> dict[str, npt.NDArray[np.floating]]:
        """Windows of the clip at `row`, as stored.

        Returns
        -------
        dict of str to np.ndarray [shape=(n_windows, *input_shapes[name])]
            Read-only arrays of the store's dtype.

        Raises
        ------
        StoreError
            If the pickle is missing, damaged, unsafe or not this clip's.
        """
        clip = self.clips[row]
        windows: dict[str, npt.NDArray[np.floating]] = read_clip(self.root, clip, self.spec)[
            "windows"
        ]
        return windows


def _manifest(
    spec: StoreSpec, tags: tuple[str, ...], *, clips: list[dict[str, Any]]
) -> dict[str, Any]:
    # Tags are numbered by their column: with other columns old entries would mean other tags.
    header = {"schema_version": SCHEMA_VERSION, "spec": asdict(spec), "tags": list(tags)}
    return {**header, "clips": clips}


def read_clip(root: Path, clip: StoredClip, spec: StoreSpec) -> dict[str, Any]:
    """Read and check one clip's pickle: ``id``, ``label``, ``windows``."""
    path = root / clip.file
    remedy = "run 'tagger preprocess' again to rebuild it"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    # The safe reader goes first: a file that was swapped is better called unsafe than changed.
    try:
        stored = safe_pickle.loads(content)
    except safe_pickle.UnsafePickleError as error:
        raise StoreError(f"{path}: refused as unsafe: {error}; {remedy}") from None
    except pickle.UnpicklingError as error:
        raise StoreError(f"{path}: damaged pickle ({error}); {remedy}") from None
    if content_hash(content) != clip.checksum:
        raise StoreError(f"{path}: differs from its checksum in the manifest; {remedy}")
    try:
        shapes = {name: windows.shape for name, windows in stored["windows"].items()}
        right = stored["id"] == clip.record.id
    except (KeyError, TypeError, AttributeError):
        raise StoreError(f"{path}: not a pickle of patches; {remedy}") from None
    expected = {name: (clip.n_windows, *shape) for name, shape in spec.input_shapes.items()}
    if not right or shapes != expected:
        raise StoreError(f"{path}: holds other patches than the manifest says; {remedy}")
    return dict(stored)


def write_clip(
    root: Path,
    record: ClipRecord,
    *,
    windows: dict[str, npt.NDArray[np.floating]],
    label: npt.NDArray[np.uint8],
    dtype: str,
) -> dict[str, Any]:
    """Write one clip's pickle atomically.

    The content is not forced to the disk: after a power cut the manifest's checksum tells a lost
    pickle from a good one, and a rerun rebuilds it.

    Returns
    -------
    dict
        The keys ``file``, ``n_windows``, ``checksum`` and ``tags`` of its `StoredClip`.
    """
    # What lies in memory otherwise, or is read-only as windows from a store are, pickles otherwise:
    # equal values, another checksum.
    stored = {name: np.require(array, dtype, ["C", "W"]) for name, array in windows.items()}
    label = np.require(label, np.uint8, ["C", "W"])
    content = safe_pickle.dumps({"id": record.id, "label": label, "windows": stored})
    file = clip_file_name(record.id)
    write_bytes(root / file, content, durable=False)
    return {
        "file": file,
        "n_windows": len(next(iter(stored.values()))),
        "checksum": content_hash(content),
        "tags": tuple(int(column) for column in np.flatnonzero(label)),
    }


class StoreWriter:
    """A store that is being filled: finished clips of earlier runs, and a journal of this one.

    Parameters
    ----------
    root : Path
        Folder of the store, local or at an address; made if missing.
    spec : StoreSpec
        How the windows are made. A store made otherwise is refused.
    tags : sequence of str
        Label columns.

    Raises
    ------
    StoreError
        If the folder holds a store made with other parameters or tags, or cannot be written.
    """

    def __init__(self, root: Path, spec: StoreSpec, *, tags: tuple[str, ...]) -> None:
        self.root = location(root)
        self.spec = spec
        self.tags = tags
        self.finished: dict[str, StoredClip] = {}
        with self._writing():
            if not is_remote(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                remove_temporary_files(self.root)
                for folder in self.root.glob(_CLIP_FOLDER + "/*"):
                    remove_temporary_files(folder)
            self._journal = open_journal(self.root)
            self._read_manifest()
            self._read_journal()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.root}: cannot be written ({error.strerror}); check disk space and rights "
                "or choose another store.root"
            ) from None

    def _header(self) -> dict[str, Any]:
        header = _manifest(self.spec, self.tags, clips=[])
        del header["clips"]
        return header

    def _check_spec(self, spec: dict[str, Any]) -> None:
        if spec["front_end_hash"] != self.spec.front_end_hash:
            difference = describe_front_end_difference(self.spec.front_end, spec["front_end"])
            raise StoreError(
                f"{self.root}: holds a store made by {difference}; "
                "choose another store.root or delete that folder"
            )
        if spec["dtype"] != self.spec.dtype:
            raise StoreError(
                f"{self.root}: holds a store of {spec['dtype']} patches, not {self.spec.dtype}; "
                "choose another store.root or delete that folder"
            )

    def _take(self, clips: Iterable[StoredClip], tags: tuple[str, ...]) -> None:
        """Take over finished clips, their labels renumbered for this run's columns."""
        column = {tag: number for number, tag in enumerate(self.tags)}
        for clip in clips:
            names = [tags[number] for number in clip.tags if number >= 0]
            renumbered = tuple(sorted(column[name] for name in names if name in column))
            # A clip whose columns moved must have its label written again: -1 equals no label. It
            # stays in the entries of a journal whose run was interrupted before that.
            stale = tags != self.tags or -1 in clip.tags
            kept = (-1, *renumbered) if stale else renumbered
            values = {**vars(clip), "tags": kept}
            self.finished[clip.record.id] = StoredClip(**values)

    def _read_manifest(self) -> None:
        if not (self.root / MANIFEST).exists():
            return
        store = Store(self.root)
        self._check_spec(asdict(store.spec))
        self._take(store.clips, store.tags)

    def _read_journal(self) -> None:
        parts = self._journal.read()
        try:
            for header, *entries in parts:
                self._take_journal(header, entries)
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{self._journal.path}: damaged journal (lacks {error}); delete it and run "
                "'tagger preprocess' again"
            ) from None
        # Begun anew, so that a last line which a kill cut in two is gone.
        entries = [clip.to_json() for clip in self.finished.values()] if parts else []
        self._journal.start([self._header(), *entries])

    def _take_journal(self, header: dict[str, Any], entries: list[dict[str, Any]]) -> None:
        if header["schema_version"] != SCHEMA_VERSION:
            return
        self._check_spec(header["spec"])
        tags = tuple(header["tags"])
        clips = [StoredClip.from_json(entry) for entry in entries]
        for clip in clips:
            clip.check(range(-1, len(tags)))
        self._take(clips, tags)

    def add(self, clip: StoredClip) -> None:
        """Record a finished clip."""
        self.finished[clip.record.id] = clip
        with self._writing():
            self._journal.add(clip.to_json())

    def take_over(self, parts: Iterable[tuple[tuple[str, ...], list[StoredClip]]]) -> None:
        """Record clips that others have finished: their label columns, and the clips, of each."""
        for tags, clips in parts:
            self._take(clips, tags)
        with self._writing():
            # At once, and safe on the disk: what told of them may go now.
            self._journal.close()
            self._journal.start([self._header(), *(c.to_json() for c in self.finished.values())])

    def close(self, index: ClipIndex) -> None:
        """Write the manifest: the finished clips of `index` in its order."""
        clips = [
            self.finished[clip.id].to_json() for clip in index.clips if clip.id in self.finished
        ]
        with self._writing():
            write_json(self.root / MANIFEST, _manifest(self.spec, self.tags, clips=clips))
            self._journal.remove()

    def abandon(self) -> None:
        """Stop without a manifest; the journal keeps what is finished for the next run."""
        # On a full disk closing fails once more, and would hide the error that says so.
        with contextlib.suppress(OSError):
            self._journal.close()
