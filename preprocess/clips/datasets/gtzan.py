"""GTZAN (Tzanetakis & Cook, 2002): 1,000 clips of 30 s, 100 of each of ten genres."""

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from preprocess.clips.datasets import Dataset
from preprocess.clips.gtzan_clips import CLIPS_PER_GENRE, GENRES, UNREADABLE, known_clips
from preprocess.clips.index import ClipIndex, ClipRecord
from tagger.base.errors import ConfigError
from tagger.base.log import notice
from tagger.base.registry import Params

# Where the folders of the genres lie below data.root in the copies that are around.
_FOLDERS = ("", "genres", "genres_original", "Data/genres_original")
_SUFFIXES = (".wav", ".au")


class GtzanParams(Params):
    """Which clips of GTZAN, and in which format."""

    suffix: Annotated[
        Literal["", ".wav", ".au"], Field(description="of the audio files; none: what is there")
    ] = ""
    clips: Annotated[
        Literal["all", "fault_filtered", "artist_folds"],
        Field(description="all, or those that a published split keeps, without known faults"),
    ] = "all"
    keep_unreadable: Annotated[
        bool, Field(description=f"keep {UNREADABLE}, which most copies in .wav hold damaged")
    ] = False


class Gtzan(Dataset):
    """``GENRE/GENRE.NNNNN.wav`` or ``.au``, with artists as far as they are known.

    The folders may lie in data.root, or in it in ``genres`` or ``genres_original``.
    """

    Params = GtzanParams
    params: GtzanParams

    def index(self, root: Path) -> ClipIndex:  # noqa: D102 (the contract documents it)
        folder = _folder(root)
        suffix = self.params.suffix or _suffix(root / folder)
        known = known_clips()
        clips, columns = [], []
        for column, genre in enumerate(GENRES):
            for number in range(CLIPS_PER_GENRE):
                name = f"{genre}.{number:05d}"
                if self._leaves_out(name):
                    continue
                path = (PurePosixPath(folder) / genre / f"{name}{suffix}").as_posix()
                artist = known[name].artist if name in known else ""
                clips.append(ClipRecord(name, path, artist=artist))
                columns.append(column)
        if not self.params.keep_unreadable:
            notice(
                f"{UNREADABLE} is damaged in most copies and left out; "
                "data.params.keep_unreadable=true keeps it"
            )
        labels = np.eye(len(GENRES), dtype=np.uint8)[columns]
        return ClipIndex(GENRES, clips, labels, str(root / folder))

    def _leaves_out(self, name: str) -> bool:
        if name == UNREADABLE and not self.params.keep_unreadable:
            return True
        known = known_clips().get(name)
        if self.params.clips == "fault_filtered":
            return known is None or not known.part
        return self.params.clips == "artist_folds" and (known is None or known.fold is None)


def _folder(root: Path) -> str:
    for folder in _FOLDERS:
        if any((root / folder / genre).is_dir() for genre in GENRES):
            return folder
    raise ConfigError(
        f"{root}: has no folder of a genre of GTZAN (blues, classical, ...); set data.root to the "
        "folder that holds them"
    )


def _suffix(folder: Path) -> str:
    """Suffix of the first audio that is there."""
    for genre in GENRES:
        for suffix in _SUFFIXES:
            if any((folder / genre).glob(f"{genre}.*{suffix}")):
                return suffix
    raise ConfigError(
        f"{folder}: holds no clip GENRE/GENRE.NNNNN with .wav or .au; unpack GTZAN there, or set "
        "data.params.suffix to read its names alone"
    )


ENTRY = Gtzan
