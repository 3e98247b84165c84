"""Moments of the training windows, for the layers of a network that standardise its inputs."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from preprocess.store.store import Store
from tagger.base.log import notice
from tagger.network.model import TaggerModel
from tagger.network.standardise import Standardise


def standardise_inputs(model: TaggerModel, store: Store, rows: Sequence[int]) -> None:
    """Set the moments of every `Standardise` layer of a network.

    Parameters
    ----------
    model : TaggerModel
        The network; one without such layers stays as it is.
    store : Store
        Where the windows are.
    rows : sequence of int
        Of the training clips, and no others.

    Raises
    ------
    StoreError
        If a pickle cannot be read.
    """
    layers = [layer for layer in model.window_model.layers if isinstance(layer, Standardise)]
    if not layers:
        return
    moments = {layer.source: _Moments() for layer in layers}
    for row in rows:
        windows = store.read(row)
        for name, found in moments.items():
            found.add(windows[name])
    for layer in layers:
        layer.set_moments(*moments[layer.source].result())
    notice(f"standardised by the moments of {len(rows)} training clips: {', '.join(moments)}")


class _Moments:
    """Mean and deviation of the values of the last axis, window by window."""

    def __init__(self) -> None:
        self._n = 0
        self._sum: npt.NDArray[np.float64] | float = 0.0
        self._squares: npt.NDArray[np.float64] | float = 0.0
        self._shift: npt.NDArray[np.float64] | None = None

    def add(self, values: npt.NDArray[np.floating]) -> None:
        flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
        if self._shift is None:
            # Values far from zero with a small deviation would lose it in their squares.
            self._shift = flat.mean(axis=0)
        flat -= self._shift
        self._n += len(flat)
        self._sum = self._sum + flat.sum(axis=0)
        self._squares = self._squares + (flat**2).sum(axis=0)

    def result(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        assert self._shift is not None
        mean = np.asarray(self._sum) / self._n
        variance = np.asarray(self._squares) / self._n - mean**2
        return self._shift + mean, np.sqrt(np.maximum(variance, 0))
