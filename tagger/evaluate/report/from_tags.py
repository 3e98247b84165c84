"""What was measured of tags, as sections of a report."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tagger.base.blocks import Section
from tagger.evaluate.report.contents import (
    Contents,
    Estimate,
    HeadlineRow,
    Reliability,
    TagFigures,
)
from tagger.evaluate.report.sections import tag_sections

if TYPE_CHECKING:
    from tagger.evaluate.evaluation import Evaluation
    from tagger.evaluate.measure import TagsMeasured
    from tagger.evaluate.report.clip_views import ClipViews
    from tagger.metrics import calibration

_METRICS = (("ROC-AUC", "roc_auc"), ("PR-AUC", "pr_auc"))
_AVERAGES = ("macro", "weighted", "micro")
_COLUMNS = (
    ("lift", "lift"),
    ("d'", "d_prime"),
    ("best F1", "best_f1"),
    ("best F1 at", "best_f1_threshold"),
    ("threshold", "threshold"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("F1", "f1"),
)
_CONFUSED_PAIRS = 12


def sections_of(
    evaluation: "Evaluation", measured: "TagsMeasured", clips: "ClipViews"
) -> list[Section]:
    """Sections on tags, clips, calibration and confusions.

    Parameters
    ----------
    evaluation : Evaluation
        What was evaluated.
    measured : TagsMeasured
        What was found.
    clips : ClipViews
        Labels and scores of the clips.
    """
    confusion = measured.confusion
    lift = confusion.lift()
    contents = Contents(
        facts=[
            ("source", evaluation.source),
            ("clips of", evaluation.part),
            ("protocol", f"{evaluation.protocol.name} ({evaluation.protocol.summary})"),
            ("intervals", measured.intervals.describe()),
        ],
        tags=evaluation.tags,
        columns=clips.columns,
        per_tag=_tag_figures(measured),
        headline=headline_of(evaluation, measured),
        thresholded=_thresholded(measured),
        reliability=_reliability(measured, measured.metrics.scored),
        confusion=confusion.n_both,
        confused=[
            (row, column, int(confusion.n_both[row, column]), float(lift[row, column]))
            for row, column in confusion.top_pairs(_CONFUSED_PAIRS)
        ],
        confusion_thresholds=measured.confusion_thresholds,
        clip_names=evaluation.clips.paths or evaluation.clips.ids or None,
        taggram=clips.taggram,
        audio=clips.audio,
    )
    return tag_sections(contents)


def _tag_figures(measured: "TagsMeasured") -> TagFigures:
    metrics = measured.metrics
    more = {title: getattr(metrics, name) for title, name in _COLUMNS}
    ends = measured.intervals.per_tag.get("pr_auc")
    known = ends is not None and not np.isnan(ends).all()
    own = not np.isnan(metrics.threshold).all()
    return TagFigures(
        n_positive=metrics.n_positive,
        roc_auc=metrics.roc_auc,
        pr_auc=metrics.pr_auc,
        more={title: values for title, values in more.items() if not np.isnan(values).all()},
        pr_auc_low=ends[:, 0] if known and ends is not None else None,
        pr_auc_high=ends[:, 1] if known and ends is not None else None,
        thresholds=metrics.threshold if own else metrics.best_f1_threshold,
    )


def headline_of(evaluation: "Evaluation", measured: "TagsMeasured") -> list[HeadlineRow]:
    """Averages of ours, of published models, and of saying no to everything."""
    summary, ends = measured.metrics.summary, measured.intervals.summary
    nan = (float("nan"), float("nan"))
    ours = {
        (title, average): Estimate(
            summary[f"{name}_{average}"], *ends.get(f"{name}_{average}", nan)
        )
        for average in _AVERAGES
        for title, name in _METRICS
    }
    published = [
        HeadlineRow(
            f"{item.model} (published)",
            {
                ("ROC-AUC", "macro"): Estimate(item.roc_auc_macro),
                ("PR-AUC", "macro"): Estimate(item.pr_auc_macro),
            },
        )
        for item in evaluation.protocol.published
    ]
    # All scores are equal: the precision is the positive rate, whatever the recall.
    n_positive = measured.metrics.n_positive[measured.metrics.scored].astype(np.float64)
    no = {("ROC-AUC", average): Estimate(0.5) for average in _AVERAGES}
    no |= {("PR-AUC", average): Estimate(summary["positive_rate"]) for average in _AVERAGES}
    if len(n_positive):
        weighted = (n_positive**2).sum() / n_positive.sum() / summary["n_clips"]
        no["PR-AUC", "weighted"] = Estimate(float(weighted))
    return [
        HeadlineRow("this evaluation", ours, ours=True),
        *published,
        HeadlineRow("says no to everything", no),
    ]


def _thresholded(measured: "TagsMeasured") -> list[tuple[str, float, float]]:
    summary = measured.metrics.summary
    rows = [
        (f"{title}, all tags", summary[name], summary[f"{name}_all_no"])
        for title, name in (
            ("binary accuracy", "binary_accuracy"),
            ("Hamming loss", "hamming_loss"),
        )
    ]
    if summary["n_tags_thresholded"]:
        rows += [
            (f"{title} at the model's thresholds, macro", summary[f"{name}_macro"], no)
            for title, name, no in (
                ("precision", "precision", float("nan")),
                ("recall", "recall", 0.0),
                ("F1", "f1", 0.0),
            )
        ]
    return rows


def _reliability(measured: "TagsMeasured", tags: npt.NDArray[np.intp]) -> list[Reliability]:
    if not len(tags):
        return []
    after, before = measured.reliability, measured.reliability_before
    curves = []
    if before is not None:
        curves.append(_curve("before calibration", before, tags))
    if after is not None:
        method = "" if measured.calibration is None else measured.calibration.method
        name = f"after {method} calibration" if method else "as they come"
        curves.append(_curve(name, after, tags))
    return curves


def _curve(
    name: str, reliability: "calibration.Reliability", tags: npt.NDArray[np.intp]
) -> Reliability:
    mean_score, share, counts = reliability.curve(tags)
    return Reliability(name, mean_score, share, counts.astype(np.int64), reliability.error(tags))
