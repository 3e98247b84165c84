"""What labels and scores tell of clips with one label each, and how people are told."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tagger.base.blocks import Block, Cell, Heading, Number, Paragraph, Picture, Section, Table
from tagger.evaluate.table import figure
from tagger.metrics.bootstrap import LEVEL, N_RESAMPLES
from tagger.metrics.columns import Columns, stacked
from tagger.metrics.measured import Measured
from tagger.metrics.single_label import TITLES, LabelFigures, label_of_clips, single_label_figures

if TYPE_CHECKING:
    from tagger.evaluate.evaluation import Evaluation
    from tagger.evaluate.report.clip_views import ClipViews

_N_PAIRS = 10
_NAME_WIDTH = 24
# Larger matrices cannot be read as a picture.
_MOST_LABELS = 60
_OF_LABELS = ("precision", "recall", "f1", "roc_auc", "pr_auc")


@dataclass(frozen=True)
class LabelMeasured(Measured):
    """Figures of a task with one label for each clip.

    Parameters
    ----------
    figures : LabelFigures
        What was found.
    threshold : float, optional
        Probability below which the model says ``unknown``; None where it always answers.
    n_answered, n_right : int
        Clips that it answers with that threshold, and how many of the answers are right.
    """

    figures: LabelFigures
    threshold: float | None = None
    n_answered: int = 0
    n_right: int = 0

    @property
    def summary(self) -> dict[str, float]:
        """All figures, and the number of clips."""
        return {"n_clips": self.figures.n_clips, **self.figures.summary}

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """As of `tagger.metrics.measured.Measured`."""
        figures = self.figures
        return {
            **{name: _plain(value) for name, value in self.summary.items()},
            "majority": {name: _plain(value) for name, value in figures.majority.items()},
            "intervals": {
                "level": LEVEL,
                "n_draws": figures.draws.n,
                "seed": figures.draws.seed,
                "description": figures.draws.description,
                "note": figures.draws.note,
                **{
                    name: None if any(map(math.isnan, ends)) else list(ends)
                    for name, ends in figures.intervals.items()
                },
            },
            "unknown": {
                "threshold": self.threshold,
                "n_answered": self.n_answered,
                "n_right": self.n_right,
            },
            "labels": [
                {
                    "label": name,
                    "n_clips": int(figures.matrix[row].sum()),
                    **{key: _plain(float(getattr(figures, key)[row])) for key in _OF_LABELS},
                }
                for row, name in enumerate(names)
            ],
            "confusion": figures.matrix.tolist(),
        }

    def rows(self, names: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
        """Figures of each label."""
        columns = [getattr(self.figures, key) for key in _OF_LABELS]
        support = self.figures.matrix.sum(axis=1)
        rows = [list(row) for row in zip(names, support, *columns, strict=True)]
        return ["label", "n_clips", *_OF_LABELS], rows

    def table(self, evaluation: "Evaluation") -> list[list[str]]:
        """Summary beside that of the most frequent label, confusions, and a line per label."""
        figures = self.figures
        names = evaluation.tags
        head = [f"{evaluation.source}: {figures.n_clips} clips, {len(names)} labels"]
        lines = [f"{'':38} {'':>7} {'':11} {'most frequent label':>20}"]
        for name, title in TITLES.items():
            low, high = figures.intervals.get(name, (math.nan, math.nan))
            ends = "" if math.isnan(low) else f"{low:.3f}-{high:.3f}"
            lines.append(
                f"{title:38} {figure(figures.summary[name]):>7} {ends:11} "
                f"{figure(figures.majority[name]):>20}"
            )
        lines.append(_drawn(figures))
        return [
            head,
            lines,
            [self._unknown()] if self.threshold is not None else [],
            self._confused(names),
            self._labels(names),
        ]

    def _unknown(self) -> str:
        share = self.n_right / self.n_answered if self.n_answered else math.nan
        return (
            f"with 'unknown' below {self.threshold:.2f}: answers {self.n_answered} of "
            f"{self.figures.n_clips} clips, {figure(share)} of the answers are right"
        )

    def _confused(self, names: Sequence[str]) -> list[str]:
        pairs = self.figures.confused(_N_PAIRS)
        if not pairs:
            return []
        return [f"{'label':{_NAME_WIDTH}} {'said instead':{_NAME_WIDTH}} {'clips':>8}"] + [
            f"{names[row][:_NAME_WIDTH]:{_NAME_WIDTH}} "
            f"{names[column][:_NAME_WIDTH]:{_NAME_WIDTH}} {count:8d}"
            for row, column, count in pairs
        ]

    def _labels(self, names: Sequence[str]) -> list[str]:
        figures = self.figures
        support = figures.matrix.sum(axis=1)
        lines = [
            f"{'label':{_NAME_WIDTH}} {'F1':>8} {'prec.':>8} {'recall':>8} {'ROC-AUC':>8} "
            f"{'PR-AUC':>8} {'clips':>8}"
        ]
        for row in np.argsort(-np.nan_to_num(figures.f1, nan=-1), kind="stable"):
            cells = (figures.f1, figures.precision, figures.recall, figures.roc_auc, figures.pr_auc)
            texts = " ".join(f"{figure(float(values[row])):>8}" for values in cells)
            lines.append(f"{names[row][:_NAME_WIDTH]:{_NAME_WIDTH}} {texts} {support[row]:8d}")
        return lines

    def sections(self, evaluation: "Evaluation", clips: "ClipViews") -> list[Section]:
        """Summary, confusion matrix and labels."""
        del clips
        return [
            Section("Summary", list(self._summary_blocks(evaluation))),
            Section("Confusions", list(self._confusion_blocks(evaluation.tags))),
            Section("Table of labels", list(self._label_blocks(evaluation.tags))),
        ]

    def _summary_blocks(self, evaluation: "Evaluation") -> Iterator[Block]:
        figures = self.figures
        protocol = evaluation.protocol
        yield Table(
            ("evaluated", ""),
            [
                ("source", evaluation.source),
                ("clips", f"{figures.n_clips} of {evaluation.part}"),
                ("labels", f"{len(evaluation.tags)}"),
                ("protocol", f"{protocol.name} ({protocol.summary})"),
                ("intervals", _drawn(figures)),
            ],
        )
        yield Heading("How good it is")
        rows: list[list[Cell]] = []
        for name, title in TITLES.items():
            low, high = figures.intervals.get(name, (math.nan, math.nan))
            note = "" if math.isnan(low) else f"{low:.4f}–{high:.4f}"
            value = figures.summary[name]
            rows.append(
                [title, Number(value, figure(value), note), _number(figures.majority[name])]
            )
        yield Table(("", "this evaluation", "always the most frequent label"), rows)
        if self.threshold is not None:
            unknown = self._unknown()
            yield Paragraph(f"{unknown[:1].upper()}{unknown[1:]}.")

    def _confusion_blocks(self, names: Sequence[str]) -> Iterator[Block]:
        figures = self.figures
        if len(names) <= _MOST_LABELS:
            yield Picture(
                "confusion",
                partial(_confusion_map, figures, tuple(names)),
                "Clips by their label and by what was said",
            )
        pairs = figures.confused(_N_PAIRS)
        if pairs:
            yield Table(
                ("label", "said instead", "clips"),
                [
                    [names[row], names[column], Number(count, str(count))]
                    for row, column, count in pairs
                ],
            )
        else:
            yield Paragraph("Every clip was given its label.")

    def _label_blocks(self, names: Sequence[str]) -> Iterator[Block]:
        figures = self.figures
        support = figures.matrix.sum(axis=1)
        rows: list[list[Cell]] = [
            [
                name,
                *(_number(float(getattr(figures, key)[row])) for key in _OF_LABELS),
                Number(int(support[row]), str(support[row])),
            ]
            for row, name in enumerate(names)
        ]
        titles = ("precision", "recall", "F1", "ROC-AUC", "PR-AUC")
        yield Table(("label", *titles, "clips"), rows, sortable=True)


def _confusion_map(figures: LabelFigures, names: Sequence[str]) -> Any:
    from tagger.evaluate.report.figures import confusion_map

    return confusion_map(
        figures.matrix, missed=names, given=names, row_title="label", column_title="said"
    )


def _drawn(figures: LabelFigures) -> str:
    draws = figures.draws
    if not draws.n:
        return draws.note or "no intervals were asked for"
    return (
        f"{100 * LEVEL:g} % bootstrap intervals, {draws.description} "
        f"({draws.n} draws, seed {draws.seed})"
    )


def _number(value: float) -> Number:
    return Number(value, "–" if math.isnan(value) else f"{value:.4f}")


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def measure_labels(
    columns: Columns,
    *,
    thresholds: npt.NDArray[np.float64] | None,
    artists: Sequence[str] = (),
    n_draws: int = N_RESAMPLES,
    seed: int = 0,
) -> LabelMeasured:
    """Measure everything that labels and scores of clips with one label each tell.

    Parameters
    ----------
    columns : Columns
        Labels, and what the model says.
    thresholds : np.ndarray [shape=(n_labels,)], optional
        Probability below which the answer is ``unknown``, the same for all labels; NaN for none.
    artists : sequence of str
        Of the clips, where they are known.
    n_draws, seed : int
        Of the bootstrap.

    Raises
    ------
    ValueError
        If there are no clips, or one has not exactly one label.
    """
    labels, scores = stacked(columns)
    figures = single_label_figures(labels, scores, artists=artists, n_draws=n_draws, seed=seed)
    if thresholds is None or np.isnan(thresholds).all():
        return LabelMeasured(figures)
    threshold = float(np.nanmax(thresholds))
    answered = scores.max(axis=1) >= np.asarray(threshold, dtype=scores.dtype)
    right = scores.argmax(axis=1) == label_of_clips(labels)
    return LabelMeasured(
        figures,
        threshold=threshold,
        n_answered=int(answered.sum()),
        n_right=int((answered & right).sum()),
    )
