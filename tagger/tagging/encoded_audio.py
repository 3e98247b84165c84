"""The encoded audio of a file, apart from all that is told about it: the same before and after.

Programs that write tags move the audio within its file, and have to correct what points to it.
Where one of them did not, players find other bytes or none; the digests then differ. Nothing is
decoded: that would take long, and not every decoder is at hand.
"""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from preprocess.signal.contents import after_id3, before_trailing_tags

# A piece of a file: where it starts, and its length.
Piece = tuple[int, int]

_BLOCK_BYTES = 1 << 20
_CONTAINERS = frozenset(
    {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts"}
)
# An Ogg stream of Vorbis or Opus has its comments in its second packet.
_COMMENTS = 1


def encoded_audio_digest(path: Path) -> str:
    """Digest of the encoded audio of a file, as players would find it.

    Parameters
    ----------
    path : Path
        wav, aiff, flac, ogg, opus, MP4, or mp3 and other streams of frames.

    Returns
    -------
    str
        Equal for two files whose audio is equal byte by byte, whatever else they hold.

    Raises
    ------
    ValueError
        If the file's structure is damaged.
    OSError
        If the file cannot be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        start = after_id3(file)
        magic = _at(file, start, 8)
        if magic[:4] in (b"RIFF", b"FORM", b"RF64"):
            pieces = _chunks(file, start, size)
        elif magic[:4] == b"fLaC":
            pieces = _flac(file, start, size)
        elif magic[:4] == b"OggS":
            return _ogg_digest(file, start, size)
        elif magic[4:] == b"ftyp":
            pieces = _mp4(file, size)
        else:
            pieces = iter([(start, before_trailing_tags(file, size) - start)])
        left = 2 * size
        for at, length in pieces:
            there = max(0, min(length, size - at))
            left -= there
            if at < 0 or left < 0:
                raise ValueError("what points to its audio leads elsewhere")
            # The same bytes in other pieces are other audio.
            digest.update(struct.pack(">Q", there))
            _update(digest, file, at, there)
    return digest.hexdigest()


def _at(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


def _update(digest: "hashlib._Hash", file: BinaryIO, at: int, length: int) -> None:
    file.seek(at)
    while length > 0:
        block = file.read(min(length, _BLOCK_BYTES))
        if not block:
            return
        digest.update(block)
        length -= len(block)


def _chunks(file: BinaryIO, start: int, size: int) -> Iterator[Piece]:
    """Format and samples of a wav or aiff file."""
    order = ">" if _at(file, start, 4) == b"FORM" else "<"
    position = start + 12
    while position + 8 <= size:
        name, length = struct.unpack(order + "4sI", _at(file, position, 8))
        if name in (b"fmt ", b"data", b"COMM", b"SSND", b"ds64", b"fact"):
            yield position, 8 + min(length, size - position - 8)
        position += 8 + length + (length & 1)


def _flac(file: BinaryIO, start: int, size: int) -> Iterator[Piece]:
    """Find the block that tells the format, and all frames."""
    position, last = start + 4, False
    while not last:
        header = _at(file, position, 4)
        if len(header) < 4:
            raise ValueError("its metadata has no end")
        last = bool(header[0] & 0x80)
        length = int.from_bytes(header[1:], "big")
        if header[0] & 0x7F == 0:
            yield position + 4, length
        position += 4 + length
    yield position, before_trailing_tags(file, size) - position


def _ogg_digest(file: BinaryIO, start: int, size: int) -> str:
    """Digest of all packets but the comments: the pages that hold them may be others."""
    digests: dict[int, hashlib._Hash] = {}
    packets: dict[int, int] = {}
    position = start
    while position + 27 <= size:
        header = _at(file, position, 27)
        if header[:4] != b"OggS":
            raise ValueError("its pages do not follow one another")
        serial = int.from_bytes(header[14:18], "little")
        segments = file.read(header[26])
        digest = digests.setdefault(serial, hashlib.sha256())
        number = packets.setdefault(serial, 0)
        for length in segments:
            content = file.read(length)
            if number != _COMMENTS:
                digest.update(content)
            if length < 255:
                if number != _COMMENTS:
                    digest.update(struct.pack(">I", number))
                number += 1
        packets[serial] = number
        position = file.tell()
    whole = hashlib.sha256()
    for digest in digests.values():
        whole.update(digest.digest())
    return whole.hexdigest()


# ---- MP4 (ISO/IEC 14496-12) ---------------------------------------------------------------------


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Boxes at one level: name, where the content starts, and where it ends."""
    while start + 8 <= end:
        length, name = struct.unpack(">I4s", _at(file, start, 8))
        content = start + 8
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
            content += 8
        elif length == 0:
            length = end - start
        if length < content - start:
            raise ValueError(f"a box of {length} bytes")
        yield name, content, min(start + length, end)
        start += length


def _mp4(file: BinaryIO, size: int) -> Iterator[Piece]:
    """Find the samples of all tracks: those in the tables, then those in fragments."""
    defaults: dict[int, int] = {}
    for name, start, end in _boxes(file, 0, size):
        if name == b"moov":
            for inner, inner_start, inner_end in _boxes(file, start, end):
                if inner == b"trak":
                    yield from _chunks_of_track(file, inner_start, inner_end)
                elif inner == b"mvex":
                    for box, at, _ in _boxes(file, inner_start, inner_end):
                        if box == b"trex":
                            track, _, _, length = struct.unpack(">4I", _exactly(file, at + 4, 16))
                            defaults[track] = length
        elif name == b"moof":
            # A box of eight bytes of header, as its content starts behind that.
            yield from _fragments(file, start, end, start - 8, defaults)


def _exactly(file: BinaryIO, position: int, length: int) -> bytes:
    content = _at(file, position, length)
    if len(content) < length:
        raise ValueError("a box is cut off")
    return content


def _tables(file: BinaryIO, start: int, end: int) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, at, until in _boxes(file, start, end):
        if name in _CONTAINERS:
            found |= _tables(file, at, until)
        elif name in (b"stco", b"co64", b"stsc", b"stsz"):
            found[name] = _at(file, at, until - at)
    return found


def _numbers(table: bytes, start: int, count: int, *, width: int = 4) -> npt.NDArray[np.int64]:
    content = table[start : start + count * width]
    if len(content) < count * width:
        raise ValueError("a table is shorter than it says")
    return np.frombuffer(content, dtype=f">u{width}").astype(np.int64)


def _count(table: bytes, at: int) -> int:
    return int(_numbers(table, at, 1)[0])


def _chunks_of_track(file: BinaryIO, start: int, end: int) -> Iterator[Piece]:
    tables = _tables(file, start, end)
    if b"stsz" not in tables or b"stsc" not in tables or not tables.keys() & {b"stco", b"co64"}:
        return
    wide = b"co64" in tables
    offsets_table = tables[b"co64" if wide else b"stco"]
    offsets = _numbers(offsets_table, 8, _count(offsets_table, 4), width=8 if wide else 4)
    runs = _numbers(tables[b"stsc"], 8, 3 * _count(tables[b"stsc"], 4)).reshape(-1, 3)
    each, n_samples = _count(tables[b"stsz"], 4), _count(tables[b"stsz"], 8)
    if not len(offsets) or not len(runs):
        return
    first_of_run = np.searchsorted(runs[:, 0], np.arange(1, len(offsets) + 1), side="right") - 1
    per_chunk = runs[np.maximum(first_of_run, 0), 1]
    ends = np.minimum(np.cumsum(per_chunk), n_samples)
    starts = np.append(0, ends[:-1])
    if each:
        lengths = (ends - starts) * each
    else:
        sums = np.append(0, np.cumsum(_numbers(tables[b"stsz"], 12, n_samples)))
        lengths = sums[ends] - sums[starts]
    yield from zip(offsets.tolist(), lengths.tolist(), strict=True)


def _fragments(
    file: BinaryIO, start: int, end: int, moof: int, defaults: dict[int, int]
) -> Iterator[Piece]:
    """Find the samples of one fragment; a run without an offset goes on behind the last."""
    at = moof
    for name, inner_start, inner_end in _boxes(file, start, end):
        if name != b"traf":
            continue
        base, each = moof, 0
        for box, content, until in _boxes(file, inner_start, inner_end):
            table = _at(file, content, until - content)
            flags = _count(table, 0) & 0xFFFFFF if len(table) >= 4 else 0
            if box == b"tfhd":
                each = defaults.get(_count(table, 4), 0)
                fields = 8
                if flags & 0x1:
                    base = int(_numbers(table, fields, 1, width=8)[0])
                    fields += 8
                fields += 4 * bool(flags & 0x2) + 4 * bool(flags & 0x8)
                if flags & 0x10:
                    each = _count(table, fields)
                at = base
            elif box == b"trun":
                n_samples, fields = _count(table, 4), 8
                if flags & 0x1:
                    at = base + int(np.int32(np.uint32(_count(table, fields))))
                    fields += 4
                fields += 4 * bool(flags & 0x4)
                columns = sum(bool(flags & bit) for bit in (0x100, 0x200, 0x400, 0x800))
                if flags & 0x200:
                    rows = _numbers(table, fields, n_samples * columns).reshape(-1, columns)
                    length = int(rows[:, bool(flags & 0x100) * 1].sum())
                else:
                    length = n_samples * each
                yield at, length
                at += length
