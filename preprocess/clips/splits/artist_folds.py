"""GTZAN in three folds of 948 clips, no artist in two of them (Foleis & Tavares, 2020)."""

from typing import Annotated

from pydantic import Field

from preprocess.clips.gtzan_clips import known_clips
from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import Parts, Split
from preprocess.clips.splits._gtzan import GtzanSplitParams, parts_by_name

_N_FOLDS = 3


class ArtistFoldsParams(GtzanSplitParams):
    """Whether one of the folds validates."""

    validation: Annotated[
        bool,
        Field(
            description="the fold after the one that is tested validates; published figures "
            "train on both"
        ),
    ] = True


class ArtistFolds(Split):
    """Each fold is tested in turn."""

    Params = ArtistFoldsParams
    params: ArtistFoldsParams

    @property
    def n_folds(self) -> int:  # noqa: D102 (in Split)
        return _N_FOLDS

    def parts(self, index: ClipIndex, *, seed: int, fold: int) -> Parts:  # noqa: D102 (in Split)
        del seed
        part_of = dict.fromkeys(range(1, _N_FOLDS + 1), "train")
        if self.params.validation:
            part_of[(fold + 1) % _N_FOLDS + 1] = "validation"
        # They are counted from 1 where they are published.
        part_of[fold + 1] = "test"
        published = {
            name: part_of[clip.fold]
            for name, clip in known_clips().items()
            if clip.fold is not None
        }
        return parts_by_name(index, published, split=self.name, incomplete=self.params.incomplete)


ENTRY = ArtistFolds
