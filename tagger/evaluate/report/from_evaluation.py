"""What `tagger evaluate` found, as the contents of a report."""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ModelError, TaggerError
from tagger.base.extras import install_command
from tagger.base.log import warn
from tagger.bundle.read import CONFIG, MODEL_CARD
from tagger.evaluate.report.contents import (
    Contents,
    Estimate,
    HeadlineRow,
    Reliability,
    TagFigures,
)
from tagger.metrics.score_table import Columns
from tagger.tagging.prediction import Prediction

if TYPE_CHECKING:
    from preprocess.store.store import Store
    from tagger.bundle.read import Bundle
    from tagger.evaluate.evaluation import Evaluation
    from tagger.metrics import calibration
    from tagger.runs.folder import RunFolder
    from tagger.tagging.tagger import Tagger

# Scores over time of the clip at a row of an evaluation.
Taggrams = Callable[[int], Prediction]

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
_FAILURES_SHOWN = 20


def report_evaluation(
    evaluation: "Evaluation",
    folder: Path,
    *,
    run: "RunFolder | None" = None,
    taggrams: Taggrams | None = None,
) -> dict[str, Path]:
    """Write the report of an evaluation.

    Parameters
    ----------
    evaluation : Evaluation
        What was found.
    folder : Path
        See `tagger.evaluate.report.write_report`.
    run : RunFolder, optional
        What was evaluated, for its config, versions and model card.
    taggrams : callable, optional
        Scores over time of the clip at a row; see `taggrams_of_store`. Of a bundle the audio is
        tagged again by default.

    Returns
    -------
    dict of str to Path
        What was written, by kind; nothing, after a warning, where matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        warn(f"no report, as matplotlib is not installed; {install_command('plots')} brings it")
        return {}
    from tagger.evaluate.report import write_report

    with evaluation.open_columns() as columns:
        return write_report(contents_of(evaluation, columns, run=run, taggrams=taggrams), folder)


def _bundle_of(evaluation: "Evaluation") -> "Bundle | None":
    from tagger.bundle.find import find_bundle

    if evaluation.model is None:
        return None
    try:
        return find_bundle(evaluation.model)
    except TaggerError:
        # It has gone since it was measured.
        return None


def _tagged(bundle: "Bundle", audio: Callable[[int], Path | None]) -> Callable[[int], Prediction]:
    """Scores over time by tagging the clips again, from the first that is asked for."""
    from tagger.bundle.light_model import LightModel
    from tagger.tagging.tagger import Tagger

    tagger: list[Tagger] = []

    def taggram(row: int) -> Prediction:
        path = audio(row)
        if path is None:
            raise ModelError("its file is not at hand")
        if not tagger:
            tagger.append(Tagger(LightModel(bundle)))
        return tagger[0].predict(path)

    return taggram


def taggrams_of_store(
    tagger: "Tagger", store: "Store", *, rows: Sequence[int], paths: Sequence[str]
) -> Taggrams:
    """Scores over time of clips of a store, when they are asked for.

    Parameters
    ----------
    tagger : Tagger
        What scores; windows go by its calibration as clips do.
    store : Store
        Where the windows are.
    rows : sequence of int
        Clips in the store, in the order of the evaluation.
    paths : sequence of str
        Their files.
    """
    return lambda place: tagger.predict_windows(store.read(rows[place]), path=paths[place])


def contents_of(
    evaluation: "Evaluation",
    columns: Columns,
    *,
    run: "RunFolder | None" = None,
    taggrams: Taggrams | None = None,
) -> Contents:
    """Contents of the report of an evaluation; see `report_evaluation`.

    Parameters
    ----------
    columns : Columns
        Labels, and the scores as the model gives them: those of `Evaluation.open_columns`, which
        are calibrated where the model is.
    """
    from tagger.runs.folder import versions

    metrics, confusion = evaluation.metrics, evaluation.confusion
    lift = confusion.lift()
    described = {} if run is None else run.require()
    audio = _audio(evaluation)
    card = config = ""
    if run is not None:
        card, config = _text_of(run.bundle / MODEL_CARD), _text_of(run.config)
    elif bundle := _bundle_of(evaluation):
        card, config = _text_of(bundle.root / MODEL_CARD), _text_of(bundle.root / CONFIG)
        if taggrams is None and audio is not None:
            taggrams = _tagged(bundle, audio)
    leaked = evaluation.leakage
    return Contents(
        title=f"{_name_of(evaluation.source)}: {_PARTS[evaluation.part]}",
        facts=[
            ("source", evaluation.source),
            ("clips of", evaluation.part),
            ("protocol", f"{evaluation.protocol.name} ({evaluation.protocol.summary})"),
            ("intervals", evaluation.intervals.describe()),
        ],
        tags=evaluation.tags,
        columns=columns,
        per_tag=_tag_figures(evaluation),
        headline=_headline(evaluation),
        thresholded=_thresholded(evaluation),
        history=evaluation.history,
        monitor="loss" if run is None else run.load_config().train.monitor,
        reliability=_reliability(evaluation, metrics.scored),
        confusion=confusion.n_both,
        confused=[
            (row, column, int(confusion.n_both[row, column]), float(lift[row, column]))
            for row, column in confusion.top_pairs(_CONFUSED_PAIRS)
        ],
        confusion_thresholds=evaluation.confusion_thresholds,
        leakage=[] if leaked is None else _sentences(leaked.lines(_side(evaluation))),
        notes=_notes(evaluation),
        clip_names=evaluation.clips.paths or evaluation.clips.ids or None,
        taggram=taggrams,
        audio=audio,
        card=card,
        versions=described.get("versions") or versions(),
        config=config,
    )


_PARTS = {
    "test": "test clips",
    "validation": "validation clips",
    "train": "training clips",
    "all": "all clips",
}


def _name_of(source: str) -> str:
    parts = PurePosixPath(source).parts
    # The folder of a run's bundle says nothing without the run's.
    return "/".join(parts[-2:] if parts[-1:] == ("bundle",) else parts[-1:])


def _side(evaluation: "Evaluation") -> str:
    return "test" if evaluation.part == "all" else evaluation.part


def _sentences(lines: Sequence[str]) -> list[str]:
    return [f"{line[:1].upper()}{line[1:]}." for line in lines]


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _notes(evaluation: "Evaluation") -> list[str]:
    failures = [f"{path} could not be read: {why}" for path, why in evaluation.failures.items()]
    more = len(failures) - _FAILURES_SHOWN
    last = [f"{more} more clips could not be read."] if more > 0 else []
    return [*evaluation.notes, *failures[:_FAILURES_SHOWN], *last]


def _audio(evaluation: "Evaluation") -> Callable[[int], Path | None] | None:
    root, paths = evaluation.audio_root, evaluation.clips.paths
    if root is None or not paths:
        return None

    def audio(row: int) -> Path | None:
        # An archive may name any file: nothing outside the data goes into a report.
        path = PurePosixPath(paths[row])
        return None if path.is_absolute() or ".." in path.parts else root / path

    return audio


def _tag_figures(evaluation: "Evaluation") -> TagFigures:
    metrics = evaluation.metrics
    more = {title: getattr(metrics, name) for title, name in _COLUMNS}
    ends = evaluation.intervals.per_tag.get("pr_auc")
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


def _headline(evaluation: "Evaluation") -> list[HeadlineRow]:
    summary, ends = evaluation.metrics.summary, evaluation.intervals.summary
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
    n_positive = evaluation.metrics.n_positive[evaluation.metrics.scored].astype(np.float64)
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


def _thresholded(evaluation: "Evaluation") -> list[tuple[str, float, float]]:
    summary = evaluation.metrics.summary
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


def _reliability(evaluation: "Evaluation", tags: npt.NDArray[np.intp]) -> list[Reliability]:
    if not len(tags):
        return []
    after, before = evaluation.reliability, evaluation.reliability_before
    curves = []
    if before is not None:
        curves.append(_curve("before calibration", before, tags))
    if after is not None:
        method = "" if evaluation.calibration is None else evaluation.calibration.method
        name = f"after {method} calibration" if method else "as they come"
        curves.append(_curve(name, after, tags))
    return curves


def _curve(
    name: str, reliability: "calibration.Reliability", tags: npt.NDArray[np.intp]
) -> Reliability:
    mean_score, share, counts = reliability.curve(tags)
    return Reliability(name, mean_score, share, counts.astype(np.int64), reliability.error(tags))
