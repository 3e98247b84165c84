"""The stretch of a clip that a window's scores are those of."""

import numpy as np
import numpy.typing as npt

from tagger.scoring.scorer import Floats

# What is said of a window is said of so much around it: what was fitted to whole clips knows
# nothing of a single moment.
STRETCH_SECONDS = 10.0


def stretch_length(n_windows: int, hop_seconds: float) -> int:
    """Windows in a stretch."""
    return min(max(1, round(STRETCH_SECONDS / hop_seconds)), n_windows)


def around_windows(of_stretches: Floats, n_windows: int, length: int) -> Floats:
    """Give each window what was found of the stretch around it.

    Parameters
    ----------
    of_stretches : np.ndarray [shape=(n_windows - length + 1, n_tags)]
        Of the stretches that begin at each window.
    n_windows, length : int
        Of the clip, and of a stretch.
    """
    places: npt.NDArray[np.intp] = np.arange(n_windows) - length // 2
    return of_stretches[np.clip(places, 0, len(of_stretches) - 1)]
