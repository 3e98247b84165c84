"""A file made of pieces of another, and of bytes of our own: what a decoder is given to read."""

import bisect
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

# Most songs are read at once.
_PAGE_BYTES = 1 << 22


@dataclass(frozen=True)
class Range:
    """Bytes of a file.

    Parameters
    ----------
    start, end : int
        Offsets of the first of them, and behind the last.
    """

    start: int
    end: int


Piece = Range | bytes


class FileBytes:
    """Content of a file by offsets, as `bytes` is asked for it.

    It is not mapped into memory: where another program cuts a mapped file, the process that reads
    it is ended.

    Parameters
    ----------
    file : BinaryIO
        The file; its position changes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)
        self._start, self._page = 0, b""

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        """Bytes between two offsets; fewer at the end."""
        offset, end = part.start - self._start, part.stop - self._start
        if offset < 0 or end > len(self._page):
            self.page(part.start, at_least=part.stop - part.start)
            offset, end = 0, part.stop - part.start
        return self._page[offset:end]

    def page(self, start: int, *, at_least: int = 0) -> bytes:
        """Give many bytes from an offset on; none behind the end."""
        self._file.seek(start)
        self._start, self._page = start, self._file.read(max(_PAGE_BYTES, at_least))
        return self._page

    def find(self, wanted: bytes, start: int, end: int | None = None) -> int:
        """Offset of the first place of some bytes between two offsets; -1 where there is none."""
        end = self._size if end is None else end
        while start + len(wanted) <= end:
            offset = start - self._start
            if not 0 <= offset <= len(self._page) - len(wanted):
                self.page(start, at_least=len(wanted))
                offset = 0
            found = self._page.find(wanted, offset, end - self._start)
            if found >= 0:
                return self._start + found
            if len(self._page) < len(wanted):
                break
            start = self._start + len(self._page) - len(wanted) + 1
        return -1


class JoinedFile(io.RawIOBase):
    """Pieces one behind the other, as one file that can be read and searched.

    Parameters
    ----------
    file : BinaryIO
        Where ranges are read from; closed with this one.
    pieces : sequence of Range or bytes
        What it consists of.
    """

    def __init__(self, file: BinaryIO, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._file = file
        self._pieces = [piece for piece in pieces if _length(piece)]
        self._starts = [0]
        for piece in self._pieces:
            self._starts.append(self._starts[-1] + _length(piece))
        self._position = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be searched."""
        return True

    def tell(self) -> int:
        """Position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer, or less of it at the end."""
        view = memoryview(buffer).cast("B")
        n_read = 0
        while n_read < len(view) and self._position < self._starts[-1]:
            number = bisect.bisect_right(self._starts, self._position) - 1
            offset = self._position - self._starts[number]
            wanted = min(len(view) - n_read, self._starts[number + 1] - self._position)
            part = self._part(self._pieces[number], offset, wanted)
            if not part:
                break
            view[n_read : n_read + len(part)] = part
            n_read += len(part)
            self._position += len(part)
        return n_read

    def _part(self, piece: Piece, offset: int, wanted: int) -> bytes:
        if isinstance(piece, bytes):
            return piece[offset : offset + wanted]
        self._file.seek(piece.start + offset)
        return self._file.read(wanted)

    def close(self) -> None:
        """Close the file behind it as well."""
        self._file.close()
        super().close()


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.end - piece.start
