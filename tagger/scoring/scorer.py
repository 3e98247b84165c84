"""What computes: windows -> named outputs, whoever it is."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
# By name, one row a window [shape=(n_windows, n_dimensions), dtype=float32].
Outputs = dict[str, Floats]

# Output of that name; all others are embeddings.
SCORES = "scores"


class Scorer(Protocol):
    """Contract of what computes outputs of windows: LiteRT, Keras, ONNX, scikit-learn.

    One scorer serves one thread; who computes on several makes several.
    """

    def __call__(self, windows: Mapping[str, npt.NDArray[np.floating]], /) -> Outputs:
        """Compute outputs.

        Parameters
        ----------
        windows : mapping of str to np.ndarray [shape=(n_windows, *input_shapes[name])]
            What a front end gives; at least one window.

        Returns
        -------
        dict of str to np.ndarray [shape=(n_windows, n_dimensions), dtype=float32]
            By name; those that were asked for at least.

        Raises
        ------
        ModelError
            If it cannot compute them.
        """
