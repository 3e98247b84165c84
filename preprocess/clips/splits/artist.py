"""No artist in two parts; clips without an artist go by track."""

from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import DTYPE, PARTS, Parts, Split
from tagger.base.errors import ConfigError
from tagger.base.files import content_hash
from tagger.base.registry import Params


class ArtistParams(Params):
    """Shares of the clips; those of MagnaTagATune's folders 0-b, c and d-f."""

    train: Annotated[float, Field(gt=0, lt=1)] = 12 / 16
    validation: Annotated[float, Field(gt=0, lt=1)] = 1 / 16

    @model_validator(mode="after")
    def _leaves_clips_to_test(self) -> "ArtistParams":
        if self.train + self.validation >= 1:
            raise ValueError("train and validation leave no clips to test; make them smaller")
        return self


class ArtistSplit(Split):
    """Whole artists to each part."""

    Params = ArtistParams
    params: ArtistParams

    def parts(self, index: ClipIndex, *, seed: int, fold: int) -> Parts:  # noqa: D102 (in Split)
        del fold
        if not any(clip.artist for clip in index.clips):
            raise ConfigError(
                f"split 'artist' needs artists, but {index.source} has none; give "
                "clip_info_final.csv (or the column artist), or use another data.split"
            )
        groups: dict[str, list[int]] = {}
        for row, clip in enumerate(index.clips):
            key = f"artist:{clip.artist}" if clip.artist else f"track:{clip.track or clip.id}"
            groups.setdefault(key, []).append(row)
        # In the order of a hash, each artist goes to the part that lacks most: the shares come out
        # right, and the order of the rows does not matter.
        order = sorted(groups, key=lambda key: content_hash(f"{seed}:{key}".encode()))
        shares = (
            self.params.train,
            self.params.validation,
            1 - self.params.train - self.params.validation,
        )
        wanted = np.array(shares) * len(index)
        filled = np.zeros(len(PARTS))
        parts = np.full(len(index), "", dtype=DTYPE)
        for key in order:
            part = int(np.argmax((wanted - filled) / wanted))
            parts[groups[key]] = PARTS[part]
            filled[part] += len(groups[key])
        return parts


ENTRY = ArtistSplit
