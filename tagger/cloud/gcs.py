"""Google Cloud Storage: ``gs://`` as a file system and as paths, on Google's own client.

Imported only where an address is used: it needs the extra ``cloud``.
"""

import contextlib
import errno
import io
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from upath.implementations.cloud import GCSPath
from upath.registry import register_implementation

from tagger.base.files import atomic_write
from tagger.cloud.gcs_client import (
    os_errors,
    patience,
    storage_client,
    undamaged,
)
from tagger.cloud.transfers import in_threads

# Read at once when opened, and so checked as a whole.
_WHOLE_BYTES = 32 << 20
# Pieces in which a large object is sent; a connection that breaks costs one of them.
_UPLOAD_CHUNK_BYTES = 32 << 20
_FIELDS = "items(name,size,crc32c,generation,updated),prefixes,nextPageToken"
# Marks an upload as one's own where the answer to a first attempt was lost.
_MARK = "tagger-upload"


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
        with os_errors(full):
            if name:
                blob = storage_client().bucket(bucket).get_blob(name, **patience())
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
        with os_errors(full):
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
        with os_errors(f"{bucket}/{name}"):
            listing = self._list(bucket, f"{name}/" if name else "")
            entries = [_entry(bucket, blob) for blob in listing if not blob.name.endswith("/")]
            if not entries and name:
                blob = storage_client().bucket(bucket).get_blob(name, **patience())
                entries = [] if blob is None else [_entry(bucket, blob)]
        found = {entry["name"]: entry for entry in entries}
        return found if detail else list(found)

    @staticmethod
    def _list(bucket: str, prefix: str, **options: Any) -> Any:
        return storage_client().list_blobs(
            bucket, prefix=prefix, fields=_FIELDS, **patience(**options)
        )

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

        with os_errors(full):
            blob = storage_client().bucket(bucket).blob(name, generation=kwargs.get("generation"))
            try:
                content: bytes = undamaged(
                    lambda: blob.download_as_bytes(
                        start=start, end=last, **patience(checksum="crc32c")
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
        blob = storage_client().bucket(bucket).blob(name, chunk_size=_UPLOAD_CHUNK_BYTES)
        mark = uuid.uuid4().hex
        if generation is not None:
            blob.metadata = {_MARK: mark}
        options = patience(checksum="crc32c", if_generation_match=generation)

        def upload() -> None:
            file.seek(0)
            blob.upload_from_file(
                file, size=size, content_type="application/octet-stream", **options
            )

        with os_errors(full):
            try:
                undamaged(upload)
            except PreconditionFailed:
                # Where the answer to a first attempt was lost, it is the first attempt that a
                # second one meets.
                found = storage_client().bucket(bucket).get_blob(name, **patience())
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
                blob = storage_client().bucket(bucket).blob(name, generation=generation)
                blob.download_to_file(file, **patience(checksum="crc32c"))

        with os_errors(f"{bucket}/{name}"):
            undamaged(download)

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
        with os_errors(f"{bucket}/{name}"):
            options = patience(if_generation_match=if_generation_match)
            try:
                storage_client().bucket(bucket).blob(name).delete(**options)
            except PreconditionFailed:
                if storage_client().bucket(bucket).get_blob(name, **patience()) is not None:
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
