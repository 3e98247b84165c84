"""Mean of the scores of a clip's windows."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tagger.scoring.clip_heads import OfWindowScores
from tagger.scoring.scorer import SCORES, Floats


class Mean(OfWindowScores):
    """What goes on throughout a clip counts most."""

    def features(self, outputs: Mapping[str, npt.NDArray[np.floating]]) -> Floats:  # noqa: D102
        return outputs[SCORES].mean(axis=0, dtype=np.float64).astype(np.float32)


ENTRY = Mean
