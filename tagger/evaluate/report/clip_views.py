"""What a report can show of the clips of an evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tagger.metrics.columns import Columns
from tagger.tagging.prediction import Prediction

# Scores over time of the clip at a row of an evaluation.
Taggrams = Callable[[int], Prediction]


@dataclass(frozen=True)
class ClipViews:
    """Labels and scores of clips, and how to see and hear one.

    Parameters
    ----------
    columns : Columns
        Labels, and the scores as the model gives them, which are calibrated where the model is.
    taggram : callable, optional
        Scores over time of the clip at a row.
    audio : callable, optional
        Audio file of the clip at a row; None if it is not at hand.
    """

    columns: Columns
    taggram: Taggrams | None = None
    audio: Callable[[int], Path | None] | None = None
