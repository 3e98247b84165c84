"""Downloads that survive dropped connections: resume, retries, checksum, cache."""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tagger.errors import ModelError
from tagger.files import content_hash, sha256_of_file, sync_folder
from tagger.progress import notice, progress_bar

if TYPE_CHECKING:
    import requests

# What has arrived of a block is lost when the connection breaks in its middle.
_BLOCK_BYTES = 1 << 16
_TIMEOUT_SECONDS = 30
_FIRST_WAIT_SECONDS = 1.0
_RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


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


def cache_folder() -> Path:
    """Folder of downloaded files: ``$TAGGER_CACHE``, or ``tagger`` in the user's cache."""
    configured = os.environ.get("TAGGER_CACHE")
    if configured:
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tagger"


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
    partial = folder / f"{remote.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _fetch_with_retries(remote, partial, path, n_tries=n_tries)
        partial.replace(path)
        sync_folder(folder)
    except OSError as error:
        raise ModelError(
            f"{folder}: cannot be written ({error.strerror}); check disk space and rights, or set "
            "TAGGER_CACHE to another folder"
        ) from None
    if remote.sha256 is None:
        notice(f"{path}: no checksum is published; its sha256 is {sha256_of_file(path)}")
    return path


def _fetch_with_retries(remote: RemoteFile, partial: Path, path: Path, *, n_tries: int) -> None:
    wait = _FIRST_WAIT_SECONDS
    for attempt in range(1, n_tries + 1):
        try:
            _fetch(remote, partial)
            _verify(remote, partial)
            return
        except _TransientError as error:
            if attempt == n_tries:
                raise ModelError(
                    f"{remote.url}: download failed after {n_tries} tries ({error}); "
                    f"try again later, or put the file at {path}"
                ) from None
            notice(f"{remote.url}: {error}; trying again in {wait:.0f} s")
            time.sleep(wait)
            wait *= 2


def _fetch(remote: RemoteFile, partial: Path) -> None:
    """Append what is missing of the file to `partial`."""
    import requests

    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
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
                partial.unlink()
                raise _TransientError("the partial file is longer than the file")
            if response.status_code in _RETRY_STATUS:
                raise _TransientError(f"server answers {response.status_code}")
            if response.status_code not in (requests.codes.ok, requests.codes.partial_content):
                raise ModelError(
                    f"{remote.url}: server answers {response.status_code} {response.reason}; "
                    f"check the address, or put the file at {partial.with_suffix('')}"
                )
            resumed = response.status_code == requests.codes.partial_content
            if not resumed:
                have = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                partial.unlink(missing_ok=True)
                raise _TransientError("the server sent another part than asked for")
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
    with partial.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != remote.sha256:
        # Nothing of it can be trusted: the next try starts from nothing.
        partial.unlink()
        raise _TransientError(f"sha256 {digest} instead of {remote.sha256}")
