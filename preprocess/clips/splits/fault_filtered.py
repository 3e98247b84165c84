"""GTZAN's fault-filtered split (Kereliuk, Sturm & Larsen, 2015): 443, 197 and 290 clips."""

from preprocess.clips.gtzan_clips import known_clips
from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import Parts, Split
from preprocess.clips.splits._gtzan import GtzanSplitParams, parts_by_name


class FaultFilteredSplit(Split):
    """Without 70 clips that are repeated or distorted; artists are apart, but for one of 412."""

    Params = GtzanSplitParams
    params: GtzanSplitParams

    def parts(self, index: ClipIndex, *, seed: int, fold: int) -> Parts:  # noqa: D102 (in Split)
        del seed, fold
        published = {name: clip.part for name, clip in known_clips().items() if clip.part}
        return parts_by_name(index, published, split=self.name, incomplete=self.params.incomplete)


ENTRY = FaultFilteredSplit
