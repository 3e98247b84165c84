"""Clip scores before calibration, of clips of a store or of audio files, by any model."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from preprocess.store.store import Store
from tagger.base.errors import TaggerError
from tagger.base.log import progress_bar
from tagger.config import Config
from tagger.evaluate.protocol_names import Clips
from tagger.runs.model import RunModel
from tagger.scoring.scorer import Floats
from tagger.tagging.tagger import Tagger

# Clips that are scored before their scores go on.
_CLIPS_AT_ONCE = 16384
# What a network makes of a window may take some megabytes.
_WINDOWS_AT_ONCE = 16


def scores_of_run(
    model: RunModel, store: Store, rows: Sequence[int], *, config: Config, title: str
) -> Iterator[Floats]:
    """Scores of clips of a store by a run's network, in batches of windows of many clips.

    Parameters
    ----------
    model : RunModel
        What scores.
    store : Store
        Where the windows are.
    rows : sequence of int
        Which clips.
    config : Config
        How many windows at once.
    title : str
        Of the progress bar.

    Yields
    ------
    np.ndarray [shape=(n_tags,), dtype=float32]

    Raises
    ------
    StoreError
        If a clip cannot be read.
    """
    from tagger.train.score_clips import score_clips

    for first in range(0, len(rows), _CLIPS_AT_ONCE):
        some = list(rows[first : first + _CLIPS_AT_ONCE])
        yield from score_clips(model.network, store, rows=some, config=config.stream, title=title)


def scores_of_store(
    tagger: Tagger, store: Store, rows: Sequence[int], *, title: str
) -> Iterator[Floats]:
    """Scores of clips of a store, one clip after the other; as `scores_of_run`."""
    head = tagger.model.clip_head
    scorer = tagger.model.make_scorer(head.outputs, n_threads=tagger.jobs)
    with progress_bar(title, len(rows)) as advance:
        for row in rows:
            windows = store.read(row)
            n_windows = len(next(iter(windows.values())))
            parts = [
                scorer(
                    {
                        name: array[at : at + _WINDOWS_AT_ONCE].astype(np.float32)
                        for name, array in windows.items()
                    }
                )
                for at in range(0, n_windows, _WINDOWS_AT_ONCE)
            ]
            yield head(
                {name: np.concatenate([part[name] for part in parts]) for name in head.outputs}
            )
            advance(1, "")


def scores_of_audio(
    tagger: Tagger, root: Path, clips: Clips, *, title: str
) -> Iterator[Floats | TaggerError]:
    """Scores of audio files below `root`; an error comes in the place of one that is unusable."""
    paths = [root / path for path in clips.paths]
    with progress_bar(title, len(paths)) as advance:
        for _, found in tagger.attempt_outputs(paths):
            yield found if isinstance(found, TaggerError) else tagger.model.clip_head(found.outputs)
            advance(1, "")
