"""The folder of what was fetched or copied, and can be again."""

import os
from pathlib import Path

from tagger.base.errors import ConfigError


def cache_folder() -> Path:
    """Folder of downloaded files: ``$TAGGER_CACHE``, or ``tagger`` in the user's cache."""
    configured = os.environ.get("TAGGER_CACHE")
    if configured:
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "tagger"
    try:
        return Path.home() / ".cache" / "tagger"
    except RuntimeError:
        raise ConfigError(
            "this user has no home folder, in which models would be kept; set TAGGER_CACHE to a "
            "folder"
        ) from None
