"""Where a study keeps what it has found of a variant."""

import json
from pathlib import Path
from typing import Any

from tagger.base.files import json_hash
from tagger.config import Config

SCORES, RESULT = "scores.npz", "result.json"
# Windows that networks are trained on, for all variants.
STORES = "stores"
# 2: clips that were tested in each fold
SCHEMA_VERSION = 2


def folder_of(folder: Path, name: str) -> Path:
    """Folder of a variant."""
    return folder / "variants" / name.replace(",", "").replace(" ", "_")


def digest(config: Config) -> str:
    """Digest of all that decides what is found."""
    return json_hash(config.to_dict())


def known_result(folder: Path, name: str, config: Config) -> dict[str, Any] | None:
    """Read what is kept of a variant; None where there is nothing, or of another config."""
    try:
        content = json.loads((folder_of(folder, name) / RESULT).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        return None
    return content if content.get("config_hash") == digest(config) else None
