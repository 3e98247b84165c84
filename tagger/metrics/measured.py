"""What a task finds in labels and scores, and how people are told."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tagger.base.blocks import Number, Section, Table

if TYPE_CHECKING:
    from tagger.evaluate.evaluation import Evaluation
    from tagger.evaluate.report.clip_views import ClipViews


class Measured(ABC):
    """Contract of what was measured. An evaluation holds it and asks it to present itself."""

    @property
    @abstractmethod
    def summary(self) -> dict[str, float]:
        """Figures of all outputs together, by name."""

    @abstractmethod
    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain values; what cannot be computed is None.

        Parameters
        ----------
        names : sequence of str
            Of the outputs, e.g. tags.
        """

    @abstractmethod
    def table(self, evaluation: "Evaluation") -> list[list[str]]:
        """Lines for people, in paragraphs; the first says what was evaluated."""

    @abstractmethod
    def sections(self, evaluation: "Evaluation", clips: "ClipViews") -> list[Section]:
        """Sections of a report, the most important first.

        Parameters
        ----------
        evaluation : Evaluation
            What this was measured in.
        clips : ClipViews
            Labels and scores of the clips, and how to see and hear them.
        """

    def rows(self, names: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
        """Header and rows of a table with a row for each output; without rows unless overridden."""
        del names
        return ["tag"], []


class PlainFigures(Measured):
    """Figures by name, and nothing else: what a task has that says no more.

    Parameters
    ----------
    figures : dict of str to float
        NaN where one cannot be computed.
    n_clips : int
        What they are of.
    """

    def __init__(self, figures: dict[str, float], *, n_clips: int) -> None:
        self._figures = figures
        self._n_clips = n_clips

    @property
    def summary(self) -> dict[str, float]:
        """All figures."""
        return {"n_clips": self._n_clips, **self._figures}

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """As of `Measured`."""
        plain = {k: v if math.isfinite(v) else None for k, v in self.summary.items()}
        return {**plain, "outputs": list(names)}

    def table(self, evaluation: "Evaluation") -> list[list[str]]:
        """As of `Measured`."""
        return [
            [f"{evaluation.source}: {self._n_clips} clips"],
            [f"{name:24} {_shown(value):>8}" for name, value in self._figures.items()],
        ]

    def sections(self, evaluation: "Evaluation", clips: "ClipViews") -> list[Section]:
        """As of `Measured`."""
        del clips
        rows = [(name, Number(value, _shown(value))) for name, value in self._figures.items()]
        facts = [("source", evaluation.source), ("clips", f"{self._n_clips} of {evaluation.part}")]
        return [Section("Summary", [Table(("evaluated", ""), facts), Table(("figure", ""), rows)])]


def _shown(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.4f}"
