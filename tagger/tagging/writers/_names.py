"""Names of outputs after those of inputs: one for each, and all of them inside one folder."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tagger.base.files import content_hash
from tagger.tagging.inputs import Input

# Longest name that common file systems take.
_LONGEST_NAME_BYTES = 255
_DIGEST_CHARACTERS = 8
# Whatever follows the first dot of such a name.
_RESERVED = frozenset(
    ["CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))]
)


def output_names(inputs: Sequence[Input], suffix: str) -> dict[str, Path]:
    """Name an output for each input.

    Parameters
    ----------
    inputs : sequence of Input
        What will be tagged.
    suffix : str
        Of the outputs, with its dot.

    Returns
    -------
    dict of str to Path
        Of each input's path, the relative path of its output: below the folder that was given as
        the input lies, with another suffix. Names that would be the same, also on file systems
        that do not tell upper from lower case, that are also a folder's, or that Windows keeps
        for devices, get a digest of the input's full path.
    """
    plain = {str(item.path): _relative(item).with_suffix(suffix) for item in inputs}
    counts = Counter(_folded(name) for name in plain.values())
    folders = {_folded(folder) for name in plain.values() for folder in name.parents}
    names = {
        path: name
        if counts[_folded(name)] == 1
        and _folded(name) not in folders
        and len(os.fsencode(name.name)) <= _LONGEST_NAME_BYTES
        and name.name.partition(".")[0].strip().upper() not in _RESERVED
        else _with_digest(name, path, _DIGEST_CHARACTERS)
        for path, name in plain.items()
    }
    # A name may look like another one with its digest.
    counts = Counter(_folded(name) for name in names.values())
    return {
        path: name if counts[_folded(name)] == 1 else _with_digest(plain[path], path, None)
        for path, name in names.items()
    }


def _relative(item: Input) -> Path:
    """Path of the input below the folder it was found in, without any way out of it."""
    path = item.path
    if path == Path("-"):
        return Path("stdin")
    if item.base is not None and path.is_relative_to(item.base):
        relative = path.relative_to(item.base)
    else:
        relative = Path(path.name)
    parts = [part for part in relative.parts if part not in ("..", relative.anchor)]
    return Path(*parts) if parts else Path("unnamed")


def _folded(name: Path) -> str:
    return unicodedata.normalize("NFC", str(name)).casefold()


def _with_digest(name: Path, path: str, length: int | None) -> Path:
    digest = content_hash(os.fsencode(Path(path).absolute()))[:length]
    ending = f"-{digest}{name.suffix}"
    room = _LONGEST_NAME_BYTES - len(os.fsencode(ending))
    # Cut between characters, never inside one.
    stem = os.fsencode(name.stem)[:room].decode("utf-8", "ignore")
    return name.with_name(stem + ending)
