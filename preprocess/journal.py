"""The journal of a store that is being filled: a run that was killed goes on from it.

On a disk it is one file of JSON lines. Objects cannot be appended to: at an address it is a folder
of numbered objects, each of which holds the entries of some time.
"""

import contextlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from tagger.files import write_bytes
from tagger.locations import is_remote

JOURNAL = "journal.jsonl"
_FOLDER = "journal"
# Of finished clips so many, or those of so long, may have to be made again after a kill.
_FLUSH_CLIPS = 256
_FLUSH_SECONDS = 10.0


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
    def read(self) -> list[list[dict[str, Any]]]:
        """Header and entries of each part that earlier runs have left, in order."""

    @abstractmethod
    def start(self, lines: list[dict[str, Any]]) -> None:
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

    def read(self) -> list[list[dict[str, Any]]]:
        if not self.exists():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        lines = list(_whole_json_lines(text))
        return [lines] if lines else []

    def start(self, lines: list[dict[str, Any]]) -> None:
        write_bytes(self.path, _as_lines(lines))
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

    def read(self) -> list[list[dict[str, Any]]]:
        parts = [
            list(_whole_json_lines(path.read_text(encoding="utf-8", errors="replace")))
            for path in self._objects()
        ]
        return [lines for lines in parts if lines]

    def start(self, lines: list[dict[str, Any]]) -> None:
        earlier = self._objects()
        numbers = [int(path.stem) for path in earlier if path.stem.isdigit()]
        self._number = max(numbers, default=0)
        self._header = lines[0]
        self._write(lines)
        for path in earlier:
            path.unlink(missing_ok=True)

    def add(self, entry: dict[str, Any]) -> None:
        self._pending.append(entry)
        overdue = time.monotonic() - self._flushed > _FLUSH_SECONDS
        if overdue or len(self._pending) >= _FLUSH_CLIPS:
            self.close()

    def close(self) -> None:
        if self._pending:
            self._write([self._header, *self._pending])
            self._pending = []

    def _write(self, lines: list[dict[str, Any]]) -> None:
        self._number += 1
        write_bytes(self.path / f"{self._number:08d}.jsonl", _as_lines(lines))
        self._flushed = time.monotonic()

    def remove(self) -> None:
        self._pending = []
        for path in self._objects():
            path.unlink(missing_ok=True)


def _as_lines(lines: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode("utf-8")


def _whole_json_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            return
        if isinstance(content, dict):
            yield content
