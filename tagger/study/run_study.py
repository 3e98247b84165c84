"""The verb ``study run``: fits what is missing of a study, then writes its page."""

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.clips.splits import PARTS, SPLITS, split_parts
from preprocess.clips.splits.k_fold import groups_of
from preprocess.clips.vocabulary import resolve_vocabulary
from tagger.base.errors import ConfigError, TaggerError
from tagger.base.files import write_json
from tagger.base.log import failed, notice, progress_bar
from tagger.config import Config, FitConfig
from tagger.fit.chosen_head import chosen_head
from tagger.fit.cross_fit import Fitted, cross_fit
from tagger.fit.sources import Clips, read_clips
from tagger.metrics.columns import ArrayColumns
from tagger.metrics.score_files import write_scores
from tagger.scoring.clip_heads import ClipHead, Labels, save_clip_head
from tagger.scoring.scorer import Floats
from tagger.study.kept import (
    RESULT,
    SCHEMA_VERSION,
    SCORES,
    STORES,
    digest,
    folder_of,
    known_result,
)
from tagger.study.page import write_page
from tagger.study.study_file import Study, Variant, config_of, read_study
from tagger.study.trained import train_variant
from tagger.study.votes import training_scores, vote

# Clips that are scored again to see how long one takes.
_TIMED_CLIPS = 50


@dataclass(frozen=True)
class StudyResult:
    """What a study has come to.

    Parameters
    ----------
    study : Study
        Its file.
    results : dict of str to dict
        What was found of each variant, by name.
    failures : dict of str to str
        Variants that could not be fitted: name -> reason.
    files : dict of str to Path
        Page and table.
    """

    study: Study
    results: dict[str, dict[str, Any]]
    failures: dict[str, str]
    files: dict[str, Path]


def run_study(
    path: Path, folder: Path, *, overrides: list[str] | None = None, n_jobs: int = 2
) -> StudyResult:
    """Fit what is missing of a study, and write its page.

    Each variant is kept in a folder of its own as soon as it is done: a study that was killed goes
    on with the others, and a variant whose config has changed is fitted anew.

    Parameters
    ----------
    path : Path
        File of the study.
    folder : Path
        Where variants, page and table are kept.
    overrides : list of str, optional
        ``section.key=value`` for all variants, e.g. where the data are.
    n_jobs : int
        Variants that are fitted at once.

    Raises
    ------
    ConfigError
        If the file is no study, or no variant can be fitted.
    """
    study = read_study(path)
    configs = {
        variant.name: config_of(study, variant, path=path, overrides=overrides or [])
        for variant in study.variants
    }
    fitted = [variant for variant in study.variants if not variant.vote_of]
    votes = [variant for variant in study.variants if variant.vote_of]
    failures: dict[str, str] = {}
    # Votes that learn their weights do so on training clips, which folds score then.
    scored = {name for v in votes if v.vote_by != "mean" for name in v.vote_of}
    missing = [
        v
        for v in fitted
        if known_result(folder, v.name, configs[v.name]) is None
        or (v.name in scored and not training_scores(folder_of(folder, v.name), 0).exists())
    ]
    if len(missing) < len(fitted):
        notice(f"{len(fitted) - len(missing)} of {len(fitted)} variants are there already")
    with progress_bar("study", len(missing)) as advance:
        trained = [variant for variant in missing if study.trains(variant)]
        others = [variant for variant in missing if not study.trains(variant)]
        for variant, error in itertools.chain(
            _fit_all(others, configs, folder, scored=scored, n_jobs=n_jobs),
            _train_all(trained, configs, folder),
        ):
            if error is not None:
                failures[variant.name] = error
                failed(f"{variant.name}: {error}")
            advance(1, "")
    results = {}
    for variant in fitted:
        known = known_result(folder, variant.name, configs[variant.name])
        if known is not None:
            results[variant.name] = known
    for variant in votes:
        lacking = [name for name in variant.vote_of if name not in results]
        if lacking:
            failures[variant.name] = f"{lacking[0]!r}, which takes part in the vote, was not fitted"
            failed(f"{variant.name}: {failures[variant.name]}")
        else:
            results[variant.name] = vote(folder, variant, configs[variant.name], results)
    if not results:
        raise ConfigError(f"{path}: no variant could be fitted; see above")

    order = {v.name: results[v.name] for v in study.variants if v.name in results}
    files = write_page(study, folder, order, configs=configs, failures=failures)
    return StudyResult(study, order, failures, files)


def _fit_all(
    variants: list[Variant],
    configs: dict[str, Config],
    folder: Path,
    *,
    scored: set[str],
    n_jobs: int,
) -> Iterator[tuple[Variant, str | None]]:
    """Fit variants, some at once; the reason comes with one that cannot be fitted."""
    if n_jobs == 1 or len(variants) < 2:
        for variant in variants:
            own, by_folds = folder_of(folder, variant.name), variant.name in scored
            yield variant, fit_variant(configs[variant.name], own, by_folds=by_folds)
        return
    import multiprocessing

    with ProcessPoolExecutor(
        n_jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_one_thread
    ) as pool:
        pending = {
            pool.submit(
                fit_variant, configs[v.name], folder_of(folder, v.name), by_folds=v.name in scored
            ): v
            for v in variants
        }
        try:
            for future in as_completed(pending):
                yield pending[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _train_all(
    variants: list[Variant], configs: dict[str, Config], folder: Path
) -> Iterator[tuple[Variant, str | None]]:
    """Train variants one after the other, each in a process of its own, with all processors."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    for variant in variants:
        # What TensorFlow has taken of memory goes with the process.
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            own = folder_of(folder, variant.name)
            future = pool.submit(train_variant, configs[variant.name], own, folder / STORES)
            try:
                yield variant, future.result()
            except BrokenExecutor:
                yield variant, "its process was ended, perhaps for lack of memory; run it again"


def _one_thread() -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)


def fit_variant(config: Config, folder: Path, *, by_folds: bool = False) -> str | None:
    """Fit a variant in each of its folds, and keep what it says of the test clips.

    Parameters
    ----------
    config : Config
        Of the variant.
    folder : Path
        Of the variant.
    by_folds : bool
        Also keep what it says of each training clip when that is left out of the fit.

    Returns
    -------
    str or None
        Why it cannot be fitted; None where it was.
    """
    try:
        _fit_variant(config, folder, by_folds=by_folds)
    except TaggerError as error:
        return str(error)
    return None


def _fit_variant(config: Config, folder: Path, *, by_folds: bool) -> None:
    clips = read_clips(config)
    vocabulary = resolve_vocabulary(clips.index, config.data.tags)
    labels = vocabulary.labels(clips.index.labels, clips.index.tags)
    head = chosen_head(config, clips.names, source=str(clips.index.source))
    features = head.together([head.features(outputs) for outputs in clips.outputs])
    groups = groups_of(clips.index, (config.fit or FitConfig()).group)
    rows, scores, seconds, said = [], [], [], []
    folder.mkdir(parents=True, exist_ok=True)

    def keep(path: Path, kept: npt.NDArray[np.intp], of_these: Floats) -> None:
        records = [clips.index.clips[int(row)] for row in kept]
        write_scores(
            path,
            ArrayColumns(labels[kept], of_these),
            tags=vocabulary.tags,
            clip_ids=[record.id for record in records],
            paths=[record.path for record in records],
            artists=[record.artist for record in records],
            task=config.task.name,
        )

    for fold, (train, validation, test) in enumerate(_sides(config, clips)):
        begun = time.perf_counter()
        near = [groups[row] for row in train]
        fitted, by_fold = _fitted(
            head, features[train], labels[train], near, config, by_folds=by_folds
        )
        seconds.append(time.perf_counter() - begun)
        if by_folds and by_fold is not None:
            # Clips that validate take no part in a fit.
            unseen, of_rows = [by_fold.scores], [train[by_fold.rows]]
            if len(validation):
                unseen.append(fitted.scores(features[validation]))
                of_rows.append(validation)
            keep(training_scores(folder, fold), np.concatenate(of_rows), np.concatenate(unseen))
        rows.append(test)
        scores.append(fitted.scores(features[test]))
        said.append(fitted.describe())
    save_clip_head(fitted, folder / "clip_head.npz")
    keep(folder / SCORES, np.concatenate(rows), np.concatenate(scores))
    config.save(folder / "config.yaml")
    # Comes last and makes it count.
    write_json(
        folder / RESULT,
        {
            "schema_version": SCHEMA_VERSION,
            "config_hash": digest(config),
            "n_train": len(train),
            "n_folds": len(rows),
            "n_tested": [len(tested) for tested in rows],
            "fit_seconds": float(np.mean(seconds)),
            "ms_per_clip": _ms_per_clip(fitted, clips),
            "bytes": (folder / "clip_head.npz").stat().st_size,
            "found": said[0],
        },
    )


def _sides(
    config: Config, clips: Clips
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Rows that are fitted, rows that validate and rows that are tested, in each fold."""
    data = config.data
    split = SPLITS.create(data.split, data.split_params)
    for fold in range(split.n_folds):
        parts = split_parts(
            clips.index, data.split, params=data.split_params, seed=data.split_seed, fold=fold
        )
        train, validation, test = (np.flatnonzero(parts == part) for part in PARTS)
        if not len(train) or not len(test):
            raise ConfigError(
                f"data.split={data.split}: leaves no clips to train on, or to test; add clips, or "
                "choose another split"
            )
        yield train, validation, test


def _fitted(
    head: ClipHead,
    features: Floats,
    labels: Labels,
    groups: list[str],
    config: Config,
    *,
    by_folds: bool,
) -> tuple[ClipHead, Fitted | None]:
    """Fit a head; where it fits in several ways, folds of the training clips choose."""
    if not by_folds:
        heads = list(itertools.islice(head.fits(features, labels, groups=groups), 2))
        if len(heads) == 1:
            return heads[0], None
    fit = config.fit or FitConfig()
    chosen = cross_fit(
        head,
        features,
        labels,
        groups=groups,
        n_folds=fit.folds,
        n_tested=fit.folds,
        seed=fit.seed,
    )
    return chosen.head, chosen


def _ms_per_clip(head: ClipHead, clips: Clips) -> float:
    """Milliseconds from outputs of windows to scores of a clip, one clip at a time."""
    some = clips.outputs[:_TIMED_CLIPS]
    head(some[0])
    begun = time.perf_counter()
    for outputs in some:
        head(outputs)
    return 1000 * (time.perf_counter() - begun) / len(some)
