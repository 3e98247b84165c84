"""The verb ``train`` with a pretrained model: clips -> embeddings -> fitted clip head -> run."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.clips.datasets import DATASETS
from preprocess.clips.index import ClipIndex
from preprocess.clips.label_checks import label_warnings
from preprocess.clips.splits.k_fold import groups_of
from preprocess.clips.vocabulary import Vocabulary, read_synonyms, resolve_vocabulary
from preprocess.signal.features import FrontEnd
from tagger.base.errors import ConfigError
from tagger.base.files import require_writable
from tagger.base.log import notice, warn
from tagger.bundle.find import find_bundle
from tagger.bundle.light_model import LightModel
from tagger.bundle.read import CONFIG, Bundle
from tagger.bundle.write import Source
from tagger.config import Config, FitConfig, load_config
from tagger.evaluate.evaluate_fitted import FOLDS, evaluate_fitted
from tagger.evaluate.evaluation import Evaluation
from tagger.evaluate.protocol_names import clips_of
from tagger.evaluate.verdict import verdict
from tagger.fit.chosen_head import chosen_head
from tagger.fit.cross_fit import Fitted, cross_fit
from tagger.fit.fitted_bundle import write_fitted_bundle
from tagger.fit.sources import heard, heard_one, middle, middle_windows
from tagger.metrics.bootstrap import N_RESAMPLES
from tagger.metrics.columns import ArrayColumns
from tagger.metrics.decisions import Decisions
from tagger.metrics.score_files import write_scores
from tagger.network.task import TASKS
from tagger.runs.folder import FITTED, RunFolder
from tagger.scoring.clip_heads import ClipHead, Labels
from tagger.scoring.scorer import Floats
from tagger.tagging.prediction import Prediction
from tagger.tagging.tagger import Tagger

_MANY_CLIPS = 1000


@dataclass(frozen=True)
class FitResult:
    """What was fitted.

    Parameters
    ----------
    run : Path
        Folder of the run.
    evaluation : Evaluation
        Of clips that were not used in the fit that scored them.
    verdict : tuple of str
        Lines for people: how good it is, and what to do next.
    failures : dict of str to str
        Clips that could not be used: path -> reason.
    """

    run: Path
    evaluation: Evaluation
    verdict: tuple[str, ...]
    failures: dict[str, str]


def fit_run(config: Config, *, n_draws: int = N_RESAMPLES) -> FitResult:
    """Fit a clip head to the labels of a data set, on what a pretrained model says of its clips.

    Parameters
    ----------
    config : Config
        Its section ``fit`` is given; ``data``, ``task``, ``model.clip_head``, ``calibration`` and
        ``run`` count, all else is the pretrained model's.
    n_draws : int
        Bootstrap draws of the intervals.

    Returns
    -------
    FitResult
        The run folder holds config, vocabulary, folds, bundle, scores and report.

    Raises
    ------
    ConfigError
        If labels, folds or the run folder do not allow it.
    ModelError
        If the pretrained model cannot be had, or has no embeddings.
    """
    fit = config.fit or FitConfig()
    run = _free_run(config, fit)
    index = DATASETS.create(config.data.name, config.data.params).index(config.data.root)
    for line in label_warnings(index):
        warn(line)
    base = find_bundle(fit.model)
    tagger = Tagger(LightModel(base), most_missing=config.data.most_missing)
    effective, head = _settled(config, base)
    vocabulary = _vocabulary(index, effective)
    notice(
        f"{len(index)} clips, {len(vocabulary)} {_outputs_of(effective)}; {head.name} on "
        f"{', '.join(head.outputs)} of {base.name}"
    )
    n_windows = middle_windows(fit, tagger.front_end)

    def make(outputs: Mapping[str, Floats]) -> Floats:
        return head.features(middle(outputs, n_windows))

    clips = heard(tagger, index, config.data.root, outputs=head.outputs, make=make)
    labels = vocabulary.labels(clips.index.labels, clips.index.tags)
    _warn_of_rare(vocabulary, labels, n_folds=fit.folds)
    fitted = cross_fit(
        head,
        head.together(clips.made),
        labels,
        groups=groups_of(clips.index, fit.group),
        n_folds=fit.folds,
        n_tested=min(fit.folds, fit.tested_folds or _n_tested(fit, len(labels))),
        seed=fit.seed,
    )
    notice(f"clip head {head.name}: {fitted.head.describe()}")
    decisions = _decisions(effective, labels[fitted.rows], fitted.scores)
    _start(run, effective, vocabulary, index=clips.index, fitted=fitted)
    _keep_scores(run, vocabulary, clips.index, labels=labels, fitted=fitted, decisions=decisions)
    source = Source(
        name=run.root.name,
        config=effective,
        tags=vocabulary.tags,
        members=vocabulary.members,
        thresholds=decisions.thresholds,
        calibration=decisions.calibration,
        clip_head=fitted.head,
        metrics={"clips that were not used in the fit": _figures(effective, labels, fitted)},
        card=_card(effective, base, fitted, n_clips=len(labels)),
    )
    made = Tagger(LightModel(write_fitted_bundle(run.bundle, base, source=source)))

    def taggram(place: int) -> Prediction:
        """Scores over time, by what was kept of a clip's windows."""
        path = config.data.root / clips.index.clips[int(fitted.rows[place])].path
        known = heard_one(tagger, path, outputs=head.outputs)
        return made.predict_outputs(known, path=str(path))

    evaluation = evaluate_fitted(run, n_draws=n_draws, failures=clips.unused, taggrams=taggram)
    seconds = None if n_windows is None else _seconds(tagger.front_end, n_windows)
    said = (verdict(evaluation), _next(run.root, middle_seconds=seconds))
    return FitResult(run.root, evaluation, said, clips.unused)


def _card(config: Config, base: Bundle, fitted: Fitted, *, n_clips: int) -> dict[str, str]:
    head = fitted.head
    return {
        "Task": f"{config.task.name}, fitted to {n_clips} clips",
        "Network": f"{base.name} (version {base.version}), as it was",
        "Clip head": f"{head.name} on {', '.join(head.outputs)}, {head.describe()}",
    }


def _next(run: Path, *, middle_seconds: float | None) -> str:
    """Command that uses the model; of one that knows the middle of clips alone, on that."""
    model = f"--model {shlex.quote(str(run))}"
    middle = "" if middle_seconds is None else f" --window-middle {middle_seconds:.3g}"
    return f"next: tagger tag SONG {model}{middle}"


def _seconds(front_end: FrontEnd, n_windows: int) -> float:
    """Audio that windows one after the other cover."""
    return (n_windows - 1) * (front_end.hop_seconds or 0) + (front_end.window_seconds or 0)


def _free_run(config: Config, fit: FitConfig) -> RunFolder:
    """Folder of the run; one that was fitted before is written anew."""
    if config.data.name == "feature_table" or fit.model == "none":
        raise ConfigError(
            "train needs a pretrained model and audio to make a model that tags; compare learners "
            "on tables of values with: tagger study run FILE"
        )
    run = RunFolder.at(config.run.root)
    require_writable(run.root)
    if run.exists() and not run.is_fitted:
        raise ConfigError(
            f"{run.address}: holds a run that was trained, not fitted; choose another folder"
        )
    if not run.exists() and run.root.exists() and any(run.root.iterdir()):
        raise ConfigError(f"{run.address}: is no run and not empty; choose another folder")
    return run


def _settled(config: Config, base: Bundle) -> tuple[Config, ClipHead]:
    """Config whose network and front end are those of the pretrained model; and its clip head."""
    content, trained = config.to_dict(), load_config(base.verified(CONFIG)).to_dict()
    head = chosen_head(config, base.embeddings, source=base.name)
    content["front_end"] = trained["front_end"]
    content["stream"] = trained["stream"]
    content["augment"] = trained["augment"]
    params = head.params.model_dump(mode="json")
    content["model"] = {**trained["model"], "clip_head": {"name": head.name, "params": params}}
    return Config.model_validate(content), head


def _decides_one(config: Config) -> bool:
    return TASKS.get(config.task.name).decides_one


def _outputs_of(config: Config) -> str:
    return "labels" if _decides_one(config) else "tags"


def _vocabulary(index: ClipIndex, config: Config) -> Vocabulary:
    """Tags or labels to learn; of labels each clip has one."""
    synonyms = read_synonyms(config.data.synonyms) if config.data.synonyms else None
    vocabulary = resolve_vocabulary(index, config.data.tags, synonyms=synonyms)
    if not _decides_one(config):
        return vocabulary
    counts = vocabulary.labels(index.labels, index.tags).sum(axis=1)
    wrong = np.flatnonzero(counts != 1)
    if len(wrong):
        clip = index.clips[int(wrong[0])]
        raise ConfigError(
            f"{index.source}: clip {clip.path} has {counts[wrong[0]]} labels, and {len(wrong) - 1} "
            "more clips have not exactly one; give each one, or use --task multilabel"
        )
    return vocabulary


def _warn_of_rare(vocabulary: Vocabulary, labels: Labels, *, n_folds: int) -> None:
    counts = labels.sum(axis=0, dtype=np.int64)
    rare = [tag for tag, count in zip(vocabulary.tags, counts, strict=True) if count < n_folds]
    if rare:
        more = f" and {len(rare) - 1} more" if len(rare) > 1 else ""
        warn(
            f"{rare[0]!r}{more}: fewer clips than the {n_folds} folds, so that some folds test "
            "none; add clips, or set fit.folds lower"
        )


def _n_tested(fit: FitConfig, n_clips: int) -> int:
    return fit.folds if n_clips < _MANY_CLIPS else 1


def _decisions(config: Config, labels: Labels, scores: Floats) -> Decisions:
    wanted = config.calibration
    return TASKS.create(config.task.name, config.task.params).decisions(
        labels,
        scores,
        method=wanted.method,
        precision=wanted.precision if wanted.thresholds == "precision" else None,
    )


def _figures(config: Config, labels: Labels, fitted: Fitted) -> dict[str, float]:
    task = TASKS.create(config.task.name, config.task.params)
    found = task.metrics(labels[fitted.rows], fitted.scores)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _start(
    run: RunFolder, config: Config, vocabulary: Vocabulary, *, index: ClipIndex, fitted: Fitted
) -> None:
    parts = np.array([f"fold {fold}" for fold in fitted.folds], dtype=np.str_)
    run.start(config, vocabulary, index=index, parts=parts, description={"kind": FITTED})


def _keep_scores(
    run: RunFolder,
    vocabulary: Vocabulary,
    index: ClipIndex,
    *,
    labels: Labels,
    fitted: Fitted,
    decisions: Decisions,
) -> None:
    clips = clips_of(index, [int(row) for row in fitted.rows])
    scores = fitted.scores
    if decisions.calibration is not None:
        scores = decisions.calibration(scores)
    thresholds = None
    if decisions.thresholds is not None:
        known = [np.nan if value is None else value for value in decisions.thresholds]
        thresholds = np.array(known, dtype=np.float64)
    path = run.evaluation / FOLDS / "scores.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_scores(
        path,
        ArrayColumns(labels[fitted.rows], scores),
        tags=vocabulary.tags,
        clip_ids=clips.ids,
        paths=clips.paths,
        artists=clips.artists,
        thresholds=thresholds,
        task=run.load_config().task.name,
    )
