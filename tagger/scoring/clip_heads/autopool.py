"""AutoPool of the scores of a clip's windows, with the weights that the network has learned.

McFee, Salamon & Bello, "Adaptive pooling operators for weakly labeled sound event detection"
(IEEE/ACM TASLP 2018).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tagger.scoring.clip_heads import OfWindowScores
from tagger.scoring.scorer import SCORES, Floats


class AutoPool(OfWindowScores):
    """Between mean and maximum, for each tag where training has put it.

    Attributes
    ----------
    alpha : np.ndarray [shape=(n_tags,)], optional
        0 is the mean, infinity the maximum; None until `restore` has given it.
    """

    alpha: Floats | None = None
    is_learned_by_network: ClassVar[bool] = True

    def features(self, outputs: Mapping[str, npt.NDArray[np.floating]]) -> Floats:  # noqa: D102
        if self.alpha is None:
            raise ValueError("AutoPool needs its learned alpha")
        window_scores = outputs[SCORES]
        logits = self.alpha * window_scores.astype(np.float64)
        weights = np.exp(logits - logits.max(axis=0))
        weights /= weights.sum(axis=0)
        pooled: Floats = (weights * window_scores).sum(axis=0).astype(np.float32)
        return pooled

    def arrays(self) -> dict[str, npt.NDArray[Any]]:  # noqa: D102
        return {} if self.alpha is None else {"alpha": self.alpha}

    def restore(  # noqa: D102
        self, arrays: Mapping[str, npt.NDArray[Any]], *, sizes: Mapping[str, int], n_tags: int
    ) -> None:
        del sizes
        alpha = arrays["alpha"]
        if alpha.shape != (n_tags,) or not np.isfinite(alpha).all():
            raise ValueError(f"alpha of shape {alpha.shape} is not finite or not of {n_tags} tags")
        self.alpha = alpha.astype(np.float32)


ENTRY = AutoPool
