"""The verb ``compare``: which differences between two models are more than chance."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.clips.splits import PARTS
from tagger.base.errors import ModelError
from tagger.evaluate.evaluate_fitted import FOLDS
from tagger.evaluate.protocols import PROTOCOLS
from tagger.evaluate.table import figure, wrapped
from tagger.metrics.bootstrap import (
    FEWEST_CLUSTERS,
    LEVEL,
    METRICS,
    N_RESAMPLES,
    Difference,
    Draws,
    Resampled,
    difference_of,
    plan_draws,
    resample,
)
from tagger.metrics.columns import ArrayColumns, Columns, stacked
from tagger.metrics.figures import MultilabelMetrics, metrics_of_columns
from tagger.metrics.score_files import ScoreArchive, first_line, read_scores
from tagger.metrics.single_label import label_of_clips, mcnemar, resample_labels
from tagger.network.task import TASKS
from tagger.runs.folder import RunFolder

SCHEMA_VERSION = 1
_LABEL_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "F1, macro",
}
_TITLES = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}


@dataclass(frozen=True)
class Comparison:
    """Differences between two models on the same clips and tags.

    Parameters
    ----------
    first, second : str
        What was compared.
    n_clips : int
        Clips.
    tags : tuple of str
        Names of the tags that both have.
    left_out : tuple of str
        Tags that only one of them has, or that have no positives or no negatives.
    summary : tuple of Difference
        Of the averages.
    per_tag : dict of str to tuple of Difference
        By metric, of each tag that was scored.
    draws : Draws
        How clips were drawn.
    mcnemar : tuple of (int, int, float), optional
        Of one label for each clip: clips on which A alone and B alone is right, and McNemar's p.
    """

    first: str
    second: str
    n_clips: int
    tags: tuple[str, ...]
    left_out: tuple[str, ...]
    summary: tuple[Difference, ...]
    per_tag: dict[str, tuple[Difference, ...]]
    draws: Draws
    mcnemar: tuple[int, int, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "a": self.first,
            "b": self.second,
            "n_clips": self.n_clips,
            "n_tags_scored": len(self.per_tag["pr_auc"]),
            "left_out": list(self.left_out),
            "level": LEVEL,
            "n_draws": self.draws.n,
            "seed": self.draws.seed,
            "description": self.draws.description,
            "mcnemar": None if self.mcnemar is None else list(self.mcnemar),
            "summary": [_plain(item) for item in self.summary],
            "tags": {
                name: [_plain(item) for item in items] for name, items in self.per_tag.items()
            },
        }

    def to_json_text(self) -> str:
        """Return the comparison as one JSON document."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False)

    def table(self) -> str:
        """Text for people: the averages, then the tags, the largest difference first."""
        lines = [
            f"A: {self.first}",
            f"B: {self.second}",
            f"{self.n_clips} clips, {len(self.per_tag['pr_auc'])} tags; paired bootstrap "
            f"{self.draws.description} ({self.draws.n} draws, seed {self.draws.seed})",
        ]
        if self.left_out:
            lines += wrapped("left out", self.left_out)
        lines += ["", _head("metric"), *map(_row, self.summary)]
        if self.mcnemar is not None:
            n_first, n_second, p = self.mcnemar
            lines.append(
                f"right on {n_first} clips by A alone, on {n_second} by B alone: McNemar's p "
                f"{figure(p, 3)} (clips as if they had nothing to do with one another)"
            )
        for name, items in self.per_tag.items():
            n_real = sum(item.real for item in items)
            chance = (1 - LEVEL) * len(items)
            lines += [
                "",
                f"{_TITLES[name]} by tag: {n_real} of {len(items)} differ "
                f"(of equal models about {chance:.1f} would)",
                _head("tag"),
                *map(_row, sorted(items, key=lambda item: -abs(item.difference))),
            ]
        return "\n".join(lines)


def _head(what: str) -> str:
    return f"{what:22} {'A':>8} {'B':>8} {'B - A':>8} {'95 % interval':>16} {'p':>7}  real"


def _row(item: Difference) -> str:
    low, high = item.interval
    ends = "n/a" if math.isnan(low) else f"[{low:+.3f}, {high:+.3f}]"
    return (
        f"{item.name[:22]:22} {figure(item.first):>8} {figure(item.second):>8} "
        f"{item.difference:+8.4f} {ends:>16} {figure(item.p, 3):>7}  {'yes' if item.real else 'no'}"
    )


def _plain(item: Difference) -> dict[str, Any]:
    values = (item.first, item.second, item.difference, *item.interval, item.p)
    first, second, difference, low, high, p = (
        value if math.isfinite(value) else None for value in values
    )
    return {
        "name": item.name,
        "a": first,
        "b": second,
        "difference": difference,
        "interval": None if low is None else [low, high],
        "p": p,
        "real": item.real,
    }


class _Picked:
    """Some rows and columns of other columns, in another order."""

    def __init__(
        self, columns: Columns, rows: npt.NDArray[np.intp] | None, tags: Sequence[int]
    ) -> None:
        self._columns, self._rows, self._tags = columns, rows, tags

    @property
    def shape(self) -> tuple[int, int]:
        return self._columns.shape[0], len(self._tags)

    def column(self, tag: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.floating]]:
        labels, scores = self._columns.column(self._tags[tag])
        return (labels, scores) if self._rows is None else (labels[self._rows], scores[self._rows])


def compare(
    first: Path,
    second: Path,
    *,
    evaluation: str | None = None,
    n_draws: int = N_RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two models on the same clips, drawn together.

    Parameters
    ----------
    first, second : Path
        Archives of scores, or runs that were evaluated.
    evaluation : str, optional
        Which evaluation of a run, e.g. ``"test"`` or ``"won-test"``; default ``"folds"`` of one
        that was fitted, else ``"test"``.
    n_draws, seed : int
        Of the bootstrap.

    Returns
    -------
    Comparison
        Clips are matched by their ids and tags by their names, where both have them.

    Raises
    ------
    ModelError
        If scores are missing, they are of other clips or have other labels, no tag can be scored,
        or clips are too few or too many to draw from.
    """
    paths = [_scores_of(source, evaluation) for source in (first, second)]
    a, b = (read_scores(path) for path in paths)
    rows = _rows(a, b, second)
    tags, pairs, only_one = _tags(a, b, second)
    columns = (
        _Picked(a.columns, None, [pair[0] for pair in pairs]),
        _Picked(b.columns, rows, [pair[1] for pair in pairs]),
    )
    _require_same_labels(columns, tags, (first, second))
    artists = a.artists or _reordered(b.artists, rows)
    try:
        metrics = [metrics_of_columns(item) for item in columns]
    except ValueError as error:
        raise ModelError(f"{first}: {first_line(error)}; fix est and gt") from None
    n_clips, scored = columns[0].shape[0], metrics[0].scored
    _require_scored(metrics[0], first)
    draws = plan_draws(*columns[0].shape, artists=artists, n=n_draws, seed=seed)
    _require_draws(draws, first)
    drawn = resample(columns, draws, tags=scored)
    of_labels, tested = _label_differences((a, b), columns, draws)
    return Comparison(
        first=str(first),
        second=str(second),
        n_clips=n_clips,
        tags=tags,
        left_out=(*only_one, *(tag for n, tag in enumerate(tags) if n not in set(scored.tolist()))),
        summary=(*of_labels, *_averages(metrics, drawn)),
        mcnemar=tested,
        per_tag={
            name: tuple(
                difference_of(
                    tags[tag],
                    (float(getattr(metrics[0], name)[tag]), float(getattr(metrics[1], name)[tag])),
                    (drawn[0].per_tag[name][tag], drawn[1].per_tag[name][tag]),
                )
                for tag in scored
            )
            for name in METRICS
        },
        draws=draws,
    )


def _averages(
    metrics: Sequence[MultilabelMetrics], drawn: Sequence[Resampled]
) -> Iterator[Difference]:
    for name in drawn[0].summary:
        metric, _, average = name.rpartition("_")
        draws = (drawn[0].summary[name], drawn[1].summary[name])
        yield difference_of(f"{_TITLES[metric]} {average}", _points(metrics, name), draws)


def _require_same_labels(
    columns: Sequence[Columns], tags: Sequence[str], names: tuple[Path, Path]
) -> None:
    for number, tag in enumerate(tags):
        if not np.array_equal(columns[0].column(number)[0], columns[1].column(number)[0]):
            raise ModelError(
                f"{names[1]}: has other labels of {tag!r} than {names[0]}; "
                "compare scores of the same clips and labels"
            )


def _require_scored(metrics: MultilabelMetrics, first: Path) -> None:
    if not len(metrics.scored):
        raise ModelError(
            f"{first}: no tag has both positives and negatives among these "
            f"{metrics.summary['n_clips']} clips; compare scores of more clips"
        )


def _require_draws(draws: Draws, first: Path) -> None:
    if not draws.n:
        few = draws.n_clusters < FEWEST_CLUSTERS
        remedy = "compare scores of more of them" if few else "compare fewer clips or tags"
        raise ModelError(f"{first}: {draws.note or 'no draws'}; {remedy}")


def _points(metrics: Sequence[MultilabelMetrics], name: str) -> tuple[float, float]:
    return float(metrics[0].summary[name]), float(metrics[1].summary[name])


def _label_differences(
    archives: Sequence[ScoreArchive], columns: Sequence[Columns], draws: Draws
) -> tuple[list[Difference], tuple[int, int, float] | None]:
    """Differences of figures of one label for each clip, where both models give one."""
    if not all(TASKS.get(archive.task).decides_one for archive in archives):
        return [], None
    pairs = [ArrayColumns(*stacked(item)) for item in columns]
    (a, drawn_a), (b, drawn_b) = (resample_labels(item, draws) for item in pairs)
    found = [
        difference_of(title, (a[name], b[name]), (drawn_a[name], drawn_b[name]))
        for name, title in _LABEL_TITLES.items()
    ]
    true = label_of_clips(pairs[0].labels)
    right = [item.scores.argmax(axis=1) == true for item in pairs]
    return found, mcnemar(right[0], right[1])


def _scores_of(source: Path, evaluation: str | None) -> Path:
    """Archive of scores of a run or of an evaluation's folder."""
    if source.suffix.lower() == ".npz":
        return source
    if (source / "scores.npz").is_file():
        return source / "scores.npz"
    run = RunFolder.at(source)
    run.pull(leave=("checkpoints", "tensorboard", "bundle"))
    run.require()
    evaluation = evaluation or (FOLDS if run.is_fitted else "test")
    path = run.evaluation / evaluation / "scores.npz"
    if not path.is_file():
        raise ModelError(
            f"{run.address}: has no evaluation {evaluation!r}; {_how_to_make(run, evaluation)}"
        )
    return path


def _how_to_make(run: RunFolder, evaluation: str) -> str:
    """How the wanted evaluation is made: its folder is called PART or PROTOCOL-PART."""
    protocol, _, part = evaluation.rpartition("-")
    if part not in PARTS or protocol not in {"", *PROTOCOLS.names()} - {"own"}:
        return "choose PART or PROTOCOL-PART, e.g. --evaluation validation or won-test"
    options = f" --protocol {protocol}" if protocol else ""
    # The part that is evaluated by default.
    options += "" if part == "test" else f" --part {part}"
    return f"make it with: tagger evaluate {run.address}{options}"


def _rows(a: ScoreArchive, b: ScoreArchive, second: Path) -> npt.NDArray[np.intp] | None:
    """Rows of `b` in the order of `a`; None where they are in it."""
    n_clips = a.columns.shape[0]
    if b.columns.shape[0] != n_clips:
        raise ModelError(
            f"{second}: {b.columns.shape[0]} clips instead of {n_clips}; "
            "compare scores of the same clips"
        )
    if not a.clip_ids or not b.clip_ids or a.clip_ids == b.clip_ids:
        return None
    place = {clip: row for row, clip in enumerate(b.clip_ids)}
    missing = [clip for clip in a.clip_ids if clip not in place]
    if missing:
        raise ModelError(
            f"{second}: lacks {len(missing)} of the clips, e.g. {missing[0]!r}; "
            "compare scores of the same clips"
        )
    return np.array([place[clip] for clip in a.clip_ids], dtype=np.intp)


def _tags(
    a: ScoreArchive, b: ScoreArchive, second: Path
) -> tuple[tuple[str, ...], list[tuple[int, int]], list[str]]:
    """Tags that both have, their columns in each, and the tags of one alone."""
    if not (a.has_tags and b.has_tags):
        if a.columns.shape[1] != b.columns.shape[1]:
            raise ModelError(
                f"{second}: {b.columns.shape[1]} tags instead of {a.columns.shape[1]}, and no "
                "names to match them by; save the names as tags"
            )
        named = a if a.has_tags else b
        return named.tags, [(n, n) for n in range(len(named.tags))], []
    place = {tag: column for column, tag in enumerate(b.tags)}
    both = tuple(tag for tag in a.tags if tag in place)
    if not both:
        raise ModelError(f"{second}: has no tag of the first; compare models of the same tags")
    pairs = [(column, place[tag]) for column, tag in enumerate(a.tags) if tag in place]
    return both, pairs, sorted(set(a.tags) ^ set(b.tags))


def _reordered(names: tuple[str, ...], rows: npt.NDArray[np.intp] | None) -> tuple[str, ...]:
    return names if rows is None or not names else tuple(names[row] for row in rows)
