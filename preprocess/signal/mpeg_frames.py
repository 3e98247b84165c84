"""Frames of an mp3 file: what its header says of them, and where they really are.

mpg123, which libsndfile uses, takes the length from the file's first frame: of its Xing header, or
of its bit rate. It is wrong for files that were joined end to end, for variable bit rates without
such a header, and behind damaged stretches. Such files are cut into streams here, each with a
header that is right (ISO 11172-3, 2.4.1.3; G. Bouvigne, "Mp3 Info Tag").
"""

import bisect
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO

from preprocess.signal.byte_ranges import FileBytes, Piece, Range
from preprocess.signal.contents import after_id3, before_trailing_tags

_BIT_RATES = {  # kbit/s of layer III by index, of MPEG 1 and of MPEG 2 and 2.5
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_RATES_HZ = (44_100, 48_000, 32_000)
_LAYER_3 = 1
_MPEG_1 = 3
_RATE_DIVISORS = {_MPEG_1: 1, 2: 2, 0: 4}
# Where damage ends, this many frames have to follow one another to be taken for audio.
_FRAMES_IN_A_ROW = 3
# A header's count may lack the frame that it stands in, and a last one that is cut.
_FRAMES_OFF = 2
_LARGEST_FRAME = 1441


@dataclass(frozen=True)
class Header:
    """Header of one frame of layer III."""

    version: int
    rate: int
    n_channels: int
    bit_rate: int
    length: int
    side_bytes: int

    def like(self, other: "Header") -> bool:
        """Tell whether both can be of one stream."""
        mine = (self.version, self.rate, self.n_channels)
        return mine == (other.version, other.rate, other.n_channels)


@dataclass
class Stream:
    """Frames that belong together.

    Attributes
    ----------
    pieces : list of Range or bytes
        A file of them that decoders read to its end.
    n_frames : int
        Frames of audio in it.
    n_missing : int
        Frames that its header promises or damaged stretches held, and that are not there.
    """

    pieces: list[Piece] = field(default_factory=list)
    n_frames: int = 0
    n_missing: int = 0


def header_at(data: bytes | FileBytes, position: int) -> Header | None:
    """Header of the frame at a position; None where there is none."""
    word = int.from_bytes(data[position : position + 4], "big")
    # The last bits say nothing of lengths and channels.
    return _parsed(word & ~0x3F)


@lru_cache(maxsize=4096)
def _parsed(word: int) -> Header | None:
    version, layer = word >> 19 & 3, word >> 17 & 3
    rate_index = word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer != _LAYER_3 or rate_index == 3:
        return None
    bit_rate = _BIT_RATES[version == _MPEG_1][word >> 12 & 15]
    if not bit_rate:
        return None
    rate = _RATES_HZ[rate_index] // _RATE_DIVISORS[version]
    n_channels = 1 if word >> 6 & 3 == 3 else 2
    unit = 144_000 if version == _MPEG_1 else 72_000
    side = {(True, 2): 32, (True, 1): 17, (False, 2): 17, (False, 1): 9}[
        version == _MPEG_1, n_channels
    ]
    crc = 0 if word >> 16 & 1 else 2
    length = unit * bit_rate // rate + (word >> 9 & 1)
    return Header(version, rate, n_channels, bit_rate, length, 4 + crc + side)


def mpeg_streams(file: BinaryIO) -> list[Stream] | None:
    """Streams of an mp3 file whose first header does not tell all of it.

    Parameters
    ----------
    file : BinaryIO
        The file; its position changes.

    Returns
    -------
    list of Stream or None
        None where a decoder that trusts the first header reads all there is, and where the file is
        no layer III.
    """
    start, data = after_id3(file), FileBytes(file)
    end = before_trailing_tags(file, len(data))
    cutter = _Cutter(data)
    cutter.cut(start, end)
    return None if cutter.is_told(start, end) else cutter.streams or None


def _promised(data: FileBytes, position: int, header: Header) -> tuple[int, int]:
    """Frames and bytes of a frame that is a Xing header; zero where it does not say."""
    at = position + header.side_bytes
    flags = int.from_bytes(data[at + 4 : at + 8], "big")
    values = [int.from_bytes(data[at + 8 + 4 * n : at + 12 + 4 * n], "big") for n in range(2)]
    if not flags & 1:
        return 0, values[0] if flags & 2 else 0
    return values[0], values[1] if flags & 2 else 0


class _Cutter:
    """Frames of a file -> streams."""

    def __init__(self, data: FileBytes) -> None:
        self._data = data
        self._tags = _tag_frames(data)
        self._ranges: list[Range] = []
        self._first: Header | None = None
        self._tag: tuple[Range, tuple[int, int]] | None = None
        self._n_frames = self._n_skipped = 0
        # Of the frames of this stream: by their first bytes.
        self._lengths: dict[bytes, int] = {}
        self._one_bit_rate = True
        # Of the stream that ended last.
        self._last_tag: tuple[Range, tuple[int, int]] | None = None
        self._damaged = False
        # Where the first frame of all stands.
        self._start: int | None = None
        self.streams: list[Stream] = []

    def cut(self, position: int, end: int) -> None:
        """Find the streams between two offsets."""
        lost = False
        while position + 4 <= end:
            header = header_at(self._data, position)
            if header is None or (lost and not _goes_on(self._data, position, end)):
                following = _next_frame(self._data, position, end)
                # What stands before the first frame or behind the last one was no audio.
                is_inside = self._n_frames > 0 and following < end
                if is_inside and not _is_tag(self._data, position):
                    self._n_skipped += following - position
                position, lost = following, True
                continue
            if position + header.length > end:
                break
            lost = False
            number = bisect.bisect_left(self._tags, position)
            is_tag = number < len(self._tags) and self._tags[number] == position
            if is_tag or (self._first and not header.like(self._first)):
                self._end()
            self._first = self._first or header
            self._start = position if self._start is None else self._start
            if is_tag:
                promised = _promised(self._data, position, header)
                self._tag = (Range(position, position + header.length), promised)
                position += header.length
            else:
                position = self._walk(position, end, self._first)
        self._end()

    def _walk(self, position: int, end: int, first: Header) -> int:
        """Take frames as long as one follows another; return where it ends."""
        start = position
        data, lengths, tags = self._data, self._lengths, self._tags
        number = bisect.bisect_right(tags, position)
        limit = tags[number] if number < len(tags) else end
        page, page_start = b"", position
        while position < limit:
            offset = position - page_start
            if offset + 4 > len(page):
                page, page_start, offset = data.page(position), position, 0
            word = page[offset : offset + 4]
            length = lengths.get(word)
            if length is None:
                header = header_at(data, position)
                if header is None or not header.like(first):
                    break
                self._one_bit_rate &= header.bit_rate == first.bit_rate
                length = lengths[word] = header.length
            if position + length > end:
                break
            position += length
            self._n_frames += 1
        self._ranges.append(Range(start, position))
        return position

    def is_told(self, start: int, end: int) -> bool:
        """Tell whether a decoder that trusts the first header reads all that was found."""
        if len(self.streams) != 1 or self._damaged or self._start != start:
            return False
        if self._last_tag is None:
            return self._one_bit_rate
        tag, (n_frames, n_bytes) = self._last_tag
        right = abs(n_frames - self.streams[0].n_frames) <= _FRAMES_OFF
        return right and tag.start == start and abs(start + n_bytes - end) <= _LARGEST_FRAME

    def _end(self) -> None:
        if self._first is not None and self._n_frames:
            self.streams.append(self._stream(self._first))
        self._ranges, self._first, self._last_tag, self._tag = [], None, self._tag, None
        self._damaged = self._n_skipped > 0
        self._lengths = {}
        self._n_frames = self._n_skipped = 0

    def _stream(self, first: Header) -> Stream:
        n_bytes = sum(r.end - r.start for r in self._ranges)
        n_lost = round(self._n_skipped * self._n_frames / n_bytes)
        if self._tag is not None and self._tag[1][0]:
            tag, (n_promised, _) = self._tag
            n_lost = max(0, n_promised - self._n_frames)
            if n_lost <= _FRAMES_OFF and not self._n_skipped:
                # As it was made, with what it says of silence at both ends.
                return Stream([tag, *self._ranges], self._n_frames)
        header = _xing_frame(first, self._n_frames, n_bytes)
        return Stream([header, *self._ranges], self._n_frames, n_lost)


def _tag_frames(data: FileBytes) -> list[int]:
    """Offsets of the frames that are Xing headers, in order."""
    found = set()
    for name in (b"Xing", b"Info"):
        at = data.find(name, 0)
        while at >= 0:
            for side_bytes in (36, 21, 13, 38, 23, 15):
                header = header_at(data, at - side_bytes) if at >= side_bytes else None
                if header is not None and header.side_bytes == side_bytes:
                    found.add(at - side_bytes)
            at = data.find(name, at + 1)
    return sorted(found)


def _is_tag(data: FileBytes, position: int) -> bool:
    """Tell whether what stands there is no damage but another file's tag."""
    return data[position : position + 3] in (b"ID3", b"TAG", b"APE")


def _next_frame(data: FileBytes, position: int, end: int) -> int:
    """Offset of the next frame behind a position, from which frames go on; `end` without any."""
    while True:
        position = data.find(b"\xff", position + 1, end)
        if position < 0:
            return end
        if _goes_on(data, position, end):
            return position


def _goes_on(data: FileBytes, position: int, end: int) -> bool:
    first = header_at(data, position)
    header = first
    for _ in range(_FRAMES_IN_A_ROW):
        if first is None or header is None or not header.like(first):
            return False
        position += header.length
        if position + 4 > end:
            return True
        header = header_at(data, position)
    return True


def _xing_frame(like: Header, n_frames: int, n_bytes: int) -> bytes:
    """Make a frame that says how many frames and bytes follow it."""
    # Of 128 or 80 kbit/s, which leaves room for it.
    index = 9
    rate_index = _RATES_HZ.index(like.rate * _RATE_DIVISORS[like.version])
    word = 0x7FF << 21 | like.version << 19 | _LAYER_3 << 17 | 1 << 16 | index << 12
    word |= rate_index << 10 | (3 if like.n_channels == 1 else 0) << 6
    header = _parsed(word)
    assert header is not None
    frame = bytearray(header.length)
    frame[:4] = word.to_bytes(4, "big")
    content = b"Xing" + struct.pack(">III", 3, n_frames, n_bytes + header.length)
    frame[header.side_bytes : header.side_bytes + len(content)] = content
    return bytes(frame)


def missing_share(streams: Sequence[Stream]) -> float:
    """Share of the frames of streams that is not there."""
    there = sum(stream.n_frames for stream in streams)
    missing = sum(stream.n_missing for stream in streams)
    return missing / (there + missing) if there else 1.0
