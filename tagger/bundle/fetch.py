"""Bundles in a bucket, as checked copies in the cache."""

from pathlib import Path

from tagger.base.addresses import without_secrets
from tagger.base.cache import cache_folder
from tagger.base.errors import ConfigError, ModelError
from tagger.base.files import atomic_folder, content_hash, write_bytes
from tagger.bundle.read import DESCRIPTION, Bundle
from tagger.cloud.gcs_client import DamagedOnItsWayError
from tagger.cloud.locations import location


def fetch_bundle(uri: str) -> Bundle:
    """Bundle at a URI, downloaded if the cache does not hold this version of it.

    Parameters
    ----------
    uri : str
        ``gs://bucket/folder`` of a bundle, or of a training run that holds one.

    Returns
    -------
    Bundle
        Every file's checksum is that of the bundle's description.

    Raises
    ------
    ModelError
        If there is no bundle, it cannot be read, or a file arrives damaged.
    """
    try:
        address = location(uri)
    except ConfigError:
        shown = without_secrets(uri)
        raise ModelError(f"{shown}: not a URI of a bundle; write gs://BUCKET/FOLDER") from None
    uri = str(address).rstrip("/")
    try:
        try:
            description = (address / DESCRIPTION).read_bytes()
        except FileNotFoundError as error:
            try:
                description = (address / "bundle" / DESCRIPTION).read_bytes()
            except FileNotFoundError:
                raise error from None
            address, uri = address / "bundle", f"{uri}/bundle"
    except OSError as error:
        raise _unreadable(uri, error) from None
    root = cache_folder() / "bundles" / content_hash(uri.encode())[:8]
    if not _is_cached(root, description):
        try:
            _download_bundle(address, description, root=root)
        except OSError as error:
            raise ModelError(
                f"{root}: cannot be written ({error.strerror}); check disk space and rights, or "
                "set TAGGER_CACHE to another folder"
            ) from None
    return Bundle(root)


def _download_bundle(address: Path, description: bytes, *, root: Path) -> None:
    uri = str(address).rstrip("/")
    with atomic_folder(root) as folder:
        try:
            write_bytes(folder / DESCRIPTION, description)
            # Its names are checked before a file is written: none leads out of the folder.
            for name in Bundle(folder).checksums:
                try:
                    content = (address / name).read_bytes()
                except OSError as error:
                    raise _unreadable(uri, error) from None
                write_bytes(folder / name, content)
            Bundle(folder).verify()
        except ModelError as error:
            # The folder will be gone.
            raise ModelError(str(error).replace(str(folder), uri)) from None


def _unreadable(uri: str, error: OSError) -> ModelError:
    if isinstance(error, DamagedOnItsWayError):
        return ModelError(f"{uri}: a file arrived damaged; try again")
    return ModelError(
        f"{uri}: no bundle can be read there ({error.strerror}); check the address and your rights "
        "(gcloud auth application-default login)"
    )


def _is_cached(root: Path, description: bytes) -> bool:
    """Whether the cache holds this version, undamaged."""
    try:
        if (root / DESCRIPTION).read_bytes() != description:
            return False
        Bundle(root).verify()
    except (OSError, ModelError):
        return False
    return True
