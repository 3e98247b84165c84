"""The verb ``evaluate``: how good are the scores of a run, or of anybody's model."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.store.store import Store
from tagger.base.errors import ModelError
from tagger.base.files import write_json
from tagger.cloud.locations import location
from tagger.config import Config
from tagger.evaluate.leakage import Leakage, find_leakage
from tagger.evaluate.protocol_names import Clips, ProtocolUse, archive_names, clips_of
from tagger.evaluate.protocol_plan import plan_of
from tagger.evaluate.protocols import Selection
from tagger.evaluate.report.from_evaluation import report_evaluation, window_scores_of
from tagger.metrics.bootstrap import N_RESAMPLES, Intervals, bootstrap_intervals, plan_draws
from tagger.metrics.calibration import (
    CalibratedColumns,
    CalibratedTable,
    Calibration,
    Reliability,
    measure_reliability,
)
from tagger.metrics.confusion import Confusion, find_confusion
from tagger.metrics.figures import TAG_FIGURES, MultilabelMetrics, metrics_of_columns
from tagger.metrics.score_files import first_line, open_scores, write_scores
from tagger.metrics.score_table import Columns, ScoreTable
from tagger.runs.folder import RunFolder, read_history, write_csv
from tagger.runs.store_copy import local_store
from tagger.tagging.prediction import Prediction

SCHEMA_VERSION = 2
# Clips that are scored before their scores go to the table.
_CLIPS_AT_ONCE = 16384


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
    metrics : MultilabelMetrics
        The figures: arrays per tag and a summary.
    files : dict of str to Path
        What was written, by kind.
    scores : Path
        Archive of labels and scores; see `open_columns`.
    clips : Clips
        Names of its rows, where they are known.
    protocol : ProtocolUse
        On which clips and tags, with published results of the same.
    intervals : Intervals
        Bootstrap intervals of the metrics.
    reliability : Reliability, optional
        Of the scores; None where they are not all between 0 and 1.
    reliability_before : Reliability, optional
        Of the network's own scores, where they were calibrated.
    calibration : Calibration, optional
        The maps in between.
    confusion : Confusion
        Which tag is missed while which other is said.
    confusion_thresholds : str
        Whose thresholds decide there: ``"the model's"`` or ``"best F1 on these clips"``.
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
    metrics: MultilabelMetrics
    files: dict[str, Path]
    scores: Path
    clips: Clips
    protocol: ProtocolUse
    intervals: Intervals
    reliability: Reliability | None
    reliability_before: Reliability | None
    calibration: Calibration | None
    confusion: Confusion
    confusion_thresholds: str
    leakage: Leakage | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    failures: dict[str, str] = field(default_factory=dict)
    audio_root: Path | None = None
    model: str | None = None

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


def measure(
    columns: Columns,
    *,
    thresholds: npt.NDArray[np.float64] | None,
    calibration: Calibration | None = None,
    artists: Sequence[str] = (),
    n_draws: int = N_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that labels and scores tell, for the fields of an `Evaluation`.

    Parameters
    ----------
    columns : Columns
        Labels, and what the network says.
    thresholds : np.ndarray [shape=(n_tags,)], optional
        Score, after calibration, from which each tag applies; NaN where it has none.
    calibration : Calibration, optional
        What is done to the scores first.
    artists : sequence of str
        Of the clips, where they are known.
    n_draws, seed : int
        Of the bootstrap.

    Raises
    ------
    ValueError
        If there are no clips or no tags.
    """
    said: Columns = columns if calibration is None else CalibratedColumns(columns, calibration)
    given = None if thresholds is None else [None if np.isnan(x) else float(x) for x in thresholds]
    metrics = metrics_of_columns(said, thresholds=given)
    draws = plan_draws(*said.shape, artists=artists, n=n_draws, seed=seed)
    own = not np.isnan(metrics.threshold).all()
    return {
        "metrics": metrics,
        "intervals": bootstrap_intervals(said, draws, metrics=metrics),
        "reliability": measure_reliability(said),
        "reliability_before": None if calibration is None else measure_reliability(columns),
        "calibration": calibration,
        "confusion": find_confusion(said, metrics.threshold if own else metrics.best_f1_threshold),
        "confusion_thresholds": "the model's" if own else "best F1 on these clips",
    }


def evaluate_scores(
    path: Path,
    *,
    protocol: str = "own",
    config: Config | None = None,
    report: Path | None = None,
    n_draws: int = N_RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Evaluate the scores of any model.

    Parameters
    ----------
    path : Path
        NumPy archive; see `tagger.metrics.score_files.open_scores`.
    protocol : str
        Whose clips and tags these are: ``own`` for any, or a protocol whose test clips the rows
        must be.
    config : Config, optional
        Where the data of the protocol are; its annotations then name the clips and check the
        labels.
    report : Path, optional
        Folder of the report; without it there is none.
    n_draws, seed : int
        Of the bootstrap; 0 draws for no intervals.

    Returns
    -------
    Evaluation

    Raises
    ------
    ModelError
        If the file is missing or no such archive, the arrays do not fit together, or they are not
        the clips and tags of the protocol.
    ConfigError
        If there is no such protocol, or its data are not where `config` says.
    """
    with open_scores(path) as archive:
        names = archive_names(path, archive, protocol=protocol, config=config)
        try:
            measured = measure(
                archive.columns,
                thresholds=archive.thresholds,
                artists=names.clips.artists,
                n_draws=n_draws,
                seed=seed,
            )
        except ValueError as error:
            raise ModelError(f"{path}: {first_line(error)}; mend est and gt") from None
    evaluation = Evaluation(
        source=str(path),
        part="all" if protocol == "own" else "test",
        tags=names.tags,
        files={},
        scores=path,
        clips=names.clips,
        protocol=names.protocol,
        leakage=names.leakage,
        notes=names.notes,
        audio_root=None if config is None else config.data.root,
        **measured,
    )
    return evaluation if report is None else with_report(evaluation, report)


def with_report(
    evaluation: Evaluation,
    folder: Path,
    *,
    run: RunFolder | None = None,
    taggram: Callable[[int], Prediction] | None = None,
) -> Evaluation:
    """Write the report of an evaluation; returns it with the files that were written."""
    written = report_evaluation(evaluation, location(folder), run=run, taggram=taggram)
    if run is not None and folder.is_relative_to(run.root):
        written = {kind: run.address / file.relative_to(run.root) for kind, file in written.items()}
    return replace(evaluation, files=evaluation.files | written)


def evaluate_run(
    root: Path,
    *,
    part: str = "test",
    protocol: str = "own",
    overrides: list[str] | None = None,
    report: Path | None = None,
    n_draws: int = N_RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Score one part of the clips of a run's store, as the run or a protocol splits them.

    Parameters
    ----------
    root : Path
        The run folder, local or at an address.
    part : str
        ``"test"``, ``"validation"`` or ``"train"``.
    protocol : str
        ``"own"`` for split and tags that it was trained with; see `tagger.evaluate.protocols`.
    overrides : list of str, optional
        E.g. ``["store.root=elsewhere"]`` if the store has moved.
    report : Path, optional
        Folder of the report; default that of the scores.
    n_draws, seed : int
        Of the bootstrap; 0 draws for no intervals.

    Returns
    -------
    Evaluation
        Scores, metrics and the report are in the run folder below ``evaluation/<part>``.

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
    own = Selection(run.load_parts(index), vocabulary)
    plan = plan_of(
        index,
        own,
        model=str(run.address),
        model_tags=vocabulary.tags,
        protocol=protocol,
        part=part,
    )
    rows = plan.rows
    if not rows:
        raise ModelError(
            f"{run.address}: no clip of {_whose(protocol)} {part} part is in {store.root}; "
            "preprocess them, or choose another --part"
        )

    from tagger.network.model import build_model
    from tagger.train.score_clips import score_clips

    model = build_model(config, front_end, vocabulary.tags)
    model.load_weights(run.best_weights)
    model.clip_head = run.load_clip_head(sizes=model.embedding_sizes, n_tags=len(vocabulary))
    calibration = run.load_calibration(n_tags=len(vocabulary))
    of_plan = None if calibration is None else calibration.of_columns(plan.columns)
    thresholds = _thresholds_of(run, n_tags=len(vocabulary))[plan.columns]
    store = local_store(store, rows=rows)
    # Where the scores will lie: the system's place for temporary files may be in memory.
    with ScoreTable(len(rows), len(plan.tags), dtype=np.float32, folder=run.root) as table:
        for first in range(0, len(rows), _CLIPS_AT_ONCE):
            some = rows[first : first + _CLIPS_AT_ONCE]
            scores = score_clips(
                model, store, rows=some, config=config.stream, title=f"score {part}"
            )
            try:
                table.add(plan.labels[first : first + len(some)], scores[:, plan.columns])
            except ValueError as error:
                raise ModelError(
                    f"{run.address}: {error}; train again with a lower learning rate"
                ) from None
        clips = clips_of(index, rows)
        measured = measure(
            table,
            thresholds=thresholds,
            calibration=of_plan,
            artists=clips.artists,
            n_draws=n_draws,
            seed=seed,
        )
        folder = run.evaluation / (part if protocol == "own" else f"{protocol}-{part}")
        files = write_results(
            folder, table, tags=plan.tags, clips=clips, measured=measured, thresholds=thresholds
        )
    evaluation = Evaluation(
        source=str(run.address),
        part=part,
        tags=plan.tags,
        files={kind: run.address / file.relative_to(run.root) for kind, file in files.items()},
        scores=files["scores"],
        clips=clips,
        protocol=plan.protocol,
        leakage=find_leakage(index, plan.parts),
        history=read_history(run),
        audio_root=config.data.root,
        notes=plan.notes,
        model=str(run.address),
        **measured,
    )
    write_json(files["metrics"], evaluation.to_json())
    taggram = window_scores_of(
        model, front_end, store, rows=rows, paths=clips.paths, calibration=calibration
    )
    evaluation = with_report(evaluation, report or folder, run=run, taggram=taggram)
    run.push()
    return evaluation


def _thresholds_of(run: RunFolder, *, n_tags: int) -> npt.NDArray[np.float64]:
    """Thresholds of a run; NaN for a tag without one."""
    fitted = run.load_thresholds() or [None] * n_tags
    return np.array([np.nan if value is None else value for value in fitted])


def _whose(protocol: str) -> str:
    return "its" if protocol == "own" else f"the protocol {protocol!r}'s"


def write_results(
    folder: Path,
    table: ScoreTable,
    *,
    tags: Sequence[str],
    clips: Clips,
    measured: dict[str, Any],
    thresholds: npt.NDArray[np.float64],
) -> dict[str, Path]:
    """Write scores, as the model gives them, and the figures per tag.

    Parameters
    ----------
    folder : Path
        Where they go.
    table : ScoreTable
        Labels, and what the network says.
    tags : sequence of str
        Names of its columns.
    clips : Clips
        Names of its rows.
    measured : dict
        What `measure` gave.
    thresholds : np.ndarray [shape=(n_tags,)]
        Score from which each tag applies.

    Returns
    -------
    dict of str to Path
        Files by kind, and where the metrics are to go.
    """
    files = {
        "scores": folder / "scores.npz",
        "metrics": folder / "metrics.json",
        "per tag": folder / "per_tag.csv",
    }
    calibration = measured["calibration"]
    write_scores(
        files["scores"],
        table if calibration is None else CalibratedTable(table, calibration),
        tags=tags,
        clip_ids=clips.ids,
        paths=clips.paths,
        artists=clips.artists,
        thresholds=thresholds,
    )
    metrics = measured["metrics"]
    figures = [getattr(metrics, name) for name in TAG_FIGURES]
    columns = zip(tags, metrics.n_positive, *figures, strict=True)
    write_csv(files["per tag"], ["tag", "n_positive", *TAG_FIGURES], list(columns))
    return files


def to_json_text(evaluation: Evaluation) -> str:
    """Return the evaluation as one JSON document."""
    return json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False)
