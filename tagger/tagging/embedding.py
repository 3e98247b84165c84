"""What a model makes of each window of a clip, for who asks for no tags."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Embedding:
    """An embedding of one clip.

    Parameters
    ----------
    path : str
        The file; empty for a waveform.
    layer : str
        What of the network it is.
    values : np.ndarray [shape=(n_windows, n_dimensions), dtype=float32]
        A vector for each window.
    times : np.ndarray [shape=(n_windows,), dtype=float64]
        Start of each window in seconds from the start of the file.
    window_seconds : float
        Length of a window.
    """

    path: str
    layer: str
    values: npt.NDArray[np.float32]
    times: npt.NDArray[np.float64]
    window_seconds: float

    def mean(self) -> npt.NDArray[np.float32]:
        """Mean over the windows [shape=(n_dimensions,)]."""
        return self.values.mean(axis=0, dtype=np.float64).astype(np.float32)
