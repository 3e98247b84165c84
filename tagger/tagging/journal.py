"""What an interrupted run over many files has already done, so that the next one goes on there."""

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from tagger.base.errors import ConfigError
from tagger.base.files import json_hash
from tagger.tagging.records import Record

# Raised when lines are written that older versions would misread.
_SCHEMA = 1


def journal_path(output: Path) -> Path:
    """Journal of the run that writes `output`: beside it, or in a folder such as ``.``."""
    if output.name in ("", ".."):
        return output / "tagger.tagging.journal.jsonl"
    return output.with_name(output.name + ".journal.jsonl")


class Journal:
    """Results of finished files in a JSON Lines file, one line appended for each.

    The first line holds what the results depend on. Lines that were cut off when the process was
    killed, or are damaged otherwise, are dropped: their files are tagged again.

    Parameters
    ----------
    path : Path
        The journal; made if missing. While it is open, no other process can open it.
    parameters : dict
        Everything that the results depend on, in values that JSON knows. A journal of other
        parameters is set aside, with a notice.
    overwrite : bool
        Start anew, whatever the journal holds.

    Raises
    ------
    ConfigError
        If the journal cannot be written or another process has it open.
    """

    def __init__(self, path: Path, parameters: dict[str, Any], *, overwrite: bool = False) -> None:
        self.path = path
        # Where the line of each finished file begins, and the size and time the file then had:
        # the records themselves might not fit into memory.
        self._done: dict[str, tuple[int, int, int]] = {}
        # Appended to and so not written through tagger.base.files: a line counts once it is whole.
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise self._unwritable(error) from None
        self._file: BinaryIO = os.fdopen(descriptor, "r+b")
        try:
            self._require_alone()
            self._open(parameters, overwrite)
        except OSError as error:
            self.close()
            raise self._unwritable(error) from None
        except BaseException:
            self.close()
            raise

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"{self.path}: the journal cannot be written ({error.strerror}); give an output in a "
            "folder with write permission and free space"
        )

    def _require_alone(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{self.path}: another process is writing this output; wait for its end or give "
                "another output"
            ) from None
        except OSError:
            # Some network file systems have no locks.
            return

    def _open(self, parameters: dict[str, Any], overwrite: bool) -> None:
        header = {"schema": _SCHEMA, "hash": json_hash(parameters), "parameters": parameters}
        first = self._file.readline()
        if first and not overwrite:
            old = _parsed(first) if first.endswith(b"\n") else None
            if old is not None and (old.get("schema"), old.get("hash")) == (
                _SCHEMA,
                header["hash"],
            ):
                self._read_lines()
                return
            self._set_aside(old, parameters)
        self._file.seek(0)
        self._file.truncate()
        self._append(header)

    def _set_aside(self, old: dict[str, Any] | None, parameters: dict[str, Any]) -> None:
        import shutil

        from tagger.base.log import notice

        # Copied, not renamed: the lock is on this file.
        aside = self.path.with_name(self.path.name + ".old")
        shutil.copyfile(self.path, aside)
        before = old.get("parameters") if old else None
        if isinstance(before, dict):
            names = sorted(
                name
                for name in before.keys() | parameters.keys()
                if before.get(name) != parameters.get(name)
            )
            reason = f"of a run with other settings ({', '.join(names)})"
        else:
            reason = "damaged"
        notice(f"{self.path}: journal {reason}, kept as {aside.name}; starting anew")

    def _read_lines(self) -> None:
        start = self._file.tell()
        for line in self._file:
            if not line.endswith(b"\n"):
                # Else the next line would be appended to this half of one.
                self._file.truncate(start)
                return
            entry = _parsed(line)
            if entry is not None:
                with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
                    status = int(entry["size"]), int(entry["mtime_ns"])
                    self._done[str(entry["path"])] = (start, *status)
            start += len(line)

    def get(self, path: Path) -> Record | None:
        """Give the result of a file that is done.

        Parameters
        ----------
        path : Path
            An input.

        Returns
        -------
        Record or None
            None if it is not done or has changed since: in size or time of last change.
        """
        found = self._done.get(_key(path))
        if found is None or found[1:] != _status(path):
            return None
        try:
            self._file.seek(found[0])
            entry = _parsed(self._file.readline())
            record = Record.from_dict(entry["record"] if entry else None)
        except (KeyError, OSError, ValueError):
            return None
        # The same file may be named in another way now.
        return replace(record, path=str(path))

    def add(self, path: Path, record: Record) -> None:
        """Note the result of a file.

        Parameters
        ----------
        path : Path
            The input. Its size and time are taken now: write into it before.
        record : Record
            The result. One with an error is not noted: such a file is tagged again.

        Raises
        ------
        ConfigError
            If the journal cannot be written.
        """
        status = _status(path)
        if record.error is not None or status is None:
            return
        size, mtime_ns = status
        key = _key(path)
        entry = {"path": key, "size": size, "mtime_ns": mtime_ns, "record": record.to_dict()}
        try:
            start = self._append(entry)
        except OSError as error:
            raise self._unwritable(error) from None
        self._done[key] = (start, size, mtime_ns)

    def _append(self, entry: dict[str, Any]) -> int:
        start = self._file.seek(0, os.SEEK_END)
        # In ASCII, so that names which are no Unicode survive.
        self._file.write(json.dumps(entry).encode("ascii") + b"\n")
        self._file.flush()
        return start

    def close(self) -> None:
        """Close the journal, which lets another process open it."""
        # Everything is flushed but what a full disk refused, which was reported then.
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _key(path: Path) -> str:
    return str(path.absolute())


def _status(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns
