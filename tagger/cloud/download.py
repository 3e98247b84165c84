"""Downloads that survive dropped connections: resume, retries, checksum, cache."""

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tagger.base.addresses import without_secrets
from tagger.base.cache import cache_folder
from tagger.base.errors import ModelError
from tagger.base.files import content_hash, sha256_of_file, sync_folder, write_json
from tagger.base.log import notice, progress_bar
from tagger.cloud.locations import location

if TYPE_CHECKING:
    import requests

# What has arrived of a block is lost when the connection breaks in its middle.
_BLOCK_BYTES = 1 << 16
_TIMEOUT_SECONDS = 30
_FIRST_WAIT_SECONDS = 1.0
_RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
# Other refusals, e.g. 403, do not say that there is no such file.
_GONE_STATUS = frozenset({404, 410})
# Of an object in a bucket; the client asks for each several times.
_OBJECT_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    Parameters
    ----------
    url : str
        Where it is.
    name : str
        What it is called in the cache.
    sha256 : str or None
        Its checksum; None where none is published.
    """

    url: str
    name: str
    sha256: str | None


class _TransientError(Exception):
    """Worth another try."""


class _NoSuchFileError(ModelError):
    """The server answers that it has no such file."""


def cached_download(remote: RemoteFile, *, n_tries: int = 5) -> Path:
    """Path of a file in the cache, downloaded first if it is not there.

    Parameters
    ----------
    remote : RemoteFile
        What to fetch.
    n_tries : int
        Attempts in all; each goes on where the one before broke off, after a wait that doubles.

    Returns
    -------
    Path
        The whole file, its checksum verified where one is known.

    Raises
    ------
    ModelError
        If it cannot be had or has another checksum; the message says where to put it by hand.
    """
    # The address is part of the name: two versions of a file do not meet.
    folder = cache_folder() / content_hash(remote.url.encode())[:8]
    path = folder / remote.name
    if path.exists():
        if remote.sha256 is None or sha256_of_file(path) == remote.sha256:
            return path
        notice(f"{path}: another checksum than published; downloading it again")
        path.unlink()
    try:
        _download(remote, path, n_tries=n_tries)
    except OSError as error:
        raise ModelError(
            f"{folder}: cannot be written ({error.strerror}); check disk space and rights, or set "
            "TAGGER_CACHE to another folder"
        ) from None
    if remote.sha256 is None:
        notice(f"{path}: no checksum is published; its sha256 is {sha256_of_file(path)}")
    return path


def fetch_file(address: str, path: Path, *, sha256: str | None = None) -> bool:
    """Fetch a file to a place of its own; what broke off before is gone on with.

    Parameters
    ----------
    address : str
        ``https://`` (or ``http://``) or ``gs://``.
    path : Path
        Where it shall be. Until it is whole it is called so with ``.part`` behind.
    sha256 : str, optional
        Its checksum, where it is known. That of an object in a bucket (CRC32C) is verified anyway.

    Returns
    -------
    bool
        False where there is no such file. One that may not be read is an error.

    Raises
    ------
    ModelError
        If it cannot be had, or has another checksum.
    OSError
        If `path` cannot be written.
    """
    if address.startswith(("https://", "http://")):
        try:
            _download(RemoteFile(address, path.name, sha256), path, n_tries=5)
        except _NoSuchFileError:
            return False
        return True
    return _download_object(location(address), path, sha256=sha256)


def _download(remote: RemoteFile, path: Path, *, n_tries: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    _fetch_with_retries(remote, partial, path, n_tries=n_tries)
    partial.replace(path)
    _version_note(partial).unlink(missing_ok=True)
    sync_folder(path.parent)


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _version_note(partial: Path) -> Path:
    """Where it is noted of which version of a file `partial` is a part."""
    return partial.with_name(f"{partial.name}.json")


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _version_note(partial).unlink(missing_ok=True)


def _download_object(address: Path, path: Path, *, sha256: str | None) -> bool:
    """`fetch_file` of a bucket: in blocks, as an object of gigabytes has to be resumable too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    # What an earlier call has left may be of another version: that shows at the end only.
    for _ in range(2):
        try:
            entry = cast(Any, address).fs.info(cast(Any, address).path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unreadable(address, error) from None
        if entry["type"] != "file":
            return False
        _save_object(address, partial, entry=entry)
        problem = _difference(partial, crc32c=entry["crc32c"], sha256=sha256)
        if problem is None:
            partial.replace(path)
            sync_folder(path.parent)
            return True
        partial.unlink()
    raise ModelError(f"{address}: arrives damaged ({problem}); check what lies there")


def _save_object(address: Path, partial: Path, *, entry: dict[str, Any]) -> None:
    """Append what is missing of one version of an object to `partial`."""
    size = entry["size"]
    if partial.exists() and partial.stat().st_size > size:
        partial.unlink()
    with (
        partial.open("ab") as file,
        progress_bar(f"download {address.name} (kB)", size // 1024) as advance,
    ):
        have = file.tell()
        advance(have // 1024, "")
        while have < size:
            try:
                block = cast(Any, address).fs.cat_file(
                    cast(Any, address).path,
                    have,
                    min(have + _OBJECT_BLOCK_BYTES, size),
                    generation=entry["generation"],
                )
            except OSError as error:
                raise _unreadable(address, error) from None
            if not block:
                raise ModelError(f"{address}: ends after {have} of {size} bytes; try again")
            file.write(block)
            have += len(block)
            advance(len(block) // 1024, "")
        file.flush()
        os.fsync(file.fileno())


def _unreadable(address: Path, error: OSError) -> ModelError:
    return ModelError(
        f"{address}: cannot be read ({error.strerror}); check the address and your rights "
        "(gcloud auth application-default login)"
    )


def _difference(path: Path, *, crc32c: str, sha256: str | None) -> str | None:
    """Say what tells a file from the one that was meant."""
    from tagger.cloud.transfers import crc32c_of_file

    if (found := crc32c_of_file(path)) != crc32c:
        return f"crc32c {found} instead of {crc32c}"
    if sha256 is not None and (found := sha256_of_file(path)) != sha256:
        return f"sha256 {found} instead of {sha256}"
    return None


def _fetch_with_retries(remote: RemoteFile, partial: Path, path: Path, *, n_tries: int) -> None:
    wait, shown = _FIRST_WAIT_SECONDS, without_secrets(remote.url)
    for attempt in range(1, n_tries + 1):
        try:
            _fetch(remote, partial)
            _verify(remote, partial)
            return
        except _TransientError as error:
            if attempt == n_tries:
                raise ModelError(
                    f"{shown}: download failed after {n_tries} tries ({error}); "
                    f"try again later, or put the file at {path}"
                ) from None
            notice(f"{shown}: {error}; trying again in {wait:.0f} s")
            time.sleep(wait)
            wait *= 2


@dataclass(frozen=True)
class _Version:
    """What tells versions of a file at an address apart, as far as its server says it.

    Attributes
    ----------
    address : str
        Hash of the address without its secrets: one that is signed anew is the same.
    etag, modified : str
        Headers of the answer; empty where there were none.
    size : int or None
        Bytes in all.
    """

    address: str
    etag: str
    modified: str
    size: int | None

    @property
    def condition(self) -> str:
        """Value of ``If-Range``; empty if there is none."""
        # A weak one does not promise the same bytes.
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def may_be(self, other: "_Version") -> bool:
        """Whether nothing that both know differs."""
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return all(a == b for a, b in zip(mine, others, strict=True) if a and b)


def _version(remote: RemoteFile, response: "requests.Response") -> _Version:
    range_ = response.headers.get("Content-Range", "")
    size = range_.rpartition("/")[2] if range_ else response.headers.get("Content-Length", "")
    return _Version(
        _hash_of_address(remote),
        response.headers.get("ETag", ""),
        response.headers.get("Last-Modified", ""),
        int(size) if size.isdigit() else None,
    )


def _hash_of_address(remote: RemoteFile) -> str:
    return content_hash(without_secrets(remote.url).encode())


def _noted_version(partial: Path) -> _Version | None:
    try:
        return _Version(**json.loads(_version_note(partial).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _part_to_go_on_with(remote: RemoteFile, partial: Path) -> tuple[int, _Version | None]:
    """Bytes that are there of the file, and of which version; others are removed."""
    if not partial.exists():
        return 0, None
    noted = _noted_version(partial)
    same_address = noted is not None and noted.address == _hash_of_address(remote)
    if remote.sha256 is None and not same_address:
        # Nothing would show that it is of another file.
        _discard(partial)
        return 0, None
    return partial.stat().st_size, noted if same_address else None


def _fetch(remote: RemoteFile, partial: Path) -> None:
    """Append what is missing of the file to `partial`."""
    import requests

    have, noted = _part_to_go_on_with(remote, partial)
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and noted is not None and noted.condition:
        # Of a file that has changed since, the server sends the whole.
        headers["If-Range"] = noted.condition
    # A server may otherwise compress, and the range would be one of the compressed bytes.
    headers["Accept-Encoding"] = "identity"
    try:
        with requests.get(
            remote.url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS
        ) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                # Complete already, or longer than the file is now: the checksum will tell.
                if response.headers.get("Content-Range") == f"bytes */{have}":
                    return
                _discard(partial)
                raise _TransientError("the partial file is longer than the file")
            if response.status_code in _RETRY_STATUS:
                raise _TransientError(f"server answers {response.status_code}")
            if response.status_code not in (requests.codes.ok, requests.codes.partial_content):
                gone = response.status_code in _GONE_STATUS
                raise (_NoSuchFileError if gone else ModelError)(
                    f"{without_secrets(remote.url)}: server answers {response.status_code} "
                    f"{response.reason}; check the address and your rights, or put the file at "
                    f"{partial.with_suffix('')}"
                )
            version = _version(remote, response)
            resumed = response.status_code == requests.codes.partial_content
            if not resumed:
                have = 0
                # Before the first byte: none is ever of a version that is not known.
                partial.unlink(missing_ok=True)
                write_json(_version_note(partial), dataclasses.asdict(version))
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                _discard(partial)
                raise _TransientError("the server sent another part than asked for")
            elif noted is not None and not noted.may_be(version):
                _discard(partial)
                raise _TransientError("the file has changed meanwhile")
            length = response.headers.get("Content-Length")
            expected = have + int(length) if length is not None else None
            _save(response, partial, have=have, expected=expected, name=remote.name)
    except requests.RequestException as error:
        raise _TransientError(type(error).__name__) from None
    if expected is not None and partial.stat().st_size != expected:
        raise _TransientError(f"got {partial.stat().st_size} of {expected} bytes")


def _save(
    response: "requests.Response", partial: Path, *, have: int, expected: int | None, name: str
) -> None:
    with (
        partial.open("ab" if have else "wb") as file,
        progress_bar(f"download {name} (kB)", (expected or 0) // 1024) as advance,
    ):
        advance(have // 1024, "")
        for block in response.iter_content(_BLOCK_BYTES):
            file.write(block)
            advance(len(block) // 1024, "")
        file.flush()
        os.fsync(file.fileno())


def _verify(remote: RemoteFile, partial: Path) -> None:
    if remote.sha256 is None:
        return
    digest = sha256_of_file(partial)
    if digest != remote.sha256:
        # Nothing of it can be trusted: the next try starts from nothing.
        _discard(partial)
        raise _TransientError(f"sha256 {digest} instead of {remote.sha256}")
