"""Where stores, runs and audio are: local folders, and addresses such as ``gs://bucket/folder``.

A local name is a plain `pathlib.Path`. An address is a `upath.UPath`, which has the same methods:
code that only reads, writes whole files and joins names need not know which of them it has.
"""

import contextlib
import importlib.util
import re
from pathlib import Path
from typing import cast

from tagger.base.addresses import ADDRESS, is_remote, without_secrets
from tagger.base.errors import ConfigError

# pathlib makes gs:/bucket of gs://bucket; of a Path, the command line's, that is undone.
_COLLAPSED = re.compile(r"(gs|memory|file):/(?!/)(.*)", re.DOTALL)
# Names that Cloud Storage allows.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*[a-z0-9]")
_SCHEMES = ("gs", "memory", "file")


def file_or_object(name: str | Path) -> Path:
    """Path of a file, or of an object where the name is an address of a bucket.

    All other names are local ones, also those that look like addresses of another kind, or of a
    bucket that cannot be: as the one bad file that each is, it fails later, by its name.

    Raises
    ------
    MissingExtraError
        If the extra ``cloud`` is not installed and such an address is given.
    """
    in_bucket = is_remote(name) or _COLLAPSED.fullmatch(str(name)) is not None
    if in_bucket and str(name).lower().startswith(("gs:", "memory:")):
        with contextlib.suppress(ConfigError):
            return location(name)
    return Path(name)


def require_local(path: Path, what: str) -> None:
    """Refuse an address where files are written piece by piece or gone on with.

    Parameters
    ----------
    path : Path
        What the user gave, e.g. ``what``'s value.
    what : str
        The option or argument.

    Raises
    ------
    ConfigError
        If it is one.
    """
    if is_remote(location(path)):
        raise ConfigError(
            f"{what} {location(path)}: is written piece by piece, which a bucket cannot; give a "
            "local name and copy the result (gcloud storage cp)"
        )


def location(text: str | Path) -> Path:
    """Path of a local name or of an address.

    Parameters
    ----------
    text : str or Path
        A local name, ``gs://bucket/folder``, ``memory://folder`` or ``file:///folder``; what this
        function has returned is returned as it is.

    Returns
    -------
    Path
        Of an address a `upath.UPath`, which is no `pathlib.Path` but is used as one.

    Raises
    ------
    ConfigError
        If it is an address of another scheme, or none that can be.
    MissingExtraError
        If the extra ``cloud`` is not installed and an address is given.
    """
    if not isinstance(text, str):
        if is_remote(text):
            return text
        found = _COLLAPSED.fullmatch(str(text))
        if found is None:
            return text
        # Of file:/folder both slashes are the folder's.
        text = f"{found[1]}://{'/' if found[1] == 'file' else ''}{found[2]}"
    found = ADDRESS.fullmatch(text)
    if found is None:
        return Path(text)
    scheme, rest = found[1].lower(), found[2]
    if scheme not in _SCHEMES:
        raise ConfigError(
            f"{without_secrets(text)}: unknown kind of address; give a local folder or "
            "gs://BUCKET/FOLDER"
        )
    if scheme == "file":
        return Path(rest)
    parts = [part for part in rest.split("/") if part not in ("", ".")]
    # Two colons would chain file systems.
    if ".." in parts or "::" in rest:
        raise ConfigError(
            f"{without_secrets(text)}: an address has no '..' and no '::'; write it without"
        )
    if scheme == "gs" and (rest.startswith("/") or not parts or not _BUCKET.fullmatch(parts[0])):
        raise ConfigError(
            f"{without_secrets(text)}: not an address of a bucket; write gs://BUCKET/FOLDER"
        )
    return _remote(scheme, "/".join(parts))


def _remote(scheme: str, name: str) -> Path:
    try:
        if scheme == "gs":
            # Known before any work is done; imported, it would take a fifth of a second.
            if importlib.util.find_spec("google.cloud.storage") is None:
                raise ModuleNotFoundError(name="google.cloud.storage")
            from tagger.cloud.gcs import CloudPath

            return cast(Path, CloudPath(f"gs://{name}", protocol="gs"))
        from upath import UPath

        return cast(Path, UPath(f"{scheme}://{name}"))
    except ModuleNotFoundError as error:
        from tagger.base.extras import explain

        raise explain(error) or error from None
