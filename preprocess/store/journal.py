"""The journal of a store that is being filled: a run that was killed goes on from it.

On a disk it is one file of JSON lines. Objects cannot be appended to: at an address it is a folder
of numbered objects, each of which holds the entries of some time.
"""

import contextlib
import itertools
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from tagger.base.addresses import is_remote
from tagger.base.files import atomic_write

JOURNAL = "journal.jsonl"
_FOLDER = "journal"
# Of finished clips so many, or those of so long, may have to be made again after a kill.
_FLUSH_CLIPS = 256
_FLUSH_SECONDS = 10.0

Part = tuple[dict[str, Any], Iterator[dict[str, Any]]]


class Journal(ABC):
    """The journal of a store; use `open_journal`.

    Parameters
    ----------
    path : Path
        The file or folder that holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def exists(self) -> bool:
        """Whether an earlier run has left one."""

    @abstractmethod
    def read(self) -> Iterator[Part]:
        """Header and entries of each part that earlier runs have left, in order."""

    @abstractmethod
    def start(self, header: dict[str, Any], entries: Iterable[dict[str, Any]]) -> None:
        """Begin it anew, with a header and the entries that are taken over."""

    @abstractmethod
    def add(self, entry: dict[str, Any]) -> None:
        """Record a finished clip."""

    @abstractmethod
    def close(self) -> None:
        """Keep what was recorded for the next run."""

    @abstractmethod
    def remove(self) -> None:
        """Remove it: the store is complete."""


def open_journal(root: Path) -> Journal:
    """Journal of the store in `root`, which nothing is read from or written to yet."""
    return _ObjectJournal(root / _FOLDER) if is_remote(root) else _FileJournal(root / JOURNAL)


class _FileJournal(Journal):
    _file: TextIO | None = None

    def exists(self) -> bool:
        return self.path.exists()

    def read(self) -> Iterator[Part]:
        if not self.exists():
            return
        with self.path.open(encoding="utf-8", errors="replace") as file:
            lines = _whole_json_lines(file)
            for header in lines:
                yield header, lines

    def start(self, header: dict[str, Any], entries: Iterable[dict[str, Any]]) -> None:
        _write_lines(self.path, header, entries)
        self._file = self.path.open("a", encoding="utf-8")

    def add(self, entry: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.close()
        self.path.unlink(missing_ok=True)


class _ObjectJournal(Journal):
    """Each object begins with the header: its entries stand for themselves."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._number = 0
        self._header: dict[str, Any] = {}
        self._pending: list[dict[str, Any]] = []
        self._flushed = 0.0

    def _objects(self) -> list[Path]:
        try:
            return sorted(self.path.iterdir(), key=lambda path: path.name)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def exists(self) -> bool:
        return bool(self._objects())

    def read(self) -> Iterator[Part]:
        for path in self._objects():
            text = path.read_text(encoding="utf-8", errors="replace")
            lines = _whole_json_lines(text.splitlines())
            for header in lines:
                yield header, lines

    def start(self, header: dict[str, Any], entries: Iterable[dict[str, Any]]) -> None:
        earlier = self._objects()
        numbers = [int(path.stem) for path in earlier if path.stem.isdigit()]
        self._number = max(numbers, default=0)
        self._header = header
        self._write(entries)
        for path in earlier:
            path.unlink(missing_ok=True)

    def add(self, entry: dict[str, Any]) -> None:
        self._pending.append(entry)
        overdue = time.monotonic() - self._flushed > _FLUSH_SECONDS
        if overdue or len(self._pending) >= _FLUSH_CLIPS:
            self.close()

    def close(self) -> None:
        if self._pending:
            self._write(self._pending)
            self._pending = []

    def _write(self, entries: Iterable[dict[str, Any]]) -> None:
        self._number += 1
        _write_lines(self.path / f"{self._number:08d}.jsonl", self._header, entries)
        self._flushed = time.monotonic()

    def remove(self) -> None:
        self._pending = []
        for path in self._objects():
            path.unlink(missing_ok=True)


def _write_lines(path: Path, header: dict[str, Any], entries: Iterable[dict[str, Any]]) -> None:
    with atomic_write(path) as file:
        for line in itertools.chain([header], entries):
            file.write(json.dumps(line).encode() + b"\n")


def _whole_json_lines(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            return
        if isinstance(content, dict):
            yield content
