"""A published file from elsewhere than where it is published: a folder, a file, a mirror."""

from pathlib import Path

from tagger.base.addresses import without_secrets
from tagger.base.cache import cache_folder
from tagger.base.errors import ModelError
from tagger.base.files import sha256_of_file

_ADDRESSES = ("https://", "http://", "gs://")


def file_from(source: str, name: str, *, sha256: str | None) -> Path:
    """Find a published file at a place that the user names.

    Parameters
    ----------
    source : str
        The file itself, the folder that holds it, or the address (https or gs) of either.
    name : str
        What it is called.
    sha256 : str or None
        Its checksum, where it is known.

    Returns
    -------
    Path
        The file; from an address, a copy in the cache.

    Raises
    ------
    ModelError
        If it is not there, or is another one.
    """
    if source.startswith(_ADDRESSES):
        return _fetched(source, name, sha256=sha256)
    path = Path(source)
    path = path / name if path.is_dir() else path
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give {name}, or the folder that holds it")
    if sha256 is not None and (found := sha256_of_file(path)) != sha256:
        raise ModelError(
            f"{path}: has sha256 {found} instead of {sha256}; it is not the published {name}"
        )
    return path


def _fetched(source: str, name: str, *, sha256: str | None) -> Path:
    from tagger.cloud.download import fetch_file

    path = cache_folder() / "published" / name
    if path.exists() and sha256 is not None and sha256_of_file(path) == sha256:
        return path
    address = source if source.endswith(name) else f"{source.rstrip('/')}/{name}"
    try:
        if not fetch_file(address, path, sha256=sha256):
            raise ModelError(f"{without_secrets(address)}: no such file; check the address")
    except OSError as error:
        raise ModelError(
            f"{path.parent}: cannot be written ({error.strerror}); check disk space and rights, or "
            "set TAGGER_CACHE to another folder"
        ) from None
    return path
