"""By folder, every clip but the corrupt ones (Pons & Serra, "musicnn", 2019)."""

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import Parts, Split
from preprocess.clips.splits.folder import without_corrupt_clips


class Pons2019Split(Split):
    """The split of musicnn's figures."""

    def parts(self, index: ClipIndex, *, seed: int, fold: int) -> Parts:  # noqa: D102 (in Split)
        del seed, fold
        return without_corrupt_clips(index)


ENTRY = Pons2019Split
