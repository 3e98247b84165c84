"""What an evaluation is: metrics of one set of clips, and what is needed to show them."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.evaluate.leakage import Leakage
from tagger.evaluate.measure import Measured
from tagger.evaluate.protocol_names import Clips, ProtocolUse
from tagger.metrics.bootstrap import Intervals
from tagger.metrics.calibration import Calibration, Reliability
from tagger.metrics.confusion import Confusion
from tagger.metrics.figures import TAG_FIGURES, MultilabelMetrics
from tagger.metrics.score_files import open_scores
from tagger.metrics.score_table import Columns

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one set of clips, and what is needed to show them.

    Parameters
    ----------
    source : str
        What was evaluated.
    part : str
        Which clips of it.
    tags : tuple of str
        Names, in the order of the metrics.
    measured : Measured
        The figures.
    files : dict of str to Path
        What was written, by kind.
    scores : Path
        Archive of labels and scores; see `open_columns`.
    clips : Clips
        Names of its rows, where they are known.
    protocol : ProtocolUse
        On which clips and tags, with published results of the same.
    leakage : Leakage, optional
        Of the split, where there is one.
    history : list of dict
        A row per epoch of training; empty where there was none.
    notes : tuple of str
        What a reader should know, a line each.
    failures : dict of str to str
        Clips that could not be read: path -> reason.
    audio_root : Path, optional
        Folder that the paths of the clips are relative to.
    model : str, optional
        Run or bundle that gave the scores; None for an archive.
    """

    source: str
    part: str
    tags: tuple[str, ...]
    measured: Measured
    files: dict[str, Path]
    scores: Path
    clips: Clips
    protocol: ProtocolUse
    leakage: Leakage | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    failures: dict[str, str] = field(default_factory=dict)
    audio_root: Path | None = None
    model: str | None = None

    @property
    def metrics(self) -> MultilabelMetrics:
        """Figures: arrays per tag and a summary."""
        return self.measured.metrics

    @property
    def intervals(self) -> Intervals:
        """Bootstrap intervals of the metrics."""
        return self.measured.intervals

    @property
    def reliability(self) -> Reliability | None:
        """Of the scores; None where they are not all between 0 and 1."""
        return self.measured.reliability

    @property
    def reliability_before(self) -> Reliability | None:
        """Of the model's own scores, where they were calibrated."""
        return self.measured.reliability_before

    @property
    def calibration(self) -> Calibration | None:
        """What the scores went through."""
        return self.measured.calibration

    @property
    def confusion(self) -> Confusion:
        """Which tag is missed while which other is said."""
        return self.measured.confusion

    @property
    def confusion_thresholds(self) -> str:
        """Whose thresholds decide there."""
        return self.measured.confusion_thresholds

    @contextmanager
    def open_columns(self) -> Iterator[Columns]:
        """Labels and scores again, tag by tag: ``labels, scores = columns.column(tag)``."""
        with open_scores(self.scores) as archive:
            yield archive.columns

    def to_json(self) -> dict[str, Any]:
        """Plain values, all but scores and history; what cannot be computed is null."""
        scored = self.metrics.scored
        return {
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "part": self.part,
            "protocol": self.protocol.to_json(),
            **{name: _number(value) for name, value in self.metrics.summary.items()},
            "tags_not_scored": [
                tag for number, tag in enumerate(self.tags) if number not in set(scored.tolist())
            ],
            "tags": [self._tag_to_json(number) for number in range(len(self.tags))],
            "intervals": self.intervals.to_json(),
            "calibration": {
                "method": "none" if self.calibration is None else self.calibration.method,
                "reliability": _reliability_to_json(self.reliability, scored),
                "reliability_before": _reliability_to_json(self.reliability_before, scored),
            },
            "confusion": {
                "thresholds": self.confusion_thresholds,
                **self.confusion.to_json(self.tags),
            },
            "leakage": None if self.leakage is None else self.leakage.to_json(),
            "notes": list(self.notes),
            "failures": self.failures,
        }

    def _tag_to_json(self, tag: int) -> dict[str, Any]:
        values: dict[str, Any] = {
            "tag": self.tags[tag],
            "n_positive": int(self.metrics.n_positive[tag]),
        }
        for name in TAG_FIGURES:
            values[name] = _number(float(getattr(self.metrics, name)[tag]))
        for name, ends in self.intervals.per_tag.items():
            pair = [_number(float(end)) for end in ends[tag]]
            values[f"{name}_interval"] = None if None in pair else pair
        error = None if self.reliability is None else float(self.reliability.errors()[tag])
        values["ece"] = _number(error)
        return values

    def table(self) -> str:
        """Text for people: the summary, then a line per tag that was scored."""
        from tagger.evaluate.table import evaluation_table

        return evaluation_table(self)


def _reliability_to_json(
    reliability: Reliability | None, tags: npt.NDArray[np.intp]
) -> dict[str, Any] | None:
    return None if reliability is None else reliability.to_json(tags)


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json_text(evaluation: Evaluation) -> str:
    """Return the evaluation as one JSON document."""
    return json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False)
