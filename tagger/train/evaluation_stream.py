"""Every window of every clip once, in order, for scoring."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.store.store import Store
from tagger.train.stream import as_float32, in_background


def evaluation_batches(
    store: Store, rows: Sequence[int], *, batch_size: int
) -> Iterator[tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.intp]]]:
    """Every window of every clip once, in order.

    Parameters
    ----------
    store : Store
        Where the patches are.
    rows : sequence of int
        Which of its clips.
    batch_size : int
        Windows in a batch; the last one may hold fewer.

    Yields
    ------
    windows : dict of str to np.ndarray [shape=(n, *input_shapes[name])]
        As float32.
    positions : np.ndarray [shape=(n,)]
        For each window, which of `rows` it belongs to.
    """
    names = list(store.spec.input_shapes)
    parts: list[tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.intp]]] = []
    waiting = 0

    def joined() -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.intp]]:
        windows = {name: np.concatenate([part[0][name] for part in parts]) for name in names}
        return windows, np.concatenate([part[1] for part in parts])

    for position, row in enumerate(rows):
        windows = store.read(row)
        count = len(windows[names[0]])
        parts.append((windows, np.full(count, position, dtype=np.intp)))
        waiting += count
        if waiting < batch_size:
            continue
        together, positions = joined()
        whole = waiting - waiting % batch_size
        for begin in range(0, whole, batch_size):
            end = begin + batch_size
            part = {name: together[name][begin:end] for name in names}
            yield as_float32(part), positions[begin:end]
        parts = [({name: together[name][whole:] for name in names}, positions[whole:])]
        waiting -= whole
    if waiting:
        together, positions = joined()
        yield as_float32(together), positions


def prefetched_evaluation_batches(
    store: Store, rows: Sequence[int], *, batch_size: int, prefetch: int
) -> Iterator[tuple[dict[str, Any], npt.NDArray[np.intp]]]:
    """`evaluation_batches` as TensorFlow tensors, prepared ahead in the background by tf.data."""
    from tagger.network.keras import tf

    signature = (
        {
            name: tf.TensorSpec((None, *shape), tf.float32)
            for name, shape in store.spec.input_shapes.items()
        },
        tf.TensorSpec((None,), tf.int64),
    )
    batches = evaluation_batches(store, rows, batch_size=batch_size)
    for windows, positions in in_background(batches, signature, prefetch):
        yield windows, positions.numpy()
