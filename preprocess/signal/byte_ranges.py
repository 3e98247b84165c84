"""A file made of pieces of another, and of bytes of our own: what a decoder is given to read."""

import bisect
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO


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
