"""Clips at random, as in the first report. Clips of one artist or track lie in several parts."""

from typing import Annotated

import numpy as np
from pydantic import Field

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import DTYPE, Parts, Split
from preprocess.clips.splits.k_fold import groups_of
from tagger.base.registry import Params


class RandomParams(Params):
    """Shares of the clips."""

    train: Annotated[float, Field(gt=0, lt=1, description="share that trains or validates")] = 0.75
    # The report has none: choosing the epoch by the test quarter would flatter it.
    validation: Annotated[float, Field(gt=0, lt=1, description="share of that which validates")] = (
        0.1
    )


class RandomSplit(Split):
    """3/4 to train, of which a tenth validates, and 1/4 to test."""

    Params = RandomParams
    params: RandomParams

    def parts(self, index: ClipIndex, *, seed: int, fold: int) -> Parts:  # noqa: D102 (in Split)
        del fold
        # Each clip for itself, but segments of a clip together.
        groups = groups_of(index, "none")
        number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
        order = np.random.default_rng(seed).permutation(len(number))
        n_train = round(self.params.train * len(number))
        n_validation = round(self.params.validation * n_train)
        parts = np.full(len(number), "test", dtype=DTYPE)
        parts[order[:n_train]] = "train"
        parts[order[:n_validation]] = "validation"
        return parts[np.array([number[group] for group in groups], dtype=np.intp)]


ENTRY = RandomSplit
