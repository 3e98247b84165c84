"""Maximum of the scores of a clip's windows."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tagger.scoring.clip_heads import OfWindowScores
from tagger.scoring.scorer import SCORES, Floats


class Max(OfWindowScores):
    """What occurs once in a clip counts."""

    def features(self, outputs: Mapping[str, npt.NDArray[np.floating]]) -> Floats:  # noqa: D102
        maximum: Floats = outputs[SCORES].max(axis=0)
        return maximum.astype(np.float32, copy=False)


ENTRY = Max
