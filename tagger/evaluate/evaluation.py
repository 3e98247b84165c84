"""What an evaluation is: metrics of one set of clips, and what is needed to show them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tagger.base.text import LINE_WIDTH, folded
from tagger.evaluate.leakage import Leakage
from tagger.evaluate.protocol_names import Clips, ProtocolUse
from tagger.metrics.columns import Columns
from tagger.metrics.measured import Measured
from tagger.metrics.score_files import read_scores

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
        Archive of labels and scores; see `columns`.
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

    def columns(self) -> Columns:
        """Labels and scores again, tag by tag: ``labels, scores = columns.column(tag)``."""
        return read_scores(self.scores).columns

    def to_json(self) -> dict[str, Any]:
        """Plain values, all but scores and history; what cannot be computed is null."""
        return {
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "part": self.part,
            "protocol": self.protocol.to_json(),
            **self.measured.to_json(self.tags),
            "leakage": None if self.leakage is None else self.leakage.to_json(),
            "notes": list(self.notes),
            "failures": self.failures,
        }

    def table(self) -> str:
        """Text for people: the summary, then what the task has to say of each output."""
        head, *others = self.measured.table(self)
        protocol = f"protocol: {self.protocol.name} ({self.protocol.summary})"
        head = [*head, protocol, *(f"note: {note}" for note in self.notes)]
        paragraphs = [head, *others]
        if self.leakage is not None:
            # Before the longest of them, which comes last.
            part = "test" if self.part == "all" else self.part
            leaked = [f"leakage: {line}" for line in self.leakage.lines(part)]
            paragraphs.insert(len(paragraphs) - 1, leaked)
        return "\n\n".join(
            "\n".join(part for line in lines for part in _fitting(line))
            for lines in paragraphs
            if lines
        )


def _fitting(line: str) -> list[str]:
    """Fold a sentence that is too long; rows of tables are not."""
    return folded(line) if len(line) > LINE_WIDTH else [line]


def to_json_text(evaluation: Evaluation) -> str:
    """Return the evaluation as one JSON document."""
    return json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False)
