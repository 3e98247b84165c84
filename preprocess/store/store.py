"""The store: the only place that writes or reads patches.

A store is a folder: a pickle per clip (its windows, its multi-hot label and its id), and
``manifest.json``, which says how they were made and what is in them. While clips are being added,
a journal records the finished ones, so that a run that was killed goes on where it stopped.

The folder may be local or at an address.
"""

import contextlib
import math
import os
import pickle
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.signal.features import FrontEnd
from preprocess.store.journal import open_journal
from preprocess.store.manifest import MANIFEST as MANIFEST
from preprocess.store.manifest import read_manifest, write_manifest
from preprocess.store.stored_clips import CLIP_FOLDER
from preprocess.store.stored_clips import StoredClip as StoredClip
from preprocess.store.stored_clips import clip_file_name as clip_file_name
from tagger.base.addresses import is_remote
from tagger.base.errors import StoreError
from tagger.base.files import content_hash, remove_temporary_files, write_bytes
from tagger.untrusted import pickles as safe_pickle

SCHEMA_VERSION = 1
_DTYPES = ("float16", "float32")
_NAME = re.compile(r"[A-Za-z0-9_-]+")


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

    def check(self) -> None:
        """Raise a ValueError where a field, as read from a file, holds what it cannot hold."""
        if self.dtype not in _DTYPES:
            raise ValueError(f"patches of the type {self.dtype!r:.40}")
        for name, shape in self.input_shapes.items():
            # Files are named by it.
            if not _NAME.fullmatch(name):
                raise ValueError(f"an array named {name!r:.40}")
            if not all(type(length) is int and length > 0 for length in shape):
                raise ValueError(f"windows of shape {shape!r:.40}")
        if not isinstance(self.front_end, dict) or not isinstance(self.front_end_hash, str):
            raise ValueError("no front end")
        if not isinstance(self.front_end.get("params", {}), dict):
            raise ValueError("no parameters of the front end")


def describe_front_end_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Say in words where two front-end specs differ; of one from a file, parts may be missing."""
    if ours.get("name") != theirs.get("name"):
        return f"front end {theirs.get('name')!r} instead of {ours.get('name')!r}"
    our_params, their_params = ours.get("params", {}), theirs.get("params", {})
    differences = [
        f"{key}={their_params.get(key)!r} instead of {our_params.get(key)!r}"
        for key in sorted({*our_params, *their_params})
        if our_params.get(key) != their_params.get(key)
    ]
    if ours.get("version") != theirs.get("version"):
        differences.append(f"version {theirs.get('version')} instead of {ours.get('version')}")
    return f"front end {ours.get('name')!r} with " + ", ".join(differences)


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
        self.root = root
        path = self.root / MANIFEST
        try:
            content = read_manifest(path)
            self._read_header(path, content)
            tag_numbers = range(len(self.tags))
            self.clips = [_checked(clip, tag_numbers) for clip in content["clips"]]
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
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{path}: damaged manifest (lacks {error}); delete it and run 'tagger preprocess' "
                "again"
            ) from None

    def _read_header(self, path: Path, header: Any) -> None:
        version = header.get("schema_version") if isinstance(header, dict) else None
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{path}: schema version {version}, but this release reads {SCHEMA_VERSION}; "
                "preprocess into a new store.root"
            )
        spec = header["spec"]
        shapes = {name: tuple(shape) for name, shape in spec["input_shapes"].items()}
        self.spec = StoreSpec(**{**spec, "input_shapes": shapes})
        self.spec.check()
        self.tags: tuple[str, ...] = tuple(header["tags"])
        if not isinstance(header["tags"], list) or not all(isinstance(t, str) for t in self.tags):
            raise ValueError("tags that are no names")
        if len(set(self.tags)) != len(self.tags):
            raise ValueError("a tag that is there twice")

    def __len__(self) -> int:
        return len(self.clips)

    def copy_manifest(self, path: Path) -> None:
        """Write what its manifest holds to `path`."""
        clips = (clip.to_json() for clip in self.clips)
        write_manifest(path, _header(self.spec, self.tags), clips)

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
        # Where clips share a file, each names the track that it is, or is a segment of.
        n_files = len({record.path for record in records})
        shared = n_files < len(records) and all(record.track for record in records)
        return ClipIndex(self.tags, records, labels, str(self.root / MANIFEST), segments=shared)

    @cached_property
    def n_windows(self) -> npt.NDArray[np.int64]:
        """Windows of each clip [shape=(n_clips,)]."""
        return np.fromiter((clip.n_windows for clip in self.clips), np.int64, len(self))

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


def _checked(content: dict[str, Any], tag_numbers: range) -> StoredClip:
    clip = StoredClip.from_json(content)
    clip.check(tag_numbers)
    return clip


def _header(spec: StoreSpec, tags: tuple[str, ...]) -> dict[str, Any]:
    # Tags are numbered by their column: with other columns old entries would mean other tags.
    return {"schema_version": SCHEMA_VERSION, "spec": asdict(spec), "tags": list(tags)}


def read_clip(root: Path, clip: StoredClip, spec: StoreSpec) -> dict[str, Any]:
    """Read and check one clip's pickle: ``id``, ``label``, ``windows``."""
    path = root / clip.file
    remedy = "run 'tagger preprocess --verify' to rebuild it"
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
    except (KeyError, IndexError, TypeError, AttributeError):
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

    The content is not forced to the disk, pickle by pickle: all are before the manifest names them
    (`StoreWriter.close`), and after an interrupted run the newest are read again (`preprocess`).

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


def smallest_pickle(clip: StoredClip, spec: StoreSpec) -> int:
    """Bytes that a clip's pickle has at the least: those of its windows."""
    values = sum(math.prod(shape) for shape in spec.input_shapes.values())
    return clip.n_windows * values * np.dtype(spec.dtype).itemsize


class StoreWriter:
    """A store that is being filled: finished clips of earlier runs, and a journal of this one.

    `interrupted` tells whether the run before this one has not come to its end.

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
        self.root = root
        self.spec = spec
        self.tags = tags
        self.finished: dict[str, StoredClip] = {}
        self.interrupted = False
        with self._writing():
            if not is_remote(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                remove_temporary_files(self.root)
                for folder in self.root.glob(CLIP_FOLDER + "/*"):
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
            taken = clip if kept == clip.tags else replace(clip, tags=kept)
            self.finished[clip.record.id] = taken

    def _read_manifest(self) -> None:
        if not (self.root / MANIFEST).exists():
            return
        store = Store(self.root)
        self._check_spec(asdict(store.spec))
        self._take(store.clips, store.tags)

    def _read_journal(self) -> None:
        found = False
        try:
            for header, entries in self._journal.read():
                found = self.interrupted = True
                self._take_journal(header, entries)
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{self._journal.path}: damaged journal (lacks {error}); delete it and run "
                "'tagger preprocess' again"
            ) from None
        # Begun anew, so that a last line which a kill cut in two is gone.
        self._start_journal(self.finished.values() if found else ())

    def _start_journal(self, clips: Iterable[StoredClip]) -> None:
        self._journal.start(_header(self.spec, self.tags), (clip.to_json() for clip in clips))

    def _take_journal(self, header: dict[str, Any], entries: Iterable[dict[str, Any]]) -> None:
        if header["schema_version"] != SCHEMA_VERSION:
            return
        self._check_spec(header["spec"])
        tags = tuple(header["tags"])
        self._take((_checked(entry, range(-1, len(tags))) for entry in entries), tags)

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
            self._start_journal(self.finished.values())

    def close(self, index: ClipIndex) -> None:
        """Write the manifest: the finished clips of `index` in its order."""
        clips = (
            self.finished[clip.id].to_json() for clip in index.clips if clip.id in self.finished
        )
        with self._writing():
            if not is_remote(self.root) and hasattr(os, "sync"):
                # What the manifest names is on the disk, also after a power cut.
                os.sync()
            write_manifest(self.root / MANIFEST, _header(self.spec, self.tags), clips)
            self._journal.remove()

    def abandon(self) -> None:
        """Stop without a manifest; the journal keeps what is finished for the next run."""
        # On a full disk closing fails once more, and would hide the error that says so.
        with contextlib.suppress(OSError):
            self._journal.close()
