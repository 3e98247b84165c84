"""Which files are audio, by their names."""

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
