"""Spectrograms of many clips in one .npz file, as others have computed them."""

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from preprocess.clips.datasets import Dataset
from preprocess.clips.gtzan_clips import artist_of
from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.clips.spectrograms import read_spectrograms
from tagger.base.errors import AudioError, ConfigError
from tagger.base.registry import Params


class SpectrogramFileParams(Params):
    """Which file, and what a clip is."""

    file: Annotated[
        str, Field(min_length=1, description=".npz with mel, genre and genres, below data.root")
    ]
    by: Annotated[
        Literal["clip", "segment"],
        Field(description="segment: each is a clip of its own; they stay in one part of a split"),
    ] = "clip"
    artists: Annotated[
        Literal["", "gtzan"],
        Field(description="take artists from what is known of the clips of this data set"),
    ] = ""


class SpectrogramFile(Dataset):
    """Clips that share a file of spectrograms, for front ends such as `mel_clip`.

    Their labels are its genres, and the track of a segment is its clip.
    """

    Params = SpectrogramFileParams
    params: SpectrogramFileParams

    def index(self, root: Path) -> ClipIndex:  # noqa: D102 (the contract documents it)
        path = root / self.params.file
        try:
            content = read_spectrograms(path)
        except AudioError as error:
            raise ConfigError(str(error)) from None
        file = PurePosixPath(self.params.file).as_posix()
        clips, columns = [], []
        for track, rows in content.rows.items():
            artist = artist_of(track) if self.params.artists else ""
            by_clip = self.params.by == "clip"
            for name in [track] if by_clip else [content.names[row] for row in rows]:
                clips.append(ClipRecord(name, file, artist=artist, track=track))
                columns.append(content.genre[rows[0]])
        labels = np.eye(len(content.genres), dtype=np.uint8)[columns]
        return ClipIndex(content.genres, clips, labels, str(path), segments=True)


ENTRY = SpectrogramFile
