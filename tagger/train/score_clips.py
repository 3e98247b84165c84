"""Clip scores of a store's clips: every window through the network, then all of a clip together."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tagger.base.log import progress_bar
from tagger.config import StreamConfig

if TYPE_CHECKING:
    from preprocess.store.store import Store
    from tagger.network.model import TaggerModel

Floats = npt.NDArray[np.float32]


class ScoringStoppedError(Exception):
    """Somebody wanted to stop before all clips had their scores."""


def windows_at_once(model: "TaggerModel", config: StreamConfig) -> int:
    """How many windows are scored together: networks differ a hundredfold in what one takes."""
    fitting = (config.evaluation_batch_mb << 20) // model.window_bytes
    return max(1, min(config.evaluation_batch_size, fitting))


def score_clips(
    model: "TaggerModel",
    store: "Store",
    *,
    rows: list[int],
    config: StreamConfig,
    title: str = "score",
    stop: Callable[[], bool] | None = None,
) -> Floats:
    """Clip scores of some of the store's clips.

    Parameters
    ----------
    model : TaggerModel
        What scores.
    store : Store
        Where the patches are.
    rows : list of int
        Which clips; there may be none.
    config : StreamConfig
        Batch size and prefetch.
    title : str
        Of the progress bar.
    stop : callable, optional
        Asked after each batch whether to stop.

    Returns
    -------
    np.ndarray [shape=(len(rows), n_tags), dtype=float32]

    Raises
    ------
    ScoringStoppedError
        If `stop` has said so.
    """
    if not rows:
        return np.zeros((0, len(model.tags)), dtype=np.float32)
    head = model.clip_head
    return np.stack(
        made_of_clips(
            model,
            store,
            rows=rows,
            config=config,
            outputs=head.outputs,
            make=head,
            title=title,
            stop=stop,
        )
    )


def made_of_clips(
    model: "TaggerModel",
    store: "Store",
    *,
    rows: list[int],
    config: StreamConfig,
    outputs: Sequence[str],
    make: Callable[[Mapping[str, Floats]], Floats],
    title: str,
    stop: Callable[[], bool] | None = None,
) -> list[Floats]:
    """One array of each clip, made of what the network says of its windows.

    Parameters
    ----------
    model, store, rows, config, title, stop
        As of `score_clips`; at least one row.
    outputs : sequence of str
        What of the network is asked for.
    make : callable
        Outputs of all windows of a clip, by name -> array.

    Returns
    -------
    list of np.ndarray
        In the order of `rows`.

    Raises
    ------
    ScoringStoppedError
        If `stop` has said so.
    """
    # pescador and TensorFlow take seconds to import, and configs are checked before.
    from tagger.train.evaluation_stream import prefetched_evaluation_batches

    made: list[Floats] = []
    waiting: dict[int, list[dict[str, Floats]]] = {}
    batches = prefetched_evaluation_batches(
        store,
        rows,
        batch_size=windows_at_once(model, config),
        prefetch=config.prefetch,
    )
    with progress_bar(title, len(rows)) as advance:

        def finish(position: int) -> None:
            parts = waiting.pop(position)
            made.append(
                make({name: np.concatenate([part[name] for part in parts]) for name in outputs})
            )
            advance(1, "")

        for windows, positions in batches:
            found = model.window_outputs(windows, outputs)
            for position in np.unique(positions):
                own = {name: array[positions == position] for name, array in found.items()}
                waiting.setdefault(int(position), []).append(own)
            # Clips come in order: all but the last one of a batch are complete.
            for position in [p for p in waiting if p < positions[-1]]:
                finish(position)
            if stop is not None and stop():
                raise ScoringStoppedError
        for position in list(waiting):
            finish(position)
    return made
