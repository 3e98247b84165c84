"""What a file is by its content, whatever its name says."""

import struct
from typing import BinaryIO

HEAD_BYTES = 4096

FLAC, MP3 = "a FLAC file", "an MP3 file"
# Where the magic stands, the magic, and what the file is called in messages. Of formats that
# libsndfile reads:
_SOUNDFILE = (
    (0, b"RIFF", "a WAV file"),
    (0, b"RIFX", "a WAV file"),
    (0, b"RF64", "a WAV file"),
    (0, b"FORM", "an AIFF file"),
    (0, b"fLaC", FLAC),
    (0, b"OggS", "an Ogg file"),
    (0, b"caff", "a CAF file"),
    (0, b"riff", "a W64 file"),
    (0, b".snd", "an AU file"),
)
# Of others, which ffmpeg reads:
_FFMPEG = (
    (4, b"ftyp", "an MP4 file"),
    (4, b"moov", "a QuickTime file"),
    (4, b"mdat", "a QuickTime file"),
    (4, b"wide", "a QuickTime file"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM file"),
    (0, b"0&\xb2u", "a WMA file"),
    (0, b"wvpk", "a WavPack file"),
    (0, b"TTA1", "a TTA file"),
    (0, b"MAC ", "a Monkey's Audio file"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"\x0b\x77", "an AC-3 file"),
    (0, b"\x7f\xfe\x80\x01", "a DTS file"),
    (0, b"MPCK", "a Musepack file"),
    (0, b"MP+", "a Musepack file"),
    (0, b"DSD ", "a DSF file"),
)
_ID3_HEADER = 10
_ID3V1 = 128
_APE_FOOTER = 32


def after_id3(file: BinaryIO) -> int:
    """Offset behind the ID3v2 tags that a file begins with; 0 without any.

    Parameters
    ----------
    file : BinaryIO
        The file; its position changes.
    """
    position = 0
    while True:
        file.seek(position)
        header = file.read(_ID3_HEADER)
        if len(header) < _ID3_HEADER or header[:3] != b"ID3":
            return position
        # Four times seven bits, without the header, and without a footer that repeats it.
        length = 0
        for byte in header[6:]:
            length = length << 7 | byte & 0x7F
        position += _ID3_HEADER + length + (_ID3_HEADER if header[5] & 0x10 else 0)


def before_trailing_tags(file: BinaryIO, size: int) -> int:
    """Offset of the tags that a file ends with: ID3v1, and APE in front of it.

    Parameters
    ----------
    file : BinaryIO
        The file; its position changes.
    size : int
        Its length in bytes, which is returned where there are none.
    """
    end = size
    if end >= _ID3V1:
        file.seek(end - _ID3V1)
        if file.read(3) == b"TAG":
            end -= _ID3V1
    file.seek(max(0, end - _APE_FOOTER))
    footer = file.read(_APE_FOOTER)
    if footer[:8] == b"APETAGEX" and len(footer) == _APE_FOOTER:
        length, _, flags = struct.unpack("<III", footer[12:24])
        end -= length + (_APE_FOOTER if flags & 1 << 31 else 0)
    return max(end, 0)


def is_mpeg_frame(head: bytes) -> bool:
    """Tell whether bytes begin like a frame of MPEG audio, layers I to III."""
    return len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 != 0


def is_adts_frame(head: bytes) -> bool:
    """Tell whether bytes begin like a frame of AAC; it differs from mp3 in its layer bits."""
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


def kind_for_ffmpeg(head: bytes) -> str | None:
    """Say what a file is that ffmpeg reads and libsndfile does not; None for all others."""
    if is_adts_frame(head):
        return "an AAC file"
    return _found(_FFMPEG, head)


def kind_for_soundfile(head: bytes) -> str | None:
    """Say what a file is that libsndfile reads; None for all others."""
    found = _found(_SOUNDFILE, head)
    return MP3 if found is None and is_mpeg_frame(head) else found


def _found(table: tuple[tuple[int, bytes, str], ...], head: bytes) -> str | None:
    for offset, magic, name in table:
        if head[offset : offset + len(magic)] == magic:
            return name
    return None
