"""What makes one file of another that is nearly the same: bytes to copy, and a few that are new."""

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tagger.base.files import sha256_of_file

_BLOCK_BYTES = 1 << 20
# Between what both files begin and end with, so much is looked through at most: covers and fields.
_MOST_BETWEEN = 1 << 25
# What is equal for so long is copied.
_COPIED_BYTES = 32
_MOST_NEW_BYTES = 1 << 16
# A delta that says more than this was made by nobody of good will.
_MOST_TEXT = 1 << 20

# A stretch of the source by offset and length, or new bytes.
Step = tuple[int, int] | bytes


def delta_between(source: Path, target: Path) -> str | None:
    """Say how `target` is made of `source`.

    Parameters
    ----------
    source, target : Path
        Files that differ little.

    Returns
    -------
    str or None
        For `apply_delta`; None where more than 64 kB would be new.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    with source.open("rb") as old, target.open("rb") as new:
        n_old, n_new = source.stat().st_size, target.stat().st_size
        start = _equal_bytes(old, new, min(n_old, n_new))
        end = _equal_bytes(old, new, min(n_old, n_new) - start, from_end=(n_old, n_new))
        if max(n_old, n_new) - start - end > _MOST_BETWEEN:
            return None
        old.seek(start)
        new.seek(start)
        between = _steps(old.read(n_old - start - end), new.read(n_new - start - end))
        if between is None:
            return None
    digest = sha256_of_file(target)
    moved: list[Step] = [
        step if isinstance(step, bytes) else (start + step[0], step[1]) for step in between
    ]
    steps = [
        base64.b64encode(step).decode() if isinstance(step, bytes) else step
        for step in ((0, start), *moved, (n_old - end, end))
    ]
    text = json.dumps({"sha256": digest, "steps": steps}, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def apply_delta(source: Path, delta: str, target: Path) -> bool:
    """Make a file of another one.

    Parameters
    ----------
    source : Path
        The file that it was said of.
    delta : str
        From `delta_between`.
    target : Path
        Where to.

    Returns
    -------
    bool
        False where the source is another file than then, or the delta is damaged; what is in
        `target` is of no use then.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    """
    size, digest = source.stat().st_size, hashlib.sha256()
    try:
        unpacked = zlib.decompressobj().decompress(base64.b64decode(delta), _MOST_TEXT)
        content = json.loads(unpacked)
        steps, wanted = list(_read(content["steps"], size)), content["sha256"]
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError, zlib.error):
        return False
    with source.open("rb") as old, target.open("wb") as new:
        for step in steps:
            for block in _blocks(old, step):
                digest.update(block)
                new.write(block)
    return bool(digest.hexdigest() == wanted)


def _read(steps: Any, size: int) -> Iterator[Step]:
    """Check steps that somebody else may have written."""
    left = 2 * size
    for step in steps:
        if isinstance(step, str):
            yield base64.b64decode(step)
            continue
        at, length = (int(number) for number in step)
        left -= length
        if min(at, length) < 0 or at + length > size or left < 0:
            raise ValueError("copies what is not there")
        yield at, length


def _blocks(file: BinaryIO, step: Step) -> Iterator[bytes]:
    if isinstance(step, bytes):
        yield step
        return
    at, left = step
    file.seek(at)
    while left > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
        yield block
        left -= len(block)


def _equal_bytes(
    old: BinaryIO, new: BinaryIO, most: int, *, from_end: tuple[int, int] | None = None
) -> int:
    """Count the bytes with which both begin, or with which both end."""
    n_equal = 0
    while n_equal < most:
        length = min(_BLOCK_BYTES, most - n_equal)
        places = (n_equal, n_equal)
        if from_end is not None:
            places = (from_end[0] - n_equal - length, from_end[1] - n_equal - length)
        blocks = []
        for file, place in zip((old, new), places, strict=True):
            file.seek(place)
            block = file.read(length)
            blocks.append(block if from_end is None else block[::-1])
        same = _common(*blocks)
        n_equal += same
        if same < length:
            break
    return n_equal


def _common(one: bytes, other: bytes) -> int:
    """Length of what two texts begin with: by halves, as bytes are compared fast as a whole."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _steps(old: bytes, new: bytes) -> list[Step] | None:
    """Find stretches of `new` in `old`; None where too much of it is in none."""
    places = {
        old[at : at + _COPIED_BYTES]: at
        for at in range(len(old) - _COPIED_BYTES, -1, -_COPIED_BYTES)
    }
    steps: list[Step] = []
    at = begun = n_new = 0
    while at < len(new):
        place = places.get(new[at : at + _COPIED_BYTES])
        if place is None:
            at += 1
            n_new += 1
            if n_new > _MOST_NEW_BYTES:
                return None
            continue
        while at > begun and place > 0 and old[place - 1] == new[at - 1]:
            at, place, n_new = at - 1, place - 1, n_new - 1
        if at > begun:
            steps.append(new[begun:at])
        length = _common_at(old, place, new, at)
        steps.append((place, length))
        at = begun = at + length
    if at > begun:
        steps.append(new[begun:at])
    return steps


def _common_at(old: bytes, place: int, new: bytes, at: int) -> int:
    length, step = 0, 4 * _COPIED_BYTES
    while True:
        one, other = (
            text[offset + length : offset + length + step]
            for text, offset in ((old, place), (new, at))
        )
        same = _common(one, other)
        length += same
        if same < step:
            return length
        step = min(2 * step, _BLOCK_BYTES)
