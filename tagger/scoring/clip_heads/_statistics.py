"""One vector of a clip, however long it is: statistics of its windows' embeddings over time."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tagger.scoring.scorer import Floats

# Mean, maximum and deviation.
N_STATISTICS = 3


def means(outputs: Mapping[str, npt.NDArray[np.floating]], layers: Sequence[str]) -> Floats:
    """Mean over time alone; else as of `statistics`."""
    found = [outputs[layer].mean(axis=0, dtype=np.float64) for layer in layers]
    return np.concatenate(found).astype(np.float32)


def statistics(outputs: Mapping[str, npt.NDArray[np.floating]], layers: Sequence[str]) -> Floats:
    """Mean, maximum and deviation over time: all three of the first layer, then of the next.

    Parameters
    ----------
    outputs : mapping of str to np.ndarray [shape=(n_windows, n_dimensions)]
        Of a clip's windows, at least one, by name.
    layers : sequence of str
        Names of the embeddings.

    Returns
    -------
    np.ndarray [shape=(n_features,), dtype=float32]
    """
    found = []
    for layer in layers:
        values = outputs[layer].astype(np.float64)
        found += [values.mean(axis=0), values.max(axis=0), values.std(axis=0)]
    return np.concatenate(found).astype(np.float32)
