"""Evaluation of a bundle or a registered model on the clips of any data set."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.clips.datasets import DATASETS
from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import split_parts
from preprocess.clips.vocabulary import Vocabulary
from preprocess.store.store import Store
from tagger.base.errors import ModelError, TaggerError
from tagger.base.files import write_json
from tagger.base.log import progress_bar
from tagger.bundle.find import find_bundle
from tagger.bundle.read import CONFIG, VOCABULARY, Bundle
from tagger.bundle.runtime import Runtime
from tagger.cloud.locations import location
from tagger.config import Config, load_config
from tagger.evaluate.evaluate import Evaluation, measure, with_report, write_results
from tagger.evaluate.leakage import find_leakage
from tagger.evaluate.protocol_names import clips_of
from tagger.evaluate.protocol_plan import Plan, plan_of
from tagger.evaluate.protocols import Selection
from tagger.metrics.bootstrap import N_RESAMPLES
from tagger.metrics.score_table import ScoreTable
from tagger.tagging.tagger import Tagger

_CLIPS_AT_ONCE = 1024
# What a network makes of a window may take some megabytes.
_WINDOWS_AT_ONCE = 16

Scores = npt.NDArray[np.float32]


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
    tagger = Tagger(bundle)
    tagger.require_tags()
    # Errors are measured before and after it.
    calibration, tagger.calibration = tagger.calibration, None
    patches = None if store is None else Store(location(store))
    if patches is not None:
        patches.require_front_end(tagger.front_end, user="the model")
    index = patches.index if patches is not None else _index(settings)
    plan = plan_of(
        index,
        _own(bundle, settings, index),
        model=model,
        model_tags=tagger.tags,
        protocol=protocol,
        part=part,
        recorded=False,
    )
    if not plan.rows:
        raise ModelError(f"{model}: no clip of the {part} part is in {index.source}; try --part")
    folder = output or Path("evaluation") / bundle.name / f"{protocol}-{part}"
    folder.mkdir(parents=True, exist_ok=True)
    thresholds = np.full(len(plan.tags), np.nan)
    if tagger.thresholds is not None:
        thresholds = tagger.thresholds[plan.columns].astype(np.float64)
    if calibration is not None:
        calibration = calibration.of_columns(plan.columns)
    with tempfile.TemporaryFile(dir=folder) as file:
        answers = (
            _of_audio(tagger, settings.data.root, index, plan)
            if patches is None
            else _of_store(tagger, patches, plan)
        )
        places: list[int] = []
        failures: dict[str, str] = {}
        with progress_bar(f"score {part}", len(plan.rows)) as advance:
            for place, answer in enumerate(answers):
                if isinstance(answer, TaggerError):
                    failures[index.clips[plan.rows[place]].path] = str(answer)
                else:
                    places.append(place)
                    file.write(np.ascontiguousarray(answer[plan.columns]).tobytes())
                advance(1, "")
        if not places:
            first = next(iter(failures.values()))
            raise ModelError(f"{model}: none of {len(plan.rows)} clips can be read ({first})")
        file.seek(0)
        clips = clips_of(index, [plan.rows[place] for place in places])
        with ScoreTable(len(places), len(plan.tags), dtype=np.float32, folder=folder) as table:
            for first_place in range(0, len(places), _CLIPS_AT_ONCE):
                some = places[first_place : first_place + _CLIPS_AT_ONCE]
                content = file.read(4 * len(some) * len(plan.tags))
                scores = np.frombuffer(content, dtype=np.float32).reshape(len(some), -1)
                try:
                    table.add(plan.labels[some], scores)
                except ValueError as error:
                    raise ModelError(f"{model}: {error}; use another model") from None
            measured = measure(
                table,
                thresholds=thresholds,
                calibration=calibration,
                artists=clips.artists,
                n_draws=n_draws,
                seed=seed,
            )
            files = write_results(
                folder, table, tags=plan.tags, clips=clips, measured=measured, thresholds=thresholds
            )
    notes = list(plan.notes)
    if failures:
        notes.append(
            f"{len(failures)} of {len(plan.rows)} clips could not be read and are left out"
        )
    evaluation = Evaluation(
        source=model,
        part=part,
        tags=plan.tags,
        files=files,
        scores=files["scores"],
        clips=clips,
        protocol=plan.protocol,
        leakage=find_leakage(index, plan.parts),
        notes=tuple(notes),
        failures=failures,
        audio_root=settings.data.root,
        model=model,
        **measured,
    )
    write_json(files["metrics"], evaluation.to_json())
    return with_report(evaluation, report or folder)


def _index(settings: Config) -> ClipIndex:
    data = settings.data
    return DATASETS.create(data.name, data.params).index(data.root)


def _own(bundle: Bundle, settings: Config, index: ClipIndex) -> Selection:
    """Split of the config, and the tags of the bundle with what they stand for."""
    tags = bundle.tags()
    content = json.loads(bundle.verified(VOCABULARY).read_text(encoding="utf-8"))
    try:
        members = tuple(tuple(map(str, names)) for names in content["members"])
        vocabulary = Vocabulary(tags, members if len(members) == len(tags) else ())
        if not all(members) or len(vocabulary.members) != len(tags):
            raise ValueError("it does not fit the tags")
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{bundle.root / VOCABULARY}: damaged ({error}); copy, export or pull the bundle again"
        ) from None
    parts = split_parts(index, settings.data.split, seed=settings.data.split_seed)
    return Selection(parts, vocabulary)


def _of_audio(
    tagger: Tagger, root: Path, index: ClipIndex, plan: Plan
) -> Iterator[Scores | TaggerError]:
    paths = [root / index.clips[row].path for row in plan.rows]
    for _, answer in tagger.attempt_many(paths):
        yield answer if isinstance(answer, TaggerError) else answer.scores


def _of_store(tagger: Tagger, store: Store, plan: Plan) -> Iterator[Scores]:
    bundle = tagger.bundle
    runtime = Runtime(
        bundle.verified(bundle.export("litert", tagger.quantize).file), n_threads=tagger.jobs
    )
    scorer = bundle.clip_scorer()
    for row in plan.rows:
        windows = store.read(row)
        n_windows = len(next(iter(windows.values())))
        parts = [
            runtime(
                {
                    name: array[at : at + _WINDOWS_AT_ONCE].astype(np.float32)
                    for name, array in windows.items()
                }
            )
            for at in range(0, n_windows, _WINDOWS_AT_ONCE)
        ]
        yield scorer(
            {name: np.concatenate([part[name] for part in parts]) for name in scorer.outputs}
        )
