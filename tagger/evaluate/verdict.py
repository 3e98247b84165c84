"""How good a model is, in words."""

import math

import numpy as np
import numpy.typing as npt

from preprocess.clips.label_checks import FEW_OF_A_TAG
from tagger.evaluate.evaluation import Evaluation
from tagger.evaluate.measure import TagsMeasured
from tagger.evaluate.measure_label import LabelMeasured
from tagger.evaluate.table import figure

# A larger lead over guessing is called good.
_GOOD, _FAIR = 0.5, 0.2


def verdict(evaluation: Evaluation) -> str:
    """Say how good a model is, in a sentence.

    Parameters
    ----------
    evaluation : Evaluation
        Of clips that were not used. Of a task that nobody has words for, the sentence is empty.
    """
    measured = evaluation.measured
    counts: npt.NDArray[np.int64]
    if isinstance(measured, LabelMeasured):
        figures = measured.figures
        name, value = "accuracy", figures.summary["accuracy"]
        guessing, whose = figures.majority["accuracy"], "always the most frequent label"
        each, kind = figures.f1, "labels"
        counts = figures.matrix.sum(axis=1)
    elif isinstance(measured, TagsMeasured):
        metrics = measured.metrics
        name, value = "PR-AUC", float(metrics.summary["pr_auc_macro"])
        guessing, whose = float(metrics.summary["positive_rate"]), "guessing"
        each, kind = metrics.pr_auc, "tags"
        counts = np.asarray(metrics.n_positive)
    else:
        return ""
    head = f"{name} {figure(value, 2)}, {whose} {figure(guessing, 2)}: {_grade(value, guessing)}"
    details = []
    known = np.flatnonzero(~np.isnan(each))
    if len(known):
        weakest = known[np.argmin(each[known])]
        details.append(f"weakest: {evaluation.tags[weakest]}, {counts[weakest]} clips")
    # One without any was not measured at all.
    n_few = int(((counts < FEW_OF_A_TAG) & (counts > 0)).sum())
    if n_few:
        details.append(f"{n_few} of {len(counts)} {kind} have fewer than {FEW_OF_A_TAG} clips")
    return "; ".join([head, *details])


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
