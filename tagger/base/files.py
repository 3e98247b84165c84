"""Atomic file writes and content hashes: no reader ever sees half of a file."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from tagger.base.addresses import is_remote
from tagger.base.errors import ConfigError

# Names of files and folders that are still being written.
TEMPORARY_PREFIX = ".tmp-"
# Between the name of a temporary folder and that of the folder that it replaces, in the name that
# the latter has for an instant.
_REPLACED = ".replaced-"


# Where locks do not tell who is writing: what is so old is a leftover. Between the two renames of
# `atomic_folder` passes an instant.
_LEFT_SECONDS = 24 * 3600
_RENAMED_SECONDS = 60


# Two threads that read it at once would leave what one of them has set meanwhile.
_reading_umask = threading.Lock()


def _umask() -> int:
    # The only way to read it is to set it.
    with _reading_umask:
        umask = os.umask(0o077)
        os.umask(umask)
    return umask


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its name when the block ends well.

    Parameters
    ----------
    path : Path
        Final name. Its folder is created if missing. At an address the object is put at once when
        the block ends well.
    durable : bool
        Flush the content to the disk before the rename (fsync). Without it the file is still
        whole or absent for every running process, but may be lost or empty after a power cut.

    Yields
    ------
    BinaryIO
        File open for writing bytes.
    """
    if is_remote(path):
        with tempfile.NamedTemporaryFile(prefix=TEMPORARY_PREFIX) as local:
            yield cast(BinaryIO, local)
            local.flush()
            _file_system(path).put_file(local.name, _name(path))
        return
    # A link stays one: what it leads to is written.
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    if path.exists() and not path.is_file():
        # A pipe or a device cannot be replaced, and has no content that could be half there.
        with path.open("wb") as file:
            yield file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _named(path):
        descriptor, temporary = _new_temporary_file(path.parent)
    try:
        # mkstemp makes private files; give the rights that an ordinary open() would have given.
        os.fchmod(descriptor, 0o666 & ~_umask())
        with os.fdopen(descriptor, "wb") as file, _named(path):
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        with _named(path):
            Path(temporary).replace(path)
            if durable:
                sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def require_writable(folder: Path) -> None:
    """Raise a ConfigError for a folder that could not be made or written into.

    Parameters
    ----------
    folder : Path
        A folder, which need not be there yet.
    """
    if is_remote(folder):
        return
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: cannot be written; check the rights of {place}")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let errors of the disk name what is written, and not the temporary file."""
    try:
        yield
    except OSError as error:
        if error.filename is None or TEMPORARY_PREFIX in str(error.filename):
            error.filename = str(path)
        raise


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process at a time run a block, by a lock on a file that is made for it.

    Where there is no place for the file, or the system has no locks, nobody waits.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            _lock(stack.enter_context(path.open("ab")).fileno())
        yield


def _lock(descriptor: int, *, wait: bool = True) -> bool | None:
    """Lock an open file or folder until it is closed.

    Returns
    -------
    bool or None
        False if another one has it; None where nobody can tell: not all file systems have locks,
        and NFS gives none of what is open for reading.
    """
    try:
        # Only systems like Unix have it, and to tag nothing needs it.
        import fcntl
    except ImportError:  # pragma: no cover
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _new_temporary_file(folder: Path) -> tuple[int, str]:
    """Make a file that is locked as long as somebody writes it."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=folder)
        _lock(descriptor)
        if os.fstat(descriptor).st_nlink:
            return descriptor, name
        # Taken for a leftover before it was locked.
        os.close(descriptor)


def _file_system(path: Path) -> Any:
    return cast(Any, path).fs


def _name(path: Path) -> str:
    return str(cast(Any, path).path)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a file, whoever has written it, survive a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` to `path` atomically."""
    if is_remote(path):
        _file_system(path).pipe_file(_name(path), content)
        return
    with atomic_write(path, durable=durable) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder that takes the name `path` when the block ends well.

    An existing folder of that name is replaced. Killed in the middle of that, it may be missing:
    `remove_temporary_files` gives it back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(path.parent) as temporary:
        yield temporary
        _give_name(temporary, path)


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Make a folder inside `parent` that is gone when the block ends.

    While the block runs `remove_temporary_files` leaves it alone.
    """
    while True:
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=parent))
        with _locked(temporary):
            if not temporary.exists():
                # Taken for a leftover before it was locked.
                continue
            try:
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool | None]:
    """Hold the lock of a temporary file or folder; yields what `_lock` says of it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield True
        return
    except OSError:
        # E.g. of a system that cannot open folders.
        yield None
        return
    try:
        yield _lock(descriptor, wait=wait)
    finally:
        os.close(descriptor)


def _give_name(temporary: Path, path: Path) -> None:
    for file in temporary.rglob("*"):
        if file.is_file():
            sync_file(file)
    # mkdtemp makes private folders; see atomic_write.
    temporary.chmod(0o777 & ~_umask())
    # Renamed first and then removed, which takes longer: the name is free for an instant only.
    old = temporary.with_name(f"{temporary.name}{_REPLACED}{path.name}")
    try:
        with contextlib.suppress(FileNotFoundError):
            path.replace(old)
        temporary.replace(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.replace(path)
        raise
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _age(path: Path) -> float:
    """Seconds since anything in a file or folder was written, or its name was changed."""
    inside = [Path(at, name) for at, folders, files in os.walk(path) for name in folders + files]
    times = [0.0]
    for item in (path, *inside):
        # Others may be removing it.
        with contextlib.suppress(OSError):
            status = item.stat()
            times.append(max(status.st_mtime, status.st_ctime))
    return time.time() - max(times)


def remove_temporary_files(folder: Path) -> None:
    """Remove what writes that were killed have left directly inside `folder`.

    What others are writing just now stays; where locks do not tell, that is all in which something
    was written within the last day. A folder that was about to be replaced gets its name back. At
    an address killed writes leave nothing.
    """
    if is_remote(folder):
        return
    leftovers = sorted(folder.glob(TEMPORARY_PREFIX + "*"), reverse=True)
    # What was about to be replaced comes before what was to replace it.
    for leftover in leftovers:
        temporary, _, replaced = leftover.name.partition(_REPLACED)
        with _locked(folder / temporary, wait=False) as is_left:
            if is_left is None:
                is_left = _age(leftover) > _LEFT_SECONDS
                if replaced and _age(leftover) > _RENAMED_SECONDS:
                    with contextlib.suppress(OSError):
                        leftover.rename(folder / replaced)
            if not is_left:
                continue
            if replaced:
                with contextlib.suppress(OSError):
                    # Fails where the new one is there.
                    leftover.rename(folder / replaced)
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let other processes, of all machines that share the disk, wait that make `path` as well.

    Beside it a file is left that they lock. On a disk without locks nobody waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        _lock(lock.fileno())
        yield


# There is one stderr for all threads: two that redirected it at once would put back what the other
# has put there. Again and again in the same thread is fine.
_redirecting = threading.RLock()


@contextlib.contextmanager
def _stderr_into(descriptor: int) -> Iterator[None]:
    with _redirecting:
        try:
            kept = os.dup(2)
        except OSError:
            # It is closed: nothing is seen anyway.
            yield
            return
        try:
            os.dup2(descriptor, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Send what native code writes to stderr to nowhere; Python's own messages as well.

    Those of all threads: see `without_stderr_lines` where others may have something to say.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        with _stderr_into(nowhere):
            yield
    finally:
        os.close(nowhere)


@contextlib.contextmanager
def without_stderr_lines(prefix: bytes) -> Iterator[None]:
    """Leave out what is written to stderr meanwhile in lines that start with `prefix`.

    All other lines, whoever writes them, appear when the block ends.
    """
    try:
        buffer = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError:
        # No folder for it: too much is said rather than too little.
        yield
        return
    with buffer:
        try:
            with _stderr_into(buffer.fileno()):
                yield
        finally:
            buffer.seek(0)
            lines = [line for line in buffer if not line.startswith(prefix)]
            with contextlib.suppress(OSError):
                if lines:
                    os.write(2, b"".join(lines))


def content_hash(content: bytes) -> str:
    """Hex digest (BLAKE2b, 128 bit) that names `content`."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def json_hash(value: Any) -> str:
    """Hex digest of `value` as canonical JSON: the order of keys does not matter."""
    return content_hash(json.dumps(value, sort_keys=True, separators=(",", ":")).encode("utf-8"))


def json_hash_of_list(values: Iterable[Any]) -> str:
    """`json_hash` of a list of which one value at a time need be in memory."""
    digest, separator = hashlib.blake2b(b"[", digest_size=16), b""
    for value in values:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        digest.update(separator + text.encode("utf-8"))
        separator = b","
    digest.update(b"]")
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
