"""Which files are audio, by their names, and how much of one has to be there."""

import contextlib
import unicodedata
from pathlib import Path

# What libsndfile decodes; everything else goes through ffmpeg where it is installed.
SOUNDFILE_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"}
)
FFMPEG_SUFFIXES = frozenset(
    {
        *(".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".aac", ".ac3", ".eac3", ".dts", ".amr"),
        *(".wma", ".webm", ".mka", ".mkv", ".wv", ".tta", ".ape", ".spx", ".mp2"),
    }
)
AUDIO_SUFFIXES = SOUNDFILE_SUFFIXES | FFMPEG_SUFFIXES

# Of the audio that headers promise, more than this may not be missing unless a user says so: what
# is left would not be the piece any more.
MOST_MISSING = 0.5

# Of network drives, wastebaskets and archives: copies that nobody thinks of as their music.
_LEFT_OUT = frozenset(
    {"@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX"}
)


def find_audio_files(folder: Path) -> list[Path]:
    """Find the audio files below a folder, by suffix.

    Parameters
    ----------
    folder : Path
        Where to look, at any depth. Hidden files and folders are left out, as are those of
        wastebaskets; `folder` itself may be one.

    Returns
    -------
    list of Path
        In sorted order.
    """
    n_parts = len(folder.parts)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES
        and not any(part.startswith(".") or part in _LEFT_OUT for part in path.parts[n_parts:])
        and path.is_file()
    )


def where_it_may_be(path: Path) -> str:
    """Hint for a file that does not exist: the name that was written in another way.

    Parameters
    ----------
    path : Path
        As it was named.

    Returns
    -------
    str
        E.g. ``"; there is songs/Café.mp3, written in another way"``; empty where there is no such
        file: one whose name differs in its Unicode form (NFC of most systems, NFD of macOS), case,
        blanks at its ends, or backslashes in place of slashes.
    """
    with contextlib.suppress(OSError, ValueError):
        named = Path(str(path).strip().replace("\\", "/"))
        if named.is_file():
            return f"; there is {named}, written in another way"
        wanted = _plain(named.name)
        for found in sorted(named.parent.iterdir()):
            if _plain(found.name) == wanted and found.is_file():
                return f"; there is {found}, written in another way"
    return ""


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()
