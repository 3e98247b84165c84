"""The file that says what is in a store, read and written clip by clip.

It is one JSON object, of which ``clips`` is by far the largest part. As text and as objects of
Python that part would take several kilobytes a clip, all at once.
"""

import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from tagger.base.addresses import is_remote
from tagger.base.files import atomic_write

MANIFEST = "manifest.json"
_BLOCK = 1 << 18
# More characters without a whole clip are damage: each further block would have all be read again.
_MAX_HELD = 1 << 22
# A quotation mark inside a text has a backslash before it: this is no text's content.
_CLIPS = re.compile(r'(?<!\\)"clips"\s*:\s*\[')
_SPACE = re.compile(r"\s*")
_decoder = json.JSONDecoder()


_HEADER = {"schema_version", "spec", "tags"}


class _OtherLayoutError(Exception):
    pass


def read_manifest(path: Path) -> tuple[Any, Iterator[Any]]:
    """Read a manifest, of any layout that JSON allows.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    header : Any
        The manifest without its key ``clips``, or what is there instead of one.
    clips : iterator
        What it holds under ``clips``. It raises a ValueError where that is no JSON, and a KeyError
        or a TypeError if there is no such list.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no JSON.
    """
    parts = _not_too_deep(_read_in_parts(path))
    try:
        return next(parts), parts
    except _OtherLayoutError:
        content = next(_not_too_deep(_whole(path)))
        return content, (clip for clips in (content,) for clip in clips["clips"])


def _whole(path: Path) -> Iterator[Any]:
    yield json.loads(path.read_text(encoding="utf-8"))


def _not_too_deep(values: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from values
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _open(path: Path) -> TextIO:
    if is_remote(path):
        # In one request.
        return io.TextIOWrapper(io.BytesIO(path.read_bytes()), encoding="utf-8")
    return path.open(encoding="utf-8")


def _read_in_parts(path: Path) -> Iterator[Any]:
    """Header, then clips, of a manifest in which ``clips`` comes last."""
    with _open(path) as file:
        text = ""
        while (found := _CLIPS.search(text)) is None:
            block = file.read(_BLOCK)
            if not block or len(text) > _MAX_HELD:
                raise _OtherLayoutError
            text += block
        try:
            header = json.loads(text[: found.start()] + '"": 0}')
        except ValueError:
            # Perhaps a key of something inside.
            raise _OtherLayoutError from None
        if not header.keys() >= _HEADER:
            raise _OtherLayoutError
        del header[""]
        yield header
        text = text[found.end() :]
        at, n_clips = _after_space(text, 0), 0
        while True:
            try:
                if text[at] == "]":
                    break
                if n_clips:
                    if text[at] != ",":
                        raise ValueError(f"no comma after clip {n_clips}")
                    clip, end = _decoder.raw_decode(text, _after_space(text, at + 1))
                else:
                    clip, end = _decoder.raw_decode(text, at)
                end = _after_space(text, end)
                # What ends with the block may go on in the next.
                _ = text[end]
            except (IndexError, json.JSONDecodeError):
                block = file.read(_BLOCK)
                if not block:
                    raise ValueError("it ends too early") from None
                if len(text) - at > _MAX_HELD:
                    raise ValueError(f"no whole clip after clip {n_clips}") from None
                text, at = text[at:] + block, 0
                at = _after_space(text, at)
                continue
            yield clip
            at, n_clips = end, n_clips + 1
        json.loads('{"": 0' + text[at + 1 :] + file.read())


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


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
