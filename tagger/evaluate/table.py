"""An evaluation as text for people, readable at any number of tags."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tagger.base.text import LINE_WIDTH
from tagger.metrics.calibration import Reliability

if TYPE_CHECKING:
    from tagger.evaluate.evaluation import Evaluation
    from tagger.evaluate.measure import TagsMeasured

_NAME_WIDTH = 24
# Of what the averages are called.
_TITLE = 19
_N_PAIRS = 10


def tag_paragraphs(evaluation: "Evaluation", measured: "TagsMeasured") -> list[list[str]]:
    """Summary, what goes with it, then a line per tag that was scored, the best first."""
    return [
        _head(evaluation, measured),
        _averages(measured),
        _published(evaluation, measured),
        _calibration(measured),
        _confusion(measured, evaluation.tags),
        _tags(measured, evaluation.tags),
    ]


def _head(evaluation: "Evaluation", measured: "TagsMeasured") -> list[str]:
    summary = measured.metrics.summary
    left_out = [
        tag
        for tag, area in zip(evaluation.tags, measured.metrics.roc_auc, strict=True)
        if math.isnan(area)
    ]
    counted = f" ({len(left_out)} without positives or negatives left out)" if left_out else ""
    lines = [
        f"{evaluation.source}: {summary['n_clips']} clips, "
        f"{summary['n_tags_scored']} of {summary['n_tags']} tags scored{counted}"
    ]
    if left_out:
        lines += wrapped("left out", left_out)
    return lines


def wrapped(title: str, words: Sequence[str]) -> list[str]:
    """Lines of words with commas in between, none longer than the page."""
    lines, line = [], f"{title}: "
    for number, word in enumerate(words):
        text = word + (", " if number < len(words) - 1 else "")
        if len(line) + len(text) > LINE_WIDTH and line.strip():
            lines.append(line.rstrip())
            line = "  "
        line += text
    return [*lines, line]


def figure(value: float, digits: int = 4) -> str:
    """Text of a figure; n/a where it cannot be computed."""
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None or math.isnan(ends[0]) else f"{ends[0]:.3f}-{ends[1]:.3f}"


def _averages(measured: "TagsMeasured") -> list[str]:
    summary, ends = measured.metrics.summary, measured.intervals.summary
    ways = ("macro", "weighted", "micro")
    lines = [f"{'':{_TITLE}}" + "".join(f" {way:>7} {'':11}" for way in ways).rstrip()]
    rows = [("ROC-AUC", "roc_auc"), ("PR-AUC", "pr_auc"), ("d' of the ROC-AUC", "d_prime")]
    decided = summary["n_tags_thresholded"] > 0
    if decided:
        rows += [(f"{name} *", name) for name in ("precision", "recall")] + [("F1 *", "f1")]
    for title, name in rows:
        cells = [
            f" {figure(summary[f'{name}_{way}']):>7} {_interval(ends.get(f'{name}_{way}')):11}"
            for way in ways
        ]
        lines.append((f"{title:{_TITLE}}" + "".join(cells)).rstrip())
    lines += [
        f"{'lift of PR-AUC':{_TITLE}} {figure(summary['lift_macro'], 2):>7}"
        " (over the positive rate, mean over tags)",
        f"{'best F1':{_TITLE}} {figure(summary['best_f1_macro']):>7}"
        " (with thresholds of these clips: an upper bound)",
        f"{'positive rate':{_TITLE}} {figure(summary['positive_rate']):>7} (of the tags scored)",
    ]
    for title, name in (("binary accuracy", "binary_accuracy"), ("Hamming loss", "hamming_loss")):
        lines.append(
            f"{title:{_TITLE}} {summary[name]:7.4f} (of all tags; saying no to everything: "
            f"{summary[f'{name}_all_no']:.4f})"
        )
    if decided:
        lines.append(
            f"* at the model's own thresholds, over the {summary['n_tags_thresholded']} tags that "
            "have one"
        )
    else:
        lines.append("precision, recall and F1: n/a, as no thresholds are stored")
    return [*lines, measured.intervals.describe()]


def _published(evaluation: "Evaluation", measured: "TagsMeasured") -> list[str]:
    if not evaluation.protocol.published:
        return []
    summary = measured.metrics.summary
    rows = [
        *(
            (item.model, item.roc_auc_macro, item.pr_auc_macro)
            for item in evaluation.protocol.published
        ),
        ("this evaluation", summary["roc_auc_macro"], summary["pr_auc_macro"]),
    ]
    return [f"{'published, macro':24} {'ROC-AUC':>8} {'PR-AUC':>8}"] + [
        f"{name:24} {figure(roc):>8} {figure(pr):>8}" for name, roc, pr in rows
    ]


def _calibration(measured: "TagsMeasured") -> list[str]:
    after, before = measured.reliability, measured.reliability_before
    if after is None:
        return ["calibration: n/a, as not all scores are between 0 and 1"]
    scored = measured.metrics.scored
    if not len(scored):
        return []

    how = f"{after.n_bins} bins of equal width"
    lines = [f"expected calibration error ({how}): {_error(after, scored)}"]
    if before is not None and measured.calibration is not None:
        lines.append(f"before {measured.calibration.method} calibration: {_error(before, scored)}")
    return lines


def _error(reliability: Reliability, scored: npt.NDArray[np.intp]) -> str:
    macro = float(reliability.errors()[scored].mean())
    return f"{figure(macro)} mean over tags, {figure(reliability.error(scored))} all together"


def _confusion(measured: "TagsMeasured", tags: Sequence[str]) -> list[str]:
    confusion = measured.confusion
    pairs = confusion.top_pairs(_N_PAIRS)
    if not pairs:
        return []
    lift = confusion.lift()
    whose = measured.confusion_thresholds
    return [
        f"errors that come together (thresholds: {whose})",
        f"{'missed':24} {'said wrongly':24} {'clips':>8} {'x chance':>8}",
    ] + [
        f"{tags[row][:_NAME_WIDTH]:24} {tags[column][:_NAME_WIDTH]:24} "
        f"{int(confusion.n_both[row, column]):8d} {lift[row, column]:8.1f}"
        for row, column in pairs
    ]


def _tags(measured: "TagsMeasured", tags: Sequence[str]) -> list[str]:
    """Line for each tag; what else is known of them is in the file of figures per tag."""
    metrics = measured.metrics
    decided = metrics.summary["n_tags_thresholded"] > 0
    ends = measured.intervals.per_tag["pr_auc"]
    bounded = not np.isnan(ends).all()
    lines = [
        f"{'tag':{_NAME_WIDTH}} {'ROC-AUC':>7} {'PR-AUC':>7}"
        + (f" {'95 %':>11}" if bounded else "")
        + f" {'clips':>6}"
        + (f" {'prec.':>5} {'recall':>6} {'F1':>5}" if decided else f" {'best F1':>7} {'at':>6}")
    ]
    order = metrics.scored[np.argsort(-metrics.roc_auc[metrics.scored], kind="stable")]
    for tag in order:
        line = (
            f"{tags[tag][:_NAME_WIDTH]:{_NAME_WIDTH}} "
            f"{metrics.roc_auc[tag]:7.4f} {metrics.pr_auc[tag]:7.4f}"
        )
        if bounded:
            line += f" {_interval(tuple(ends[tag])):>11}"
        line += f" {metrics.n_positive[tag]:6d}"
        if decided:
            precision, recall, f1 = (
                figure(float(values[tag]), 3)
                for values in (metrics.precision, metrics.recall, metrics.f1)
            )
            line += f" {precision:>5} {recall:>6} {f1:>5}"
        else:
            line += f" {metrics.best_f1[tag]:7.3f} {metrics.best_f1_threshold[tag]:6.3f}"
        lines.append(line)
    return lines
