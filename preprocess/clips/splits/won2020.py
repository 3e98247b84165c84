"""By folder, clips with a top-50 tag only (Won et al., SMC 2020)."""

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import Parts, Split
from preprocess.clips.splits.folder import without_corrupt_clips
from preprocess.clips.vocabulary import most_frequent_tags

# They keep clips with at least one of these many most frequent tags.
_N_TAGS = 50


class Won2020Split(Split):
    """The split that most published figures are of."""

    def parts(self, index: ClipIndex, *, seed: int, fold: int) -> Parts:  # noqa: D102 (in Split)
        del seed, fold
        parts = without_corrupt_clips(index)
        top = [index.tags.index(tag) for tag in most_frequent_tags(index, _N_TAGS)]
        parts[~index.labels[:, top].any(axis=1)] = ""
        return parts


ENTRY = Won2020Split
