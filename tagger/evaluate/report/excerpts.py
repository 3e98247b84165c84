"""Sound for players: files as they are if they are small, else the beginning as mp3."""

import io
from contextlib import closing
from pathlib import Path

import numpy as np

from preprocess.signal.audio import stream_audio
from tagger.base.errors import AudioError

# A report may hold some dozen.
LARGEST_FILE = 300_000
EXCERPT_SECONDS = 30
_EXCERPT_RATE = 24_000
# What browsers play.
MEDIA_TYPES = {
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".wav": "audio/wav",
}


def excerpt(path: Path) -> tuple[bytes, str] | None:
    """Content for a player.

    Parameters
    ----------
    path : Path
        An audio file.

    Returns
    -------
    content : bytes
        The file, or the mono beginning of it if it is larger than `LARGEST_FILE`.
    suffix : str
        One of `MEDIA_TYPES`.

    None if the file cannot be read.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in MEDIA_TYPES and path.stat().st_size <= LARGEST_FILE:
            return path.read_bytes(), suffix
        return _beginning(path), ".mp3"
    except (OSError, AudioError):
        # A clip that cannot be heard can still be looked at.
        return None


def _beginning(path: Path) -> bytes:
    import soundfile

    blocks, n_missing = [], EXCERPT_SECONDS * _EXCERPT_RATE
    with closing(
        iter(
            stream_audio(
                path, target_rate=_EXCERPT_RATE, block_seconds=EXCERPT_SECONDS, most_missing=1.0
            )
        )
    ) as stream:
        for block in stream:
            blocks.append(block[:n_missing])
            n_missing -= len(blocks[-1])
            if n_missing <= 0:
                break
    encoded = io.BytesIO()
    soundfile.write(
        encoded, np.concatenate(blocks), _EXCERPT_RATE, format="MP3", subtype="MPEG_LAYER_III"
    )
    return encoded.getvalue()
