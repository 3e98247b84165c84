"""Google Cloud Storage: a bundle at a ``gs://`` URI, kept in the cache."""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from tagger.bundle import DESCRIPTION, Bundle
from tagger.download import cache_folder
from tagger.errors import ModelError
from tagger.files import atomic_folder, content_hash, write_bytes

_TIMEOUT_SECONDS = 60
# Names that Cloud Storage allows.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*[a-z0-9]")


def _client() -> Any:
    """Client with the user's Application Default Credentials; none for an emulator."""
    from google.auth import exceptions
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return storage.Client(project="emulator", credentials=AnonymousCredentials())
    try:
        return storage.Client()
    except exceptions.DefaultCredentialsError:
        # Public buckets need none.
        return storage.Client.create_anonymous_client()


def fetch_bundle(uri: str) -> Bundle:
    """Bundle at a URI, downloaded if the cache does not hold this version of it.

    Parameters
    ----------
    uri : str
        ``gs://bucket/folder``.

    Returns
    -------
    Bundle
        Every file's checksum is that of the bundle's description.

    Raises
    ------
    ModelError
        If there is no bundle, it cannot be read, or a file arrives damaged.
    """
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption
    from requests import RequestException

    bucket_name, _, prefix = uri.removeprefix("gs://").strip("/").partition("/")
    if not _BUCKET.fullmatch(bucket_name) or ".." in PurePosixPath(prefix).parts:
        raise ModelError(f"{uri}: not a URI of a bundle; write gs://BUCKET/FOLDER")
    root = cache_folder() / "bundles" / content_hash(uri.encode())[:8]
    try:
        bucket = _client().bucket(bucket_name)

        def download(name: str) -> bytes:
            path = f"{prefix}/{name}" if prefix else name
            content: bytes = bucket.blob(path).download_as_bytes(timeout=_TIMEOUT_SECONDS)
            return content

        description = download(DESCRIPTION)
        if not _is_cached(root, description):
            with atomic_folder(root) as folder:
                try:
                    write_bytes(folder / DESCRIPTION, description)
                    # Its names are checked before a file is written: none leads out of the folder.
                    for name in Bundle(folder).checksums:
                        write_bytes(folder / name, download(name))
                    Bundle(folder).verify()
                except ModelError as error:
                    # The folder will be gone.
                    raise ModelError(str(error).replace(str(folder), uri)) from None
    except DataCorruption:
        raise ModelError(f"{uri}: a file arrived damaged; try again") from None
    except (exceptions.GoogleAPIError, GoogleAuthError, RequestException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(
            f"{uri}: no bundle can be read there ({reason}); check the address and your rights "
            "(gcloud auth application-default login)"
        ) from None
    except OSError as error:
        raise ModelError(
            f"{root}: cannot be written ({error.strerror}); check disk space and rights, or set "
            "TAGGER_CACHE to another folder"
        ) from None
    return Bundle(root)


def _is_cached(root: Path, description: bytes) -> bool:
    """Whether the cache holds this version, undamaged."""
    try:
        if (root / DESCRIPTION).read_bytes() != description:
            return False
        Bundle(root).verify()
    except (OSError, ModelError):
        return False
    return True
