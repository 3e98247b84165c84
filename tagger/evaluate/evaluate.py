"""The verb ``evaluate``: how good a run, a bundle or anybody's scores are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.clips.datasets import DATASETS
from preprocess.clips.index import ClipIndex
from preprocess.store.store import Store
from tagger.base.errors import ModelError, TaggerError
from tagger.base.files import write_json
from tagger.bundle.find import find_bundle
from tagger.bundle.light_model import LightModel
from tagger.bundle.read import CONFIG, Bundle
from tagger.cloud.locations import location
from tagger.config import Config, load_config
from tagger.evaluate.evaluation import Evaluation
from tagger.evaluate.leakage import find_leakage
from tagger.evaluate.protocol_names import Clips, archive_names, clips_of
from tagger.evaluate.protocol_plan import Plan, plan_of
from tagger.evaluate.protocols import Selection
from tagger.evaluate.report.clip_views import Taggrams
from tagger.evaluate.report.from_evaluation import report_evaluation, taggrams_of_store
from tagger.evaluate.score_clips import scores_of_audio, scores_of_run, scores_of_store
from tagger.evaluate.verdict import verdict
from tagger.metrics.bootstrap import N_RESAMPLES
from tagger.metrics.columns import ArrayColumns
from tagger.metrics.measured import Measured
from tagger.metrics.score_files import first_line, read_scores, write_scores
from tagger.network.task import TASKS, Task
from tagger.runs.folder import RunFolder, read_history, write_csv
from tagger.runs.model import RunModel
from tagger.runs.store_copy import local_store
from tagger.scoring.model import Model
from tagger.tagging.tagger import Tagger

# Scores of clips, or why there are none.
Answers = Iterator[npt.NDArray[np.float32] | TaggerError]

# Clips whose scores go to the table together.


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
        NumPy archive; see `tagger.metrics.score_files.read_scores`.
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
    archive = read_scores(path)
    names = archive_names(path, archive, protocol=protocol, config=config)
    try:
        measured = TASKS.create(archive.task, {}).measure(
            archive.columns,
            thresholds=archive.thresholds,
            calibration=None,
            artists=names.clips.artists,
            n_draws=n_draws,
            seed=seed,
        )
    except ValueError as error:
        raise ModelError(f"{path}: {first_line(error)}; fix est and gt") from None
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
        measured=measured,
    )
    return evaluation if report is None else with_report(evaluation, report)


def with_report(
    evaluation: Evaluation,
    folder: Path,
    *,
    run: RunFolder | None = None,
    taggrams: Taggrams | None = None,
) -> Evaluation:
    """Write the report of an evaluation; returns it with the files that were written."""
    written = report_evaluation(
        evaluation, location(folder), run=run, taggrams=taggrams, verdict=verdict(evaluation)
    )
    return replace(evaluation, files=evaluation.files | written)


def evaluate_run(
    root: Path | str,
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
    run = _opened(root)
    config = run.load_config(overrides)
    store = Store(config.store.root)
    front_end = config.make_front_end()
    store.require_front_end(front_end, user="the model")
    run.require_front_end(front_end)
    vocabulary = run.load_vocabulary()
    index = store.index
    plan = plan_of(
        index,
        Selection(run.load_parts(index), vocabulary),
        model=str(run.address),
        model_tags=vocabulary.tags,
        protocol=protocol,
        part=part,
    )
    if not plan.rows:
        raise ModelError(
            f"{run.address}: no clip of {_whose(protocol)} {part} part is in {store.root}; "
            "preprocess them, or choose another --part"
        )
    model = RunModel(run, config)
    store = local_store(store, rows=plan.rows)
    folder = run.evaluation / (part if protocol == "own" else f"{protocol}-{part}")
    evaluation = _Subject(
        str(run.address),
        model,
        index,
        plan,
        part,
        scores_of_run(model, store, plan.rows, config=config, title=f"score {part}"),
        folder,
        model.network.task,
    ).evaluate(audio_root=config.data.root, history=read_history(run), n_draws=n_draws, seed=seed)
    evaluation = _at_address(evaluation, run)
    taggrams = taggrams_of_store(Tagger(model), store, rows=plan.rows, paths=evaluation.clips.paths)
    evaluation = with_report(evaluation, report or folder, run=run, taggrams=taggrams)
    run.push()
    return _at_address(evaluation, run)


def _patches(root: Path, tagger: Tagger) -> Store:
    store = Store(location(root))
    store.require_front_end(tagger.front_end, user="the model")
    return store


def _task_of(bundle: Bundle) -> Task:
    # The data may be elsewhere; what the scores mean is the bundle's to say.
    trained = load_config(bundle.verified(CONFIG)).task
    return TASKS.create(trained.name, trained.params)


def _index_of(settings: Config) -> ClipIndex:
    data = settings.data
    return DATASETS.create(data.name, data.params).index(data.root)


def _opened(root: Path | str) -> RunFolder:
    run = RunFolder.at(root)
    run.pull(leave=("checkpoints", "tensorboard", "bundle"))
    run.require()
    return run


def _at_address(evaluation: Evaluation, run: RunFolder) -> Evaluation:
    """Name files of a run as its user does, who may know only its address."""
    files = {
        kind: run.address / file.relative_to(run.root) if file.is_relative_to(run.root) else file
        for kind, file in evaluation.files.items()
    }
    return replace(evaluation, files=files)


def _whose(protocol: str) -> str:
    return "its" if protocol == "own" else f"the protocol {protocol!r}'s"


def evaluate_model(
    model: str,
    *,
    part: str = "test",
    protocol: str = "own",
    config: Path | None = None,
    overrides: list[str] | None = None,
    store: Path | None = None,
    output: Path | None = None,
    report: Path | None = None,
    n_draws: int = N_RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Measure a bundle or a registered model on the clips of a data set.

    Parameters
    ----------
    model : str
        Bundle by its folder or address, or name of a registered model.
    part : str
        ``"test"``, ``"validation"`` or ``"train"``.
    protocol : str
        Clips and tags; ``"own"`` for the model's own tags and the split of the config.
    config : Path, optional
        Where the data are, and how they are split; default the config that the bundle holds.
    overrides : list of str, optional
        E.g. ``["data.root=elsewhere"]``.
    store : Path, optional
        Patch store to take windows from, instead of the audio in ``data.root``.
    output : Path, optional
        Folder of scores and metrics; default ``evaluation/MODEL/PROTOCOL-PART``.
    report : Path, optional
        Folder of the report; default `output`.
    n_draws, seed : int
        Of the bootstrap; 0 draws for no intervals.

    Returns
    -------
    Evaluation
        Clips that cannot be read are left out and named.

    Raises
    ------
    ModelError
        If there is no such model, or no clip or tag is left to measure it on.
    ConfigError
        If the data are not where the config says.
    StoreError
        If the store is missing or was made by another front end.
    """
    bundle = find_bundle(model)
    settings = load_config(config or bundle.verified(CONFIG), overrides)
    tagger = Tagger(LightModel(bundle))
    tagger.require_tags()
    patches = None if store is None else _patches(store, tagger)
    data = settings.data
    index = _index_of(settings) if patches is None else patches.index
    plan = plan_of(
        index,
        # Split of the config, and the tags of the bundle with what they stand for.
        Selection(settings.parts_of(index), bundle.vocabulary()),
        model=model,
        model_tags=tagger.tags,
        protocol=protocol,
        part=part,
        recorded=False,
    )
    if not plan.rows:
        raise ModelError(f"{model}: no clip of the {part} part is in {index.source}; try --part")
    folder = output or Path("evaluation") / bundle.name / f"{protocol}-{part}"
    title, task = f"score {part}", _task_of(bundle)
    answers: Answers
    if patches is None:
        answers = scores_of_audio(tagger, data.root, clips_of(index, plan.rows), title=title)
    else:
        answers = scores_of_store(tagger, patches, plan.rows, title=title)
    evaluation = _Subject(model, tagger.model, index, plan, part, answers, folder, task).evaluate(
        audio_root=data.root, history=[], n_draws=n_draws, seed=seed
    )
    return with_report(evaluation, report or folder)


@dataclass(frozen=True)
class _Subject:
    """A model, and the clips that it is measured on.

    Parameters
    ----------
    source : str
        What the model is called.
    model : Model
        What scores.
    index : ClipIndex
        All clips.
    plan : Plan
        Which of them, and which tags.
    part : str
        Of the split.
    answers : iterator of (np.ndarray [shape=(n_tags,)] or TaggerError)
        Scores of the plan's clips before calibration, or why there are none.
    folder : Path
        Where results go.
    task : Task
        What the scores mean.
    """

    source: str
    model: Model
    index: ClipIndex
    plan: Plan
    part: str
    answers: Answers
    folder: Path
    task: Task

    def evaluate(
        self, *, audio_root: Path, history: list[dict[str, float]], n_draws: int, seed: int
    ) -> Evaluation:
        """Score, measure and write the results."""
        plan, model, folder = self.plan, self.model, self.folder
        folder.mkdir(parents=True, exist_ok=True)
        thresholds = np.full(len(plan.tags), np.nan)
        if model.thresholds is not None:
            thresholds = model.thresholds[plan.columns].astype(np.float64)
        calibration = model.calibration
        if calibration is not None:
            calibration = calibration.of_columns(plan.columns)
        places: list[int] = []
        failures: dict[str, str] = {}
        scores = np.empty((len(plan.rows), len(plan.tags)), dtype=np.float32)
        for place, answer in enumerate(self.answers):
            if isinstance(answer, TaggerError):
                failures[self.index.clips[plan.rows[place]].path] = str(answer)
            else:
                scores[len(places)] = answer[plan.columns]
                places.append(place)
        if not places:
            why = next(iter(failures.values()))
            raise ModelError(f"{self.source}: no clip of {len(plan.rows)} can be read ({why})")
        clips = clips_of(self.index, [plan.rows[place] for place in places])
        try:
            columns = ArrayColumns(plan.labels[places], scores[: len(places)])
        except ValueError as error:
            raise ModelError(
                f"{self.source}: {error}; train again with a lower learning rate, or use another "
                "model"
            ) from None
        measured = self.task.measure(
            columns,
            thresholds=thresholds,
            calibration=calibration,
            artists=clips.artists,
            n_draws=n_draws,
            seed=seed,
        )
        if calibration is not None:
            columns = ArrayColumns(columns.labels, calibration(columns.scores))
        files = write_results(
            folder,
            columns,
            tags=plan.tags,
            clips=clips,
            measured=measured,
            thresholds=thresholds,
            task=self.task.name,
        )
        notes = list(plan.notes)
        if failures:
            notes.append(
                f"{len(failures)} of {len(plan.rows)} clips could not be read and are left out"
            )
        evaluation = Evaluation(
            source=self.source,
            part=self.part,
            tags=plan.tags,
            measured=measured,
            files=files,
            scores=files["scores"],
            clips=clips,
            protocol=plan.protocol,
            leakage=find_leakage(self.index, plan.parts),
            history=history,
            notes=tuple(notes),
            failures=failures,
            audio_root=audio_root,
            model=self.source,
        )
        write_json(files["metrics"], evaluation.to_json())
        return evaluation


def write_results(
    folder: Path,
    columns: ArrayColumns,
    *,
    tags: Sequence[str],
    clips: Clips,
    measured: Measured,
    thresholds: npt.NDArray[np.float64],
    task: str,
) -> dict[str, Path]:
    """Write scores and the figures per tag.

    Parameters
    ----------
    folder : Path
        Where they go.
    columns : ArrayColumns
        Labels, and what the model says.
    tags : sequence of str
        Names of its columns.
    clips : Clips
        Names of its rows.
    measured : Measured
        What was found.
    thresholds : np.ndarray [shape=(n_tags,)]
        Score from which each tag applies.
    task : str
        Its name.

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
    write_scores(
        files["scores"],
        columns,
        tags=tags,
        clip_ids=clips.ids,
        paths=clips.paths,
        artists=clips.artists,
        thresholds=thresholds,
        task=task,
    )
    write_csv(files["per tag"], *measured.rows(tags))
    return files
