"""Which files are audio, or pictures of it, by their names, and how much has to be there."""

import contextlib
import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tagger.base.addresses import is_remote

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
# Spectrograms that others have drawn.
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})

# Of the audio that headers promise, more than this may not be missing unless a user says so: what
# is left would not be the piece any more.
MOST_MISSING = 0.5

# Of network drives, wastebaskets and archives: copies that nobody thinks of as their music.
_LEFT_OUT = frozenset(
    {"@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX"}
)


def find_audio_files(folder: Path, *, suffixes: frozenset[str] = AUDIO_SUFFIXES) -> list[Path]:
    """Find the audio files below a folder, by suffix.

    Parameters
    ----------
    folder : Path
        Where to look, at any depth. Hidden files and folders are left out, as are those of
        wastebaskets; `folder` itself may be one.
    suffixes : frozenset of str
        Of the files, in lower case; default those of audio.

    Returns
    -------
    list of Path
        In sorted order, among them folders that may not be looked into: they fail later, by name.
    """
    if is_remote(folder):
        n_parts = len(folder.parts)
        found = [path for path in folder.rglob("*") if _is_wanted(path.parts[n_parts:], suffixes)]
        return sorted(path for path in found if path.is_file())
    files: list[Path] = []

    def unreadable(error: OSError) -> None:
        files.append(Path(os.fsdecode(error.filename or folder)))

    for at, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        wanted = [name for name in names if _is_wanted((name,), suffixes)]
        files += [Path(at, name) for name in wanted if _is_file(at, name)]
    return sorted(files)


def _is_wanted(parts: Sequence[str], suffixes: frozenset[str]) -> bool:
    return Path(parts[-1]).suffix.lower() in suffixes and not any(map(_is_hidden, parts))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _LEFT_OUT


def _is_file(folder: str, name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(os.path.join(folder, name)).st_mode)  # noqa: PTH116, PTH118
    except FileNotFoundError:
        # A link that leads nowhere.
        return False
    except OSError:
        # Of a folder that can be listed but not entered: it fails later, by its name.
        return True


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
        for name in _names_in(named.parent, named.parent.stat().st_mtime_ns)[_plain(named.name)]:
            found = named.parent / name
            if found.is_file():
                return f"; there is {found}, written in another way"
    return ""


@lru_cache(maxsize=8)
def _names_in(folder: Path, _changed: int) -> dict[str, list[str]]:
    """Names in a folder, however they are written; a list may name many that are not there."""
    names = defaultdict(list)
    for path in sorted(folder.iterdir()):
        names[_plain(path.name)].append(path.name)
    return names


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()
