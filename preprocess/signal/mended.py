"""Files whose headers say too little or something wrong -> the same audio as decoders want it."""

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from preprocess.signal.byte_ranges import JoinedFile, Piece, Range
from preprocess.signal.contents import HEAD_BYTES, after_id3, is_mpeg_frame
from preprocess.signal.mpeg_frames import missing_share as mpeg_missing_share
from preprocess.signal.mpeg_frames import mpeg_streams
from preprocess.signal.ogg_links import missing_of_last_page, ogg_links

# Containers of chunks: magic, form types, byte order of lengths, the chunk that holds the audio.
_CHUNKED: dict[bytes, tuple[tuple[bytes, ...], Literal["little", "big"], bytes]] = {
    b"RIFF": ((b"WAVE",), "little", b"data"),
    b"FORM": ((b"AIFF", b"AIFC"), "big", b"SSND"),
}
# So little of a file is no loss: some programs write lengths that are some bytes too long.
_FEW_BYTES = 64
_A_LITTLE = 0.01
_ROOM_BYTES = 1 << 16
_MOST_BYTES = 0xFFFFFFFF


@dataclass(frozen=True)
class Mended:
    """How a file is given to a decoder.

    Parameters
    ----------
    streams : sequence of (sequence of Range or bytes) or None
        Streams that follow one another, each of what it consists; None is the file as it is.
    missing : float
        Share of the audio that is not there, by the file's own account.
    """

    streams: Sequence[Sequence[Piece] | None]
    missing: float = 0.0


def mend(path: Path) -> Mended:
    """Look at what a file says of its length, and at what is there.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(4)
        if magic in _CHUNKED:
            return _mended_chunks(file, size, *_CHUNKED[magic])
        if magic == b"OggS":
            links = ogg_links(file, size)
            missing = missing_of_last_page(file, size)
            # How many pages are missing after that one, nobody knows.
            missing = max(missing, _A_LITTLE) if missing else 0.0
            return Mended([None] if len(links) < 2 else links, missing)
        file.seek(after_id3(file))
        # Some programs leave more room behind a tag than it says.
        if is_mpeg_frame(file.read(_ROOM_BYTES).lstrip(b"\0")):
            streams = mpeg_streams(file)
            if streams is not None:
                return Mended([each.pieces for each in streams], mpeg_missing_share(streams))
    return Mended([None])


@contextlib.contextmanager
def opened(path: Path, pieces: Sequence[Piece] | None) -> Iterator[Any]:
    """Give what soundfile opens: a descriptor or a file, never a name.

    Of a named file libsndfile takes another beside it, called ``._NAME``, for a part.

    Parameters
    ----------
    path : Path
        The file.
    pieces : sequence of Range or bytes, optional
        A stream of it; default the file as it is.
    """
    with path.open("rb") as file:
        if pieces is not None:
            with contextlib.closing(JoinedFile(file, pieces)) as joined:
                yield joined
        else:
            # Descriptors are another library's on Windows.
            yield file if os.name == "nt" else file.fileno()


def _mended_chunks(
    file: BinaryIO,
    size: int,
    forms: tuple[bytes, ...],
    byte_order: Literal["little", "big"],
    audio_chunk: bytes,
) -> Mended:
    file.seek(8)
    if file.read(4) not in forms:
        return Mended([None])
    position = 12
    while position + 8 <= size:
        file.seek(position)
        chunk = file.read(8)
        length = int.from_bytes(chunk[4:8], byte_order)
        if chunk[:4] == audio_chunk:
            found = size - position - 8
            is_placeholder = _is_placeholder(length) and not _are_chunks(file, size, byte_order)
            # Lengths have 32 bits, and some programs write what is left of a larger one.
            is_placeholder |= found > _MOST_BYTES and (found - length) % 2**32 <= _FEW_BYTES
            if length == found or (length < found and not is_placeholder):
                return Mended([None])
            if not is_placeholder and length - found > _FEW_BYTES:
                return Mended([None], (length - found) / length)
            file.seek(0)
            start = file.read(position + 4) if position < HEAD_BYTES else b""
            if start and found > _MOST_BYTES and byte_order == "little":
                return Mended([[_rf64_start(start, size, found), Range(position + 8, size)]])
            if not start or found > _MOST_BYTES:
                return Mended([None])
            fixed = start[:4] + (size - 8).to_bytes(4, byte_order) + start[8:]
            fixed += found.to_bytes(4, byte_order)
            return Mended([[fixed, Range(position + 8, size)]])
        position += 8 + length + (length & 1)
    return Mended([None])


def _rf64_start(start: bytes, size: int, n_audio: int) -> bytes:
    """Start of a WAV file up to its samples, with lengths of 64 bits (EBU Tech 3306)."""
    lengths = struct.pack("<4sIQQQI", b"ds64", 28, size + 28, n_audio, 0, 0)
    unknown = _MOST_BYTES.to_bytes(4, "little")
    return b"RF64" + unknown + start[8:12] + lengths + start[12:] + unknown


def _is_placeholder(length: int) -> bool:
    # Zero, the largest number, or the largest with a sign, some of them less a header: of programs
    # that wrote into a pipe.
    return length == 0 or 0x7FFFF000 <= length <= 0x7FFFFFFF or length >= 0xFFFFF000


def _are_chunks(file: BinaryIO, size: int, byte_order: Literal["little", "big"]) -> bool:
    """Tell whether chunks fill the file from here on: the one before is empty then."""
    position = file.tell()
    while position + 8 <= size:
        file.seek(position)
        chunk = file.read(8)
        if not chunk[:4].isalnum() and not chunk[:4].strip().isalnum():
            return False
        length = int.from_bytes(chunk[4:8], byte_order)
        position += 8 + length + (length & 1)
    return position in (size, size + 1)
