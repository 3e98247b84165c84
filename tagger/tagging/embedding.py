"""What a model makes of each window of a clip, for who asks for no tags."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False, repr=False)
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

    def __eq__(self, other: object) -> bool:
        """Whether everything is the same, value by value."""
        if not isinstance(other, Embedding):
            return NotImplemented
        mine, theirs = (
            (one.path, one.layer, one.window_seconds, one.values.shape) for one in (self, other)
        )
        return mine == theirs and bool(
            np.array_equal(self.values, other.values, equal_nan=True)
            and np.array_equal(self.times, other.times)
        )

    def __hash__(self) -> int:
        return hash((self.path, self.layer, self.values.tobytes()))

    def __repr__(self) -> str:
        name = f"{self.path!r}, " if self.path else ""
        n_windows, n_dimensions = self.values.shape
        return f"Embedding({name}{self.layer}, {n_windows} windows of {n_dimensions} values)"

    def mean(self) -> npt.NDArray[np.float32]:
        """Mean over the windows [shape=(n_dimensions,)]."""
        return self.values.mean(axis=0, dtype=np.float64).astype(np.float32)
