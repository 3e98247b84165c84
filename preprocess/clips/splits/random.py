"""Clips at random, as in the first report. Clips of one artist or track lie in several parts."""

from typing import Annotated

import numpy as np
from pydantic import Field

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import DTYPE, Parts, Split
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
        order = np.random.default_rng(seed).permutation(len(index))
        n_train = round(self.params.train * len(index))
        n_validation = round(self.params.validation * n_train)
        parts = np.full(len(index), "test", dtype=DTYPE)
        parts[order[:n_train]] = "train"
        parts[order[:n_validation]] = "validation"
        return parts


ENTRY = RandomSplit
