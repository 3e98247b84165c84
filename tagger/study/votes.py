"""A vote of variants: the mean of their scores, weighted or stacked as their folds have shown."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ConfigError
from tagger.base.files import write_json
from tagger.config import Config
from tagger.metrics.columns import ArrayColumns
from tagger.metrics.score_files import ScoreArchive, read_scores, write_scores
from tagger.scoring.clip_heads import Labels
from tagger.study.kept import RESULT, SCHEMA_VERSION, SCORES, digest, folder_of
from tagger.study.study_file import Variant

# Scores of training clips, each by a fit without its fold; a file for each fold of the test.
_TRAINING = "training_{}.npz"
_MOST_STEPS = 1000
_STEP_IS_NOTHING = 1e-7
_LEAST = 1e-6


def training_scores(folder: Path, fold: int) -> Path:
    """File of what a variant says of its training clips, by fits that left each of them out.

    Parameters
    ----------
    folder : Path
        Of the variant.
    fold : int
        Of the split: what is left out of both is its test clips.
    """
    return folder / _TRAINING.format(fold)


def vote(
    folder: Path, variant: Variant, config: Config, results: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Let variants vote on the clips that all of them were tested on, and keep what they say.

    Parameters
    ----------
    folder : Path
        Of the study.
    variant : Variant
        Whose ``vote_of`` names them.
    config : Config
        Of the variant.
    results : dict of str to dict
        What was found of each of them, by name.

    Raises
    ------
    ConfigError
        If they were tested on different clips, or have several labels and a vote that learns.
    """
    archives = [read_scores(folder_of(folder, name) / SCORES) for name in variant.vote_of]
    first = archives[0]
    parts = [results[name] for name in variant.vote_of]
    if any(set(archive.clip_ids) != set(first.clip_ids) for archive in archives):
        raise ConfigError(
            f"{variant.name}: the variants of its vote were tested on other clips; give them all "
            "the same split"
        )
    one_label = (first.columns.labels.sum(axis=1, dtype=np.int64) == 1).all()
    if variant.vote_by != "mean" and not one_label:
        raise ConfigError(
            f"{variant.name}: vote_by {variant.vote_by} needs one label per clip; use mean"
        )
    said = np.stack([_scores_of(archive, first.clip_ids) for archive in archives])
    ends = np.cumsum([0, *parts[0]["n_tested"]])
    found, of_weights = [], []
    for fold, (begin, end) in enumerate(itertools.pairwise(ends)):
        if variant.vote_by == "mean":
            found.append(said[:, begin:end].mean(axis=0))
            continue
        known = [
            read_scores(training_scores(folder_of(folder, name), fold)) for name in variant.vote_of
        ]
        scores, weights = _learned(known, said[:, begin:end], stacked=variant.vote_by == "stacking")
        found.append(scores)
        of_weights.append(weights)
    own = folder_of(folder, variant.name)
    own.mkdir(parents=True, exist_ok=True)
    write_scores(
        own / SCORES,
        ArrayColumns(first.columns.labels, np.concatenate(found).astype(np.float32)),
        tags=first.tags,
        clip_ids=first.clip_ids,
        paths=first.paths,
        artists=first.artists,
        task=config.task.name,
    )
    result = {
        "schema_version": SCHEMA_VERSION,
        "config_hash": digest(config),
        "n_train": parts[0]["n_train"],
        "n_folds": parts[0]["n_folds"],
        "n_tested": parts[0]["n_tested"],
        **{
            key: float(sum(part[key] for part in parts))
            for key in ("fit_seconds", "ms_per_clip", "bytes")
        },
        "found": _said_of(variant, of_weights),
    }
    write_json(own / RESULT, result)
    return result


def _said_of(variant: Variant, of_weights: list[npt.NDArray[np.float64]]) -> str:
    if variant.vote_by == "stacking":
        return f"logistic regression on what {', '.join(variant.vote_of)} say"
    if not of_weights:
        return f"mean of {', '.join(variant.vote_of)}"
    mean = np.mean(of_weights, axis=0)
    shares = [f"{share:.2f} {name}" for name, share in zip(variant.vote_of, mean, strict=True)]
    return f"weighted mean: {', '.join(shares)}"


def _scores_of(archive: ScoreArchive, clips: Sequence[str]) -> npt.NDArray[np.float64]:
    """Scores of clips [shape=(n_clips, n_labels)], in their order."""
    rows_of = {clip: row for row, clip in enumerate(archive.clip_ids)}
    return archive.columns.scores[[rows_of[clip] for clip in clips]].astype(np.float64)


def _learned(
    known: Sequence[ScoreArchive], said: npt.NDArray[np.float64], *, stacked: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scores of clips by what is known of training clips, and the weight of each variant."""
    # Networks have none but of validation clips.
    shared = set(known[0].clip_ids).intersection(*(archive.clip_ids for archive in known[1:]))
    if not shared:
        raise ConfigError(
            "no clip outside the test has scores of all variants of the vote; choose a split with "
            "validation clips, or vote_by mean"
        )
    ids = [clip for clip in known[0].clip_ids if clip in shared]
    rows_of = {clip: row for row, clip in enumerate(known[0].clip_ids)}
    labels = known[0].columns.labels[[rows_of[clip] for clip in ids]].astype(np.uint8)
    training = np.stack([_scores_of(archive, ids) for archive in known])
    if not stacked:
        weights = mixture_weights(training, labels)
        return np.tensordot(weights, said, axes=1), weights
    from sklearn.linear_model import LogisticRegression

    def rows(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.log(np.maximum(np.concatenate(list(scores), axis=1), _LEAST))

    target = labels.argmax(axis=1)
    model = LogisticRegression(C=0.1, max_iter=1000).fit(rows(training), target)
    scores = np.zeros(said.shape[1:])
    scores[:, model.classes_] = model.predict_proba(rows(said))
    return scores, np.full(len(known), np.nan)


def mixture_weights(scores: npt.NDArray[np.floating], labels: Labels) -> npt.NDArray[np.float64]:
    """Shares of a mean of models that make the labels most likely.

    Expectation and maximisation (Dempster, Laird & Rubin 1977) for a mixture of which only the
    shares are free: its likelihood has no maximum but the one that it climbs to.

    Parameters
    ----------
    scores : np.ndarray [shape=(n_models, n_clips, n_labels)]
        Probabilities.
    labels : np.ndarray [shape=(n_clips, n_labels), dtype=uint8]
        Exactly one per clip.

    Returns
    -------
    np.ndarray [shape=(n_models,), dtype=float64]
        They add up to 1.
    """
    right = np.maximum((scores * labels).sum(axis=2), _LEAST)
    weights = np.full(len(scores), 1 / len(scores))
    for _ in range(_MOST_STEPS):
        shares = weights[:, np.newaxis] * right
        renewed = (shares / shares.sum(axis=0)).mean(axis=1)
        if np.abs(renewed - weights).max() < _STEP_IS_NOTHING:
            break
        weights = renewed
    return weights
