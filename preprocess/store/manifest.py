"""The file that says what is in a store: one JSON object, with a line for each clip."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tagger.base.files import atomic_write

MANIFEST = "manifest.json"


def read_manifest(path: Path) -> Any:
    """Read a manifest, which may hold any JSON.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_manifest(path: Path, header: dict[str, Any], clips: Iterable[dict[str, Any]]) -> None:
    """Write a manifest atomically, a line for each clip.

    Parameters
    ----------
    path : Path
        The file.
    header : dict
        All but the clips.
    clips : iterable of dict
        What it holds under ``clips``.
    """
    with atomic_write(path) as file:
        start = json.dumps(header, indent=2, ensure_ascii=False).removesuffix("\n}")
        file.write(f'{start},\n  "clips": ['.encode())
        separator = "\n    "
        for clip in clips:
            file.write((separator + json.dumps(clip, ensure_ascii=False)).encode())
            separator = ",\n    "
        file.write(b"\n  ]\n}\n")
