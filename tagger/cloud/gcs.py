"""Google Cloud Storage: ``gs://`` as a file system and as paths, on Google's own client.

Imported only where an address is used: it needs the extra ``cloud``.
"""

import base64
import contextlib
import errno
import io
import json
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from upath.implementations.cloud import GCSPath
from upath.registry import register_implementation

from tagger.base.addresses import without_secrets
from tagger.base.files import atomic_write

ItemT = TypeVar("ItemT")

_TIMEOUT_SECONDS = 60
# For all attempts at one request together.
_RETRY_SECONDS = 120
# Of a transfer whose bytes arrive damaged.
_N_TRIES = 3
# Read at once when opened, and so checked as a whole.
_WHOLE_BYTES = 32 << 20
_COPY_BYTES = 1 << 20
# Pieces in which a large object is sent; a connection that breaks costs one of them.
_UPLOAD_CHUNK_BYTES = 32 << 20
# Threads that transfer files side by side.
N_THREADS = 16
_FIELDS = "items(name,size,crc32c,generation,updated),prefixes,nextPageToken"
# Marks an upload as one's own where the answer to a first attempt was lost.
_MARK = "tagger-upload"

# Of the message with which a server refuses an upload whose checksum is another one.
_DAMAGED = "doesn't match calculated CRC32C"
_ARRIVED_DAMAGED = "arrived damaged; try again"
# What the client adds to the text of a server's refusal.
_REPEATED = re.compile(r": \('Request failed with status code'.*", re.DOTALL)

_clients: dict[tuple[int, str | None], Any] = {}
_clients_lock = threading.Lock()


class DamagedOnItsWayError(OSError):
    """What arrived has another checksum than what was sent, time and again."""


def _client() -> Any:
    """Client of this process, with the user's Application Default Credentials.

    Without any for an emulator, and for public buckets where there are none.
    """
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    # Connections do not survive a fork.
    key = (os.getpid(), emulator)
    with _clients_lock:
        if key not in _clients:
            _clients[key] = _new_client(emulator)
        return _clients[key]


def _new_client(emulator: str | None) -> Any:
    from google.auth import exceptions
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage
    from requests.adapters import HTTPAdapter

    # For traces that nobody takes here, the client would look up every bucket, in a thread.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "1")
    if emulator:
        client = storage.Client(project="emulator", credentials=AnonymousCredentials())
    else:
        try:
            # Objects need no project, and not all credentials name one.
            client = storage.Client(project=None)
        except exceptions.DefaultCredentialsError:
            client = storage.Client.create_anonymous_client()
    # Ten connections by default: more threads would open new ones for each request.
    for scheme in ("http://", "https://"):
        client._http.mount(scheme, HTTPAdapter(pool_maxsize=2 * N_THREADS))
    return client


def _patience(**more: Any) -> dict[str, Any]:
    """How long the client tries."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    retry = DEFAULT_RETRY.with_timeout(_RETRY_SECONDS)
    return {"timeout": _TIMEOUT_SECONDS, "retry": retry, **more}


@contextlib.contextmanager
def _os_errors(path: str) -> Iterator[None]:
    """Turn what the client raises into the OSErrors that a local file would give."""
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from requests import RequestException

    address = f"gs://{path}"
    try:
        yield
    except DataCorruption:
        raise DamagedOnItsWayError(errno.EIO, _ARRIVED_DAMAGED, address) from None
    except exceptions.NotFound as error:
        raise FileNotFoundError(errno.ENOENT, _reason(error), address) from None
    except (exceptions.Unauthorized, exceptions.Forbidden) as error:
        raise PermissionError(errno.EACCES, _reason(error), address) from None
    except exceptions.PreconditionFailed:
        raise FileExistsError(
            errno.EEXIST, "another one has written it meanwhile", address
        ) from None
    except exceptions.RetryError as error:
        cause = error.cause or error
        raise TimeoutError(errno.ETIMEDOUT, _reason(cause), address) from None
    except (
        exceptions.GoogleAPIError,
        GoogleAuthError,
        InvalidResponse,
        RequestException,
    ) as error:
        if _is_of_damage(error):
            raise DamagedOnItsWayError(errno.EIO, _ARRIVED_DAMAGED, address) from None
        if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
            # Credentials that have expired, or none where some are needed.
            raise PermissionError(errno.EACCES, _reason(error), address) from None
        raise OSError(errno.EIO, _reason(error), address) from None


def _reason(error: BaseException) -> str:
    """One line of what an error says; of a JSON document that a server has sent, its message."""
    if len(error.args) > 1 and isinstance(error.args[0], str):
        # Of what else there is, e.g. the whole answer, nobody needs to know.
        text = " ".join(str(item) for item in error.args if isinstance(item, str | int))
    else:
        text = _REPEATED.sub("", str(error))
    start = text.find("{")
    if start >= 0:
        text = f"{text[:start].rstrip(': ')}: {_message_in(text[start:])}".rstrip(": ")
    # The address of an upload in several pieces gives the right to write.
    text = without_secrets(text)
    return (text.splitlines() or [type(error).__name__])[0][:200] or type(error).__name__


def _message_in(text: str) -> str:
    """Message of the JSON document with which a text starts; empty if there is none."""
    try:
        content = json.JSONDecoder().raw_decode(text)[0]
        # Tokens are refused with {"error": code, "error_description": message}.
        message = content.get("error_description") or content["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return " ".join(str(message).split())


def _undamaged(transfer: Callable[[], Any]) -> Any:
    """Transfer, and again where bytes were damaged on their way."""
    from google.api_core.exceptions import BadRequest
    from google.cloud.storage.exceptions import DataCorruption

    for _ in range(_N_TRIES - 1):
        try:
            return transfer()
        except DataCorruption:
            continue
        except BadRequest as error:
            if not _is_of_damage(error):
                raise
    return transfer()


def _is_of_damage(error: BaseException) -> bool:
    """Whether a server refuses what has another checksum than it was sent with."""
    from google.api_core.exceptions import BadRequest

    text = getattr(getattr(error, "response", None), "text", "")
    return isinstance(error, BadRequest) and _DAMAGED in f"{error} {text}"


def _split(path: str) -> tuple[str, str]:
    """Bucket and object of a path."""
    parts = [part for part in path.removeprefix("gs://").split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise FileNotFoundError(errno.ENOENT, "not an address; write gs://BUCKET/NAME", path)
    return parts[0], "/".join(parts[1:])


class CloudStorage(AbstractFileSystem):
    """Buckets as a file system: ``bucket/folder/file``.

    There are no folders but those that names of objects imply. Every write puts a whole object at
    once. What comes and goes is checked (CRC32C), servers in trouble are asked again, and what
    fails is an OSError: FileNotFoundError, PermissionError and the like.
    """

    protocol = "gs"
    root_marker = ""

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Describe an object or a folder.

        Returns
        -------
        dict
            ``name``, ``size``, ``type``; of an object also ``crc32c`` (base64), ``generation``,
            ``mtime``, and ``mtime_ns``, which is the generation: it changes with the content.
        """
        bucket, name = _split(self._strip_protocol(path))
        full = f"{bucket}/{name}".rstrip("/")
        with _os_errors(full):
            if name:
                blob = _client().bucket(bucket).get_blob(name, **_patience())
                if blob is not None:
                    return _entry(bucket, blob)
            below = self._list(bucket, f"{name}/" if name else "", max_results=1)
            if next(iter(below), None) is None and name:
                raise FileNotFoundError(
                    errno.ENOENT, f"No such object: {full}", f"gs://{full}"
                ) from None
        return _folder(full)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List what lies directly in a folder."""
        bucket, name = _split(self._strip_protocol(path))
        full = f"{bucket}/{name}".rstrip("/")
        prefix = f"{name}/" if name else ""
        with _os_errors(full):
            listing = self._list(bucket, prefix, delimiter="/")
            entries = [_entry(bucket, blob) for blob in listing if not blob.name.endswith("/")]
            entries += [_folder(f"{bucket}/{found.rstrip('/')}") for found in listing.prefixes]
        if not entries:
            # A file, an empty bucket, or nothing.
            found = self.info(full)
            entries = [found] if found["type"] == "file" else []
        entries.sort(key=lambda entry: entry["name"])
        return entries if detail else [entry["name"] for entry in entries]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        """List all files below a folder, in one go; none where there is nothing."""
        if maxdepth is not None or withdirs:
            return super().find(path, maxdepth, withdirs, detail, **kwargs)
        bucket, name = _split(self._strip_protocol(path))
        with _os_errors(f"{bucket}/{name}"):
            listing = self._list(bucket, f"{name}/" if name else "")
            entries = [_entry(bucket, blob) for blob in listing if not blob.name.endswith("/")]
            if not entries and name:
                blob = _client().bucket(bucket).get_blob(name, **_patience())
                entries = [] if blob is None else [_entry(bucket, blob)]
        found = {entry["name"]: entry for entry in entries}
        return found if detail else list(found)

    @staticmethod
    def _list(bucket: str, prefix: str, **options: Any) -> Any:
        return _client().list_blobs(bucket, prefix=prefix, fields=_FIELDS, **_patience(**options))

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is such a file or folder; a server that does not answer is an error."""
        return self._type(path) is not None

    def isdir(self, path: str) -> bool:
        """Whether it is a folder."""
        return self._type(path) == "directory"

    def isfile(self, path: str) -> bool:
        """Whether it is a file."""
        return self._type(path) == "file"

    def _type(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return None

    def created(self, path: str) -> Any:
        """Time of the content."""
        return self.info(path)["mtime"]

    modified = created

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """Content of a file, or of bytes `start` to `end` of it.

        Parameters
        ----------
        path : str
            The file.
        start, end : int, optional
            As of a slice.
        **kwargs
            ``generation``: only that version of it.
        """
        bucket, name = _split(self._strip_protocol(path))
        full = f"{bucket}/{name}"
        if (start or 0) < 0 or (end is not None and end < 0):
            start, end, _ = slice(start, end).indices(self.info(full)["size"])
        if end is not None and end <= (start or 0):
            return b""
        last = None if end is None else end - 1
        from google.api_core.exceptions import RequestRangeNotSatisfiable

        with _os_errors(full):
            blob = _client().bucket(bucket).blob(name, generation=kwargs.get("generation"))
            try:
                content: bytes = _undamaged(
                    lambda: blob.download_as_bytes(
                        start=start, end=last, **_patience(checksum="crc32c")
                    )
                )
            except RequestRangeNotSatisfiable:
                return b""
        return content

    def pipe_file(
        self,
        path: str,
        value: bytes,
        mode: str = "overwrite",
        *,
        if_generation_match: int | None = None,
        **_: Any,
    ) -> int:
        """Write a whole file.

        Parameters
        ----------
        path : str
            The file.
        value : bytes
            Its content.
        mode : str
            ``"overwrite"``, or ``"create"``: the same as ``if_generation_match=0``.
        if_generation_match : int, optional
            Only if the file is of that generation; 0: only if there is none.

        Returns
        -------
        int
            Its generation now.

        Raises
        ------
        FileExistsError
            If it is of another generation.
        """
        if mode == "create":
            if_generation_match = 0
        with io.BytesIO(bytes(value)) as file:
            return self._upload(path, file, len(value), if_generation_match)

    def put_file(
        self,
        lpath: str,
        rpath: str,
        callback: Any = None,
        mode: str = "overwrite",
        *,
        if_generation_match: int | None = None,
        **_: Any,
    ) -> int:
        """Upload a local file; see `pipe_file`. Of a folder nothing, as there are none: 0."""
        if mode == "create":
            if_generation_match = 0
        local = Path(lpath)
        if local.is_dir():
            return 0
        with local.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return self._upload(rpath, file, size, if_generation_match)

    def _upload(self, path: str, file: BinaryIO, size: int, generation: int | None) -> int:
        from google.api_core.exceptions import PreconditionFailed

        bucket, name = _split(self._strip_protocol(path))
        full = f"{bucket}/{name}"
        if not name:
            raise IsADirectoryError(errno.EISDIR, "is a bucket; name a file in it", f"gs://{full}")
        blob = _client().bucket(bucket).blob(name, chunk_size=_UPLOAD_CHUNK_BYTES)
        mark = uuid.uuid4().hex
        if generation is not None:
            blob.metadata = {_MARK: mark}
        options = _patience(checksum="crc32c", if_generation_match=generation)

        def upload() -> None:
            file.seek(0)
            blob.upload_from_file(
                file, size=size, content_type="application/octet-stream", **options
            )

        with _os_errors(full):
            try:
                _undamaged(upload)
            except PreconditionFailed:
                # Where the answer to a first attempt was lost, it is the first attempt that a
                # second one meets.
                found = _client().bucket(bucket).get_blob(name, **_patience())
                if found is None or (found.metadata or {}).get(_MARK) != mark:
                    raise
                blob = found
            return int(blob.generation)

    def get_file(
        self,
        rpath: str,
        lpath: str,
        callback: Any = None,
        *,
        generation: int | None = None,
        **_: Any,
    ) -> None:
        """Download a file; it is under its local name whole or not at all.

        Parameters
        ----------
        rpath, lpath : str
            The file, and its local name.
        callback : object, optional
            Not used.
        generation : int, optional
            The version that is wanted; the newest by default.

        Raises
        ------
        FileNotFoundError
            If there is none, or none of that generation.
        """
        bucket, name = _split(self._strip_protocol(rpath))

        def download() -> None:
            with atomic_write(Path(lpath), durable=False) as file:
                blob = _client().bucket(bucket).blob(name, generation=generation)
                blob.download_to_file(file, **_patience(checksum="crc32c"))

        with _os_errors(f"{bucket}/{name}"):
            _undamaged(download)

    def rm_file(self, path: str, *, if_generation_match: int | None = None) -> None:
        """Remove a file.

        Parameters
        ----------
        path : str
            The file.
        if_generation_match : int, optional
            Only if it is of that generation.

        Raises
        ------
        FileNotFoundError
            If there is none; also where the answer to a first attempt was lost.
        FileExistsError
            If it is of another generation.
        """
        from google.api_core.exceptions import NotFound, PreconditionFailed

        bucket, name = _split(self._strip_protocol(path))
        with _os_errors(f"{bucket}/{name}"):
            options = _patience(if_generation_match=if_generation_match)
            try:
                _client().bucket(bucket).blob(name).delete(**options)
            except PreconditionFailed:
                if _client().bucket(bucket).get_blob(name, **_patience()) is not None:
                    raise
                raise NotFound(f"No such object: {bucket}/{name}") from None

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove a file, or all files below a folder."""
        for item in [path] if isinstance(path, str) else path:
            if not recursive:
                self.rm_file(item)
                continue
            in_threads(self._remove_if_there, self.find(item))

    def _remove_if_there(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.rm_file(path)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy a file within the storage."""
        bucket, name = _split(self._strip_protocol(path1))
        other_bucket, other_name = _split(self._strip_protocol(path2))
        with _os_errors(f"{bucket}/{name}"):
            source = _client().bucket(bucket).blob(name)
            target = _client().bucket(other_bucket).blob(other_name)
            token = None
            while True:
                # A large object takes several requests.
                token, _done, _size = target.rewrite(source, token=token, **_patience())
                if token is None:
                    return

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Do nothing: folders are implied by names."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: folders are implied by names."""

    def rmdir(self, path: str) -> None:
        """Do nothing: folders are implied by names."""

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        if mode == "rb":
            entry = self.info(path)
            if entry["type"] != "file":
                raise IsADirectoryError(errno.EISDIR, "is a folder", f"gs://{path}")
            if entry["size"] <= _WHOLE_BYTES:
                return io.BytesIO(self.cat_file(path, generation=entry["generation"]))
            return _Reader(self, path, entry, cache_options)
        if mode in ("wb", "xb"):
            return _Writer(self, path, "create" if mode == "xb" else "overwrite")
        raise io.UnsupportedOperation(f"gs://{path}: mode {mode}: an object is written as a whole")


class _Reader(AbstractBufferedFile):
    """One version of an object, opened for reading in blocks."""

    def __init__(
        self,
        fs: CloudStorage,
        path: str,
        entry: dict[str, Any],
        cache_options: dict[str, Any] | None,
    ) -> None:
        self._generation = entry["generation"]
        super().__init__(fs, path, "rb", size=entry["size"], cache_options=cache_options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        content: bytes = self.fs.cat_file(self.path, start, end, generation=self._generation)
        return content


class _Writer(io.BytesIO):
    """Content that becomes an object when it is closed; not if an error ends its block."""

    def __init__(self, fs: CloudStorage, path: str, mode: str) -> None:
        super().__init__()
        self._put: Callable[[bytes], int] | None = lambda content: fs.pipe_file(path, content, mode)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is not None:
            self._put = None
        self.close()

    def close(self) -> None:
        put, self._put = self._put, None
        if put is not None and not self.closed:
            put(self.getvalue())
        super().close()

    def __del__(self) -> None:
        # One that nobody closed is not complete.
        self._put = None


def _entry(bucket: str, blob: Any) -> dict[str, Any]:
    return {
        "name": f"{bucket}/{blob.name}",
        "size": int(blob.size),
        "type": "file",
        "crc32c": blob.crc32c,
        "generation": int(blob.generation),
        "mtime": blob.updated,
        "mtime_ns": int(blob.generation),
    }


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


class CloudPath(GCSPath):
    """A ``gs://`` address with the methods of `pathlib.Path`."""

    __slots__ = ()

    def read_bytes(self) -> bytes:
        """Content, in one request."""
        content: bytes = self.fs.cat_file(self.path)
        return content

    def read_text(
        self, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> str:
        """Content as text."""
        with io.TextIOWrapper(
            io.BytesIO(self.read_bytes()), encoding or "utf-8", errors, newline
        ) as text:
            return text.read()

    def write_bytes(self, data: bytes) -> int:
        """Write a whole object."""
        self.fs.pipe_file(self.path, data)
        return len(data)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            self.fs.rm_file(self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def __reduce__(self) -> Any:
        # Taken from its text, a name with two colons would be cut.
        return _path_of, tuple(self.path.split("/"))


def _path_of(bucket: str, *parts: str) -> CloudPath:
    path = CloudPath(f"gs://{bucket}", protocol="gs")
    return path.joinpath(*parts) if any(parts) else path


fsspec.register_implementation("gs", CloudStorage, clobber=True)
register_implementation("gs", CloudPath, clobber=True)


def in_threads(
    work: Callable[[ItemT], Any],
    items: Iterable[ItemT],
    *,
    advance: Callable[[int, str], None] | None = None,
) -> None:
    """Call `work` with every item, side by side; the first error ends it.

    Parameters
    ----------
    work : callable
        What waits for the network.
    items : iterable
        What it is called with.
    advance : callable, optional
        Told of each item that is done.
    """
    pool = ThreadPoolExecutor(N_THREADS)
    try:
        for future in as_completed([pool.submit(work, item) for item in items]):
            future.result()
            if advance is not None:
                advance(1, "")
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def crc32c_of_file(path: Path) -> str:
    """Checksum of a local file, as `CloudStorage.info` gives it."""
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while block := file.read(_COPY_BYTES):
            checksum.update(block)
    return base64.b64encode(checksum.digest()).decode("ascii")
