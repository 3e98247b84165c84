"""The folder of what was fetched or copied, and can be again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Folder of downloaded files: ``$TAGGER_CACHE``, or ``tagger`` in the user's cache."""
    configured = os.environ.get("TAGGER_CACHE")
    if configured:
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tagger"
