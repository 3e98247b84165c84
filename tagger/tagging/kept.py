"""What models have said of files, kept in the cache folder: asked for again, it is read.

One SQLite file, so that a process may be killed and several may share it. It holds no more than a
few gigabytes: what was used longest ago goes first. Whoever deletes it loses time and nothing else.
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.base.cache import cache_folder
from tagger.base.files import json_hash
from tagger.base.log import notice
from tagger.cloud.locations import file_or_object

Arrays = Mapping[str, npt.NDArray[Any]]

FILE = "kept.sqlite"
_MOST_BYTES = 4 << 30
# A little room at a time: making it takes longer than adding to it.
_LEFT_BYTES = _MOST_BYTES * 4 // 5
# Raised when arrays are kept in another way.
_SCHEMA = 2
# What bytes that are no packed arrays raise.
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError)
# Another process may be writing.
_PATIENCE_SECONDS = 10
_TYPES = ("<f4", "<f8", "|b1", "<i8")


class Kept:
    """Arrays by what they were made of; open in one thread.

    Parameters
    ----------
    what : object
        All that they depend on besides the file, in values that JSON knows.
    fresh : bool
        Read nothing of what is there, but keep what is made.
    """

    def __init__(self, what: Any, *, fresh: bool = False) -> None:
        self._what = json_hash([_SCHEMA, what])
        self._fresh = fresh
        self._used: set[str] = set()
        self._database: sqlite3.Connection | None = None
        path = cache_folder() / FILE
        try:
            self._database = _opened(path)
        except (OSError, sqlite3.Error) as error:
            # Read-only, full, or on a disk without locks: all is computed each time.
            notice(f"{path}: what is computed is not kept ({error})")

    def get(self, path: Path) -> dict[str, npt.NDArray[Any]] | None:
        """Give what is kept of a file; None where that is nothing, or the file has changed."""
        key = self._key(path)
        if self._database is None or key is None or (self._fresh and key not in self._used):
            return None
        with contextlib.suppress(sqlite3.Error, *_DAMAGED):
            row = self._database.execute("SELECT value FROM kept WHERE key = ?", [key]).fetchone()
            if row is not None:
                self._used.add(key)
                return _unpacked(row[0])
        return None

    def put(self, path: Path, arrays: Arrays) -> None:
        """Keep what was made of a file, as it is now."""
        key = self._key(path)
        if self._database is None or key is None:
            return
        value = _packed(arrays)
        try:
            self._database.execute(
                "INSERT OR REPLACE INTO kept (key, value, size, used) VALUES (?, ?, ?, ?)",
                [key, value, len(value), time.time()],
            )
            self._used.add(key)
        except sqlite3.Error as error:
            notice(f"{FILE} in the cache folder: no more is kept ({error})")
            self._database = None

    def _key(self, path: Path) -> str | None:
        """Digest of a file's name, size and time of change, and of what is asked of it."""
        try:
            file = file_or_object(path)
            status = file.stat()
        except (OSError, ValueError):
            return None
        named = str(file.absolute()).encode(errors="surrogateescape").hex()
        return json_hash([self._what, named, status.st_size, status.st_mtime_ns])

    def close(self) -> None:
        """Note what was used, and make room."""
        if self._database is None:
            return
        with contextlib.suppress(sqlite3.Error), contextlib.closing(self._database) as database:
            now = time.time()
            database.executemany(
                "UPDATE kept SET used = ? WHERE key = ?", [(now, key) for key in self._used]
            )
            _make_room(database)
        self._database = None

    def __enter__(self) -> "Kept":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def kept_bytes() -> int:
    """Size of all that is kept."""
    folder = cache_folder()
    return sum(path.stat().st_size for path in folder.glob(f"{FILE}*") if path.is_file())


def forget() -> None:
    """Delete all that is kept."""
    for path in cache_folder().glob(f"{FILE}*"):
        path.unlink(missing_ok=True)


def _opened(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _connected(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        # Damaged: begun anew.
        forget()
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    # Each statement counts at once.
    database = sqlite3.connect(path, timeout=_PATIENCE_SECONDS, isolation_level=None)
    try:
        # What a cut of power loses is computed again.
        _use_journal(database)
        database.execute("PRAGMA synchronous = OFF")
        database.execute(
            "CREATE TABLE IF NOT EXISTS kept "
            "(key TEXT PRIMARY KEY, value BLOB, size INTEGER, used REAL)"
        )
    except BaseException:
        database.close()
        raise
    return database


def _use_journal(database: sqlite3.Connection) -> None:
    # Of all statements this one alone does not wait for others that do the same just now.
    for wait_seconds in (0.01, 0.05, 0.2, 1.0, 0.0):
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if not wait_seconds:
                raise
            time.sleep(wait_seconds)


def _make_room(database: sqlite3.Connection) -> None:
    """Delete what was used longest ago, if there is too much."""
    (total,) = database.execute("SELECT COALESCE(SUM(size), 0) FROM kept").fetchone()
    if total <= _MOST_BYTES:
        return
    for key, size in database.execute("SELECT key, size FROM kept ORDER BY used").fetchall():
        if total <= _LEFT_BYTES:
            break
        database.execute("DELETE FROM kept WHERE key = ?", [key])
        total -= size
    database.execute("VACUUM")


def _packed(arrays: Arrays) -> bytes:
    header = {
        name: [array.dtype.newbyteorder("<").str, array.shape] for name, array in arrays.items()
    }
    text = json.dumps(header).encode("ascii")
    parts = [len(text).to_bytes(4, "little"), text]
    for array in arrays.values():
        parts.append(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return b"".join(parts)


def _unpacked(value: bytes) -> dict[str, npt.NDArray[Any]]:
    """Arrays as they were packed.

    Raises
    ------
    ValueError
        If these bytes are none.
    """
    place = 4 + int.from_bytes(value[:4], "little")
    found = {}
    for name, (kind, shape) in json.loads(value[4:place]).items():
        if kind not in _TYPES:
            raise ValueError(f"arrays of type {kind} are not kept")
        array = np.frombuffer(value, kind, int(np.prod(shape, dtype=np.int64)), place)
        found[name] = array.reshape(shape)
        place += array.nbytes
    return found
