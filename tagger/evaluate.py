"""The verb ``evaluate``: how good are the scores of a run, or of anybody's model."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.store import Store
from tagger.config import Config
from tagger.errors import ModelError
from tagger.files import write_json
from tagger.metrics import MultilabelMetrics, metrics_of_columns
from tagger.mirror import local_store
from tagger.run_folder import RunFolder, write_csv
from tagger.score_files import first_line, open_scores, write_scores
from tagger.score_table import ScoreTable

SCHEMA_VERSION = 1
# Clips that are scored before their scores go to the table.
_CLIPS_AT_ONCE = 16384


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one set of clips.

    Parameters
    ----------
    source : str
        What was evaluated.
    part : str
        Which clips of it.
    tags : tuple of str
        Names, in the order of the metrics.
    metrics : MultilabelMetrics
        The figures.
    files : dict of str to Path
        What was written, by kind.
    """

    source: str
    part: str
    tags: tuple[str, ...]
    metrics: MultilabelMetrics
    files: dict[str, Path]

    def to_json(self) -> dict[str, Any]:
        """Plain values; a metric that cannot be computed is null."""
        rows = zip(
            self.tags,
            self.metrics.roc_auc,
            self.metrics.pr_auc,
            self.metrics.n_positive,
            strict=True,
        )
        return {
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "part": self.part,
            **{name: _number(value) for name, value in self.metrics.summary.items()},
            "tags": [
                {
                    "tag": tag,
                    "roc_auc": _number(float(roc_auc)),
                    "pr_auc": _number(float(pr_auc)),
                    "n_positive": int(n_positive),
                }
                for tag, roc_auc, pr_auc, n_positive in rows
            ],
        }

    def table(self) -> str:
        """Text for people: the summary, then a line per tag that was scored."""
        summary = self.metrics.summary
        n_left_out = summary["n_tags"] - summary["n_tags_scored"]
        left_out = f" ({n_left_out} without positives or negatives left out)" if n_left_out else ""
        lines = [
            f"{self.source}: {summary['n_clips']} clips, "
            f"{summary['n_tags_scored']} of {summary['n_tags']} tags scored{left_out}",
            "",
            f"{'':24} {'macro':>8} {'micro':>8}",
            f"{'ROC-AUC':24} {summary['roc_auc_macro']:8.4f} {summary['roc_auc_micro']:8.4f}",
            f"{'PR-AUC':24} {summary['pr_auc_macro']:8.4f} {summary['pr_auc_micro']:8.4f}",
            f"{'positive rate':24} {summary['positive_rate']:8.4f}   (of the tags scored)",
            f"{'binary accuracy':24} {summary['binary_accuracy']:8.4f}"
            f"   (of all tags; saying no to everything: "
            f"{summary['binary_accuracy_all_no']:.4f})",
            "",
            f"{'tag':24} {'ROC-AUC':>8} {'PR-AUC':>8} {'clips':>8}",
        ]
        for row in sorted(self.to_json()["tags"], key=lambda row: -(row["roc_auc"] or 0)):
            if row["roc_auc"] is not None:
                lines.append(
                    f"{row['tag'][:24]:24} {row['roc_auc']:8.4f} {row['pr_auc']:8.4f} "
                    f"{row['n_positive']:8d}"
                )
        return "\n".join(lines)


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def evaluate_scores(path: Path) -> Evaluation:
    """Evaluate the scores of any model.

    Parameters
    ----------
    path : Path
        NumPy archive with the arrays ``est`` (n_clips, n_tags; scores), ``gt`` (n_clips, n_tags;
        0 or 1) and, if wanted, ``tags`` (n_tags names).

    Returns
    -------
    Evaluation

    Raises
    ------
    ModelError
        If the file is missing or no such archive, or the arrays do not fit together.
    """
    with open_scores(path) as (columns, named):
        try:
            metrics = metrics_of_columns(columns)
        except ValueError as error:
            raise ModelError(f"{path}: {first_line(error)}; mend est and gt") from None
        n_tags = columns.shape[1]
    if named is None:
        named = np.array([f"tag {number}" for number in range(n_tags)])
    if named.shape != (n_tags,):
        raise ModelError(f"{path}: tags has {named.size} names for {n_tags} columns; mend it")
    return Evaluation(str(path), "all", tuple(str(tag) for tag in named), metrics, {})


def evaluate_run(
    root: Path, *, part: str = "test", overrides: list[str] | None = None
) -> Evaluation:
    """Score one part of a run's own split and evaluate it.

    Parameters
    ----------
    root : Path
        The run folder, local or at an address.
    part : str
        ``"test"``, ``"validation"`` or ``"train"``, as split when it was trained.
    overrides : list of str, optional
        E.g. ``["store.root=elsewhere"]`` if the store has moved.

    Returns
    -------
    Evaluation
        Scores, metrics and pictures are in the run folder below ``evaluation/<part>``.

    Raises
    ------
    ModelError
        If the run cannot be loaded or the part is empty.
    StoreError
        If its store is missing or was made by another front end.
    """
    run = RunFolder.at(root)
    run.pull(leave=("checkpoints", "tensorboard", "bundle"))
    run.require()
    config = run.load_config(overrides)
    store = Store(config.store.root)
    front_end = config.make_front_end()
    store.require_front_end(front_end, user="the model")
    run.require_front_end(front_end)
    vocabulary = run.load_vocabulary()
    index = store.index
    parts = run.load_parts(index)
    if not (parts == part).any():
        raise ModelError(
            f"{run.address}: no clip of its {part} part is in {store.root}; preprocess them, "
            "or choose another --part"
        )

    from tagger.model import build_model
    from tagger.score import score_clips

    model = build_model(config, front_end, vocabulary.tags)
    model.load_weights(run.best_weights)
    labels = vocabulary.labels(index.labels, index.tags)
    rows = [int(row) for row in np.flatnonzero(parts == part)]
    store = local_store(store, rows=rows)
    ids = [index.clips[row].id for row in rows]
    # Where the scores will lie: the system's place for temporary files may be in memory.
    with ScoreTable(len(rows), len(vocabulary), dtype=np.float32, folder=run.root) as table:
        for first in range(0, len(rows), _CLIPS_AT_ONCE):
            some = rows[first : first + _CLIPS_AT_ONCE]
            scores = score_clips(
                model, store, rows=some, config=config.stream, title=f"score {part}"
            )
            try:
                table.add(labels[some], scores)
            except ValueError as error:
                raise ModelError(
                    f"{run.address}: {error}; train again with a lower learning rate"
                ) from None
        metrics = metrics_of_columns(table)
        files = _write(run, config, part, table=table, ids=ids, metrics=metrics)
    places = {kind: run.address / file.relative_to(run.root) for kind, file in files.items()}
    evaluation = Evaluation(str(run.address), part, vocabulary.tags, metrics, places)
    write_json(files["metrics"], evaluation.to_json())
    run.push()
    return evaluation


def _write(
    run: RunFolder,
    config: Config,
    part: str,
    *,
    table: ScoreTable,
    ids: list[str],
    metrics: MultilabelMetrics,
) -> dict[str, Path]:
    """Write scores, tables and pictures of an evaluation; returns their paths by kind."""
    from tagger.plots import plot_learning_curves, plot_tag_metrics

    folder = run.evaluation / part
    files = {
        "scores": folder / "scores.npz",
        "metrics": folder / "metrics.json",
        "per tag": folder / "per_tag.csv",
        "tag picture": folder / "per_tag.png",
    }
    tags = run.load_vocabulary().tags
    write_scores(files["scores"], table, tags=tags, clip_ids=ids)
    columns = zip(tags, metrics.roc_auc, metrics.pr_auc, metrics.n_positive, strict=True)
    write_csv(files["per tag"], ["tag", "roc_auc", "pr_auc", "n_positive"], list(columns))
    plot_tag_metrics(
        tags,
        files["tag picture"],
        roc_auc=metrics.roc_auc,
        pr_auc=metrics.pr_auc,
        positive_rate=metrics.n_positive / len(ids),
    )
    history = read_history(run)
    if history:
        files["learning curves"] = folder / "learning_curves.png"
        plot_learning_curves(history, files["learning curves"], monitor=config.train.monitor)
    return files


def read_history(run: RunFolder) -> list[dict[str, float]]:
    """Rows of a run's metrics per epoch; empty before the first epoch has ended.

    Raises
    ------
    ModelError
        If the file is damaged.
    """
    import csv

    if not run.metrics.exists():
        return []
    try:
        with run.metrics.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [{key: float(value) for key, value in row.items()} for row in rows]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ModelError(f"{run.metrics}: damaged ({error}); delete it or train again") from None


def to_json_text(evaluation: Evaluation) -> str:
    """Return the evaluation as one JSON document."""
    return json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False)
