"""How good a fitted model is, in words, and what to do next."""

import math
import shlex
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.clips.label_checks import FEW_OF_A_TAG
from tagger.evaluate.evaluation import Evaluation
from tagger.evaluate.measure import TagsMeasured
from tagger.evaluate.measure_label import LabelMeasured
from tagger.evaluate.table import figure

# A larger lead over guessing is called good.
_GOOD, _FAIR = 0.5, 0.2


def verdict(
    evaluation: Evaluation,
    counts: npt.NDArray[np.int64],
    *,
    run: Path,
    middle_seconds: float | None = None,
) -> tuple[str, ...]:
    """Say how good a model is.

    Parameters
    ----------
    evaluation : Evaluation
        Of clips that were not used.
    counts : np.ndarray [shape=(n_tags,), dtype=int64]
        Clips that carry each tag.
    run : Path
        Where it is.
    middle_seconds : float, optional
        What it has heard of the middle of each clip; None for all of it.
    """
    measured = evaluation.measured
    if isinstance(measured, LabelMeasured):
        figures = measured.figures
        name, value = "accuracy", figures.summary["accuracy"]
        guessing, whose = figures.majority["accuracy"], "always the most frequent label"
        each = figures.f1
    else:
        assert isinstance(measured, TagsMeasured)
        metrics = measured.metrics
        name, value = "PR-AUC", float(metrics.summary["pr_auc_macro"])
        guessing, whose = float(metrics.summary["positive_rate"]), "guessing"
        each = metrics.pr_auc
    head = f"{name} {figure(value, 2)}, {whose} {figure(guessing, 2)}: {_grade(value, guessing)}"
    details = []
    known = np.flatnonzero(~np.isnan(each))
    if len(known):
        weakest = known[np.argmin(each[known])]
        details.append(f"weakest: {evaluation.tags[weakest]}, {counts[weakest]} clips")
    n_few = int((counts < FEW_OF_A_TAG).sum())
    if n_few:
        kind = "labels" if isinstance(measured, LabelMeasured) else "tags"
        details.append(f"{n_few} of {len(counts)} {kind} have fewer than {FEW_OF_A_TAG} clips")
    model = f"--model {shlex.quote(str(run))}"
    if middle_seconds is not None:
        # Measured on the middle: whole songs are another matter.
        model += f" --window-middle {middle_seconds:.3g}"
    return ("; ".join([head, *details]), f"next: tagger predict-tags {model} SONG")


def _grade(value: float, guessing: float) -> str:
    if math.isnan(value):
        return "cannot be told from these clips"
    # The share of what guessing leaves to gain.
    lead = (value - guessing) / max(1 - guessing, 1e-9)
    if lead >= _GOOD:
        return "good"
    if lead >= _FAIR:
        return "fair; more clips of the weak ones help most"
    return "hardly better than guessing; check the labels, or give more clips"
