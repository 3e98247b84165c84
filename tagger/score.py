"""Clip scores of a store's clips: every window through the network, pooled over time."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tagger.config import StreamConfig
from tagger.progress import progress_bar

if TYPE_CHECKING:
    from preprocess.store import Store
    from tagger.model import TaggerModel


def score_clips(
    model: "TaggerModel",
    store: "Store",
    *,
    rows: list[int],
    config: StreamConfig,
    title: str = "score",
) -> npt.NDArray[np.float32]:
    """Clip scores of some of the store's clips.

    Parameters
    ----------
    model : TaggerModel
        What scores.
    store : Store
        Where the patches are.
    rows : list of int
        Which clips.
    config : StreamConfig
        Batch size and prefetch.
    title : str
        Of the progress bar.

    Returns
    -------
    np.ndarray [shape=(len(rows), n_tags), dtype=float32]
    """
    # pescador and TensorFlow take seconds to import, and configs are checked before.
    from tagger.stream import prefetched_evaluation_batches

    scores = np.zeros((len(rows), len(model.tags)), dtype=np.float32)
    waiting: dict[int, list[npt.NDArray[np.float32]]] = {}
    batches = prefetched_evaluation_batches(
        store,
        rows,
        batch_size=config.evaluation_batch_size,
        prefetch=config.prefetch,
    )

    def finish(position: int) -> None:
        scores[position] = model.clip_scores(np.concatenate(waiting.pop(position)))

    with progress_bar(title, len(rows)) as advance:
        for windows, positions in batches:
            window_scores = model.score_windows(windows)
            for position in np.unique(positions):
                waiting.setdefault(int(position), []).append(window_scores[positions == position])
            # Clips come in order: all but the last one of a batch are complete.
            for position in [p for p in waiting if p < positions[-1]]:
                finish(position)
                advance(1, "")
        for position in list(waiting):
            finish(position)
            advance(1, "")
    return scores
