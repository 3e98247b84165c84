"""A shard: the windows of a whole store in one file per array, for streams that read at random.

Pickles are what a store consists of: one can be checked, replaced and exchanged alone. Reading a
few windows out of each takes more time than a fast device needs to learn from them. A shard holds
the same bytes one clip after the other, without any wrapping, so that they can be mapped into
memory. It is built from the pickles and is worth nothing without them: when they change, or it is
found damaged, it is built anew.
"""

import json
import os
import zlib
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.store.store import Store
from tagger.base.errors import StoreError
from tagger.base.files import (
    alone,
    atomic_write,
    json_hash_of_list,
    remove_temporary_files,
    write_json,
)
from tagger.base.log import progress_bar, warn

SCHEMA_VERSION = 2
_FOLDER = "shard"
DESCRIPTION = "shard.json"


class Shard:
    """The shard of a store; use `open_shard`.

    Parameters
    ----------
    store : Store
        What it was built from.
    """

    def __init__(self, store: Store) -> None:
        self.root = store.root / _FOLDER
        self.dtype = np.dtype(store.spec.dtype)
        self._store = store

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """Number of each clip's first window [shape=(n_clips,)]."""
        ends = np.cumsum(self._store.n_windows)
        starts: npt.NDArray[np.int64] = ends - self._store.n_windows
        return starts

    @property
    def n_windows(self) -> int:
        """Windows of all clips."""
        return int(self._store.n_windows.sum())

    @property
    def names(self) -> tuple[str, ...]:
        """Named arrays."""
        return tuple(self._store.spec.input_shapes)

    def path(self, name: str) -> Path:
        """File of a named array: windows one after the other, as C-ordered `dtype` values."""
        return self.root / f"{name}.bin"

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a named array, all windows of it."""
        return (self.n_windows, *self._store.spec.input_shapes[name])

    def memory_map(self, name: str) -> npt.NDArray[np.floating]:
        """Map a named array into memory: it is read from the disk where it is touched."""
        return np.memmap(self.path(name), dtype=self.dtype, mode="r", shape=self.shape(name))

    def advise(self, row: int) -> None:
        """Tell the system that the windows of a clip will be read soon, so that it starts now."""
        if not hasattr(os, "posix_fadvise"):
            return
        for name in self.names:
            size = int(np.prod(self._store.spec.input_shapes[name])) * self.dtype.itemsize
            start, length = int(self.starts[row]) * size, int(self._store.n_windows[row]) * size
            os.posix_fadvise(self._descriptors[name], start, length, os.POSIX_FADV_WILLNEED)

    def description(self) -> dict[str, object]:
        """Describe what a shard of this store must hold."""
        store = self._store
        content = ([clip.record.id, clip.n_windows, clip.checksum] for clip in store.clips)
        return {
            "schema_version": SCHEMA_VERSION,
            "dtype": store.spec.dtype,
            "input_shapes": {name: list(size) for name, size in store.spec.input_shapes.items()},
            "n_windows": self.n_windows,
            "content": json_hash_of_list(content),
        }

    def is_current(self) -> bool:
        """Whether it is there, complete, and of the clips that the store has now."""
        try:
            found = json.loads((self.root / DESCRIPTION).read_text(encoding="utf-8"))
            sizes = [self.path(name).stat().st_size for name in self.names]
            of = {key: value for key, value in found.items() if key != "checksums"}
        except (OSError, ValueError, AttributeError, RecursionError):
            return False
        expected = [int(np.prod(self.shape(name))) * self.dtype.itemsize for name in self.names]
        return bool(of == self.description() and sizes == expected)

    def damaged(self) -> list[Path]:
        """Read all of it and list the files that differ from their checksums."""
        try:
            found = json.loads((self.root / DESCRIPTION).read_text(encoding="utf-8"))
            checksums = dict(found["checksums"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            # Another process builds it just now.
            checksums = {}
        return [
            self.path(name)
            for name in self.names
            if _checksum_of_file(self.path(name)) != checksums.get(name)
        ]

    @cached_property
    def _descriptors(self) -> dict[str, int]:
        return {name: os.open(self.path(name), os.O_RDONLY) for name in self.names}

    def __del__(self) -> None:
        for descriptor in self.__dict__.get("_descriptors", {}).values():
            os.close(descriptor)


def open_shard(store: Store) -> Shard:
    """Open the shard of a store; it is built first if it is missing or the store has changed.

    A process that opens it first reads all of it once, which it would do anyway, and compares it
    with its checksums: one that is damaged is named, and built anew.

    Of several processes that need it at once, on one machine or on several, one builds it and the
    others wait.

    Parameters
    ----------
    store : Store
        Its pickles are read and checked if the shard must be built.

    Returns
    -------
    Shard

    Raises
    ------
    StoreError
        If a pickle cannot be read, or the shard cannot be written.
    """
    shard = Shard(store)
    try:
        if _is_good(shard):
            return shard
        with alone(shard.root):
            # Perhaps another process has built it meanwhile.
            if not _is_good(shard, tell=True):
                _build(store, shard)
    except OSError as error:
        raise StoreError(
            f"{shard.root}: the shard cannot be written ({error.strerror}); it needs as much disk "
            "space as the pickles: free some, or set stream.shard=false"
        ) from None
    return shard


# Of the shards that this process has checked: files, sizes and times of change.
_checked: set[tuple[tuple[str, int, int], ...]] = set()


def _is_good(shard: Shard, *, tell: bool = False) -> bool:
    """Whether it is current and, read once by this process, whole."""
    if not shard.is_current():
        return False
    states = [(shard.path(name), shard.path(name).stat()) for name in shard.names]
    version = tuple((str(path), state.st_size, state.st_mtime_ns) for path, state in states)
    if version in _checked:
        return True
    damaged = shard.damaged()
    for path in damaged if tell else ():
        warn(f"{path}: differs from its checksum; the shard is built anew from the pickles")
    if not damaged:
        _checked.add(version)
    return not damaged


def _checksum_of_file(path: Path) -> str:
    """Hex CRC-32, which is faster than disks."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return f"{checksum:08x}"


def _build(store: Store, shard: Shard) -> None:
    # Not valid from now on, whatever happens: the description comes back last.
    (shard.root / DESCRIPTION).unlink(missing_ok=True)
    shard.root.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(shard.root)
    checksums = _write_arrays(store, shard)
    write_json(shard.root / DESCRIPTION, {**shard.description(), "checksums": checksums})


def _write_arrays(store: Store, shard: Shard) -> dict[str, str]:
    checksums = dict.fromkeys(shard.names, 0)
    with progress_bar("build the shard", len(store)) as advance, ExitStack() as stack:
        files = {name: stack.enter_context(atomic_write(shard.path(name))) for name in shard.names}
        for row in range(len(store)):
            windows = store.read(row)
            for name, file in files.items():
                content = np.ascontiguousarray(windows[name], dtype=shard.dtype).data
                checksums[name] = zlib.crc32(content, checksums[name])
                file.write(content)
            advance(1, "")
    return {name: f"{checksum:08x}" for name, checksum in checksums.items()}
