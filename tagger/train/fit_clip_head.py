"""Fit a `ClipHead` to the training clips of a run, after its network has learned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ConfigError
from tagger.base.files import sha256_of_file
from tagger.base.log import notice
from tagger.config import ClipHeadConfig, Config
from tagger.network.model import TaggerModel, build_model
from tagger.runs.folder import RunFolder
from tagger.scoring.clip_head import ClipHead, Floats, clip_features
from tagger.train.data import PreparedData
from tagger.train.decisions import save_decisions
from tagger.train.score_clips import score_clips, vectors_of_clips

# Weights of the penalty, the strongest first: each fit starts from the one before. The one whose
# scores of the validation clips cost least is taken.
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_MAX_STEPS = 300
# Features of all clips from which several threads are faster.
_MANY = 4_000_000
# Standard deviation below which a feature counts as constant.
_CONSTANT = 1e-6


@dataclass(frozen=True)
class Fitted:
    """A fitted head.

    Parameters
    ----------
    head : ClipHead
        The head.
    penalty : float
        Of `PENALTIES`, the one that was taken.
    loss : float
        Mean cross-entropy of the validation clips.
    """

    head: ClipHead
    penalty: float
    loss: float


def logistic_regression(
    features: npt.NDArray[np.float64],
    labels: npt.NDArray[np.float64],
    *,
    penalty: float,
    start: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Logistic regressions of many tags on the same features, all at once.

    Minimises, for each tag, the mean cross-entropy over the clips plus ``penalty / 2`` times the
    squared length of its weights; the bias is free. This is scikit-learn's regression with
    ``C = 1 / (n_clips * penalty)``, which takes one tag at a time.

    Parameters
    ----------
    features : np.ndarray [shape=(n_clips, n_features)]
        Standardised.
    labels : np.ndarray [shape=(n_clips, n_tags)]
        0 or 1; both occur of each tag.
    penalty : float
        Positive.
    start : np.ndarray [shape=(n_features + 1, n_tags)], optional
        Where to begin; default zeros.

    Returns
    -------
    np.ndarray [shape=(n_features + 1, n_tags)]
        Weights, and the bias in the last row.
    """
    from scipy.optimize import minimize
    from scipy.special import expit
    from threadpoolctl import threadpool_limits

    if features.shape[1] > len(features):
        # Only the space that the clips span takes part, and lengths in it are the same.
        left, values, axes = np.linalg.svd(features, full_matrices=False)
        solution = logistic_regression(
            left * values,
            labels,
            penalty=penalty,
            start=None if start is None else np.concatenate([axes @ start[:-1], start[-1:]]),
        )
        return np.concatenate([axes.T @ solution[:-1], solution[-1:]])
    n_clips, n_features = features.shape
    shape = (n_features + 1, labels.shape[1])

    def cost(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights = flat.reshape(shape)
        logits = features @ weights[:-1] + weights[-1]
        # log(1 + e^z) - y z, without an overflow.
        loss = (np.logaddexp(0, logits) - labels * logits).sum() / n_clips
        error = (expit(logits) - labels) / n_clips
        slope = np.concatenate([features.T @ error + penalty * weights[:-1], [error.sum(axis=0)]])
        return loss + penalty / 2 * float((weights[:-1] ** 2).sum()), slope.ravel()

    first = np.zeros(shape) if start is None else start
    # Threads would wait for one another longer than they multiply.
    with threadpool_limits(1 if n_clips * n_features < _MANY else None, user_api="blas"):
        found = minimize(
            cost, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _MAX_STEPS}
        )
    minimum: npt.NDArray[np.float64] = found.x.reshape(shape)
    return minimum


def fit_clip_head(
    features: Floats,
    labels: npt.NDArray[np.uint8],
    *,
    validation_features: Floats,
    validation_labels: npt.NDArray[np.uint8],
    layers: Sequence[str],
    backbone: str = "",
) -> Fitted:
    """Fit a head with each of `PENALTIES`, and take the one that is best on the validation clips.

    Parameters
    ----------
    features, validation_features : np.ndarray [shape=(n_clips, n_features), dtype=float32]
        As `tagger.scoring.clip_head.clip_features` makes them.
    labels, validation_labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        1 where a clip carries a tag. A tag that no training clip carries, or all of them, is given
        how often it occurs.
    layers : sequence of str
        What the features are made of.
    backbone : str
        Checksum of the network's weights.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    deviation = features.std(axis=0, dtype=np.float64)
    scale = np.where(deviation > _CONSTANT, deviation, np.inf)
    standardised = (features - mean) / scale
    n_positive = labels.sum(axis=0, dtype=np.int64)
    learned = (n_positive > 0) & (n_positive < len(labels))
    share = (n_positive + 0.5) / (len(labels) + 1)
    targets = labels[:, learned].astype(np.float64)

    best: Fitted | None = None
    solution = None
    for penalty in PENALTIES:
        solution = logistic_regression(standardised, targets, penalty=penalty, start=solution)
        weights = np.zeros((features.shape[1], labels.shape[1]))
        weights[:, learned] = solution[:-1] / scale[:, np.newaxis]
        bias = np.log(share / (1 - share))
        bias[learned] = solution[-1] - mean @ weights[:, learned]
        head = ClipHead(
            tuple(layers), weights.astype(np.float32), bias.astype(np.float32), backbone
        )
        loss = _cross_entropy(head.of_features(validation_features), validation_labels)
        if best is None or loss < best.loss:
            best = Fitted(head, penalty, loss)
    assert best is not None
    return best


def _cross_entropy(scores: Floats, labels: npt.NDArray[np.uint8]) -> float:
    likely = np.where(labels == 1, scores, 1 - scores).astype(np.float64)
    return float(-np.log(np.maximum(likely, 1e-7)).mean())


def require_layers(wanted: ClipHeadConfig, model: TaggerModel) -> None:
    """Refuse embeddings that the network does not have.

    Raises
    ------
    ConfigError
        Naming the first, and those that it has.
    """
    sizes = model.embedding_sizes
    unknown = [layer for layer in wanted.layers if layer not in sizes]
    if unknown and wanted.name != "none":
        raise ConfigError(
            f"model.clip_head.layers: the network has no embedding {unknown[0]!r}; "
            f"it has {', '.join(sizes)}"
        )


def settle_clip_head(run: RunFolder, config: Config, data: PreparedData) -> None:
    """Give a run the clip head that its config wants, and decisions that fit; often it has both.

    Parameters
    ----------
    run : RunFolder
        A run with its best weights.
    config : Config
        Its config.
    data : PreparedData
        Its clips and their patches.

    Raises
    ------
    ConfigError
        If the network has no such embedding.
    """
    wanted = config.model.clip_head
    if wanted.name == "none" and not run.clip_head.exists():
        return
    model = build_model(config, config.make_front_end(), data.vocabulary.tags)
    require_layers(wanted, model)
    model.load_weights(run.best_weights)
    rows = {part: data.rows(part) for part in ("train", "validation")}
    labels = {part: data.labels[some] for part, some in rows.items()}
    if wanted.name == "none":
        scores = score_clips(
            model, data.store, rows=rows["validation"], config=config.stream, title="  validate"
        )
        save_decisions(
            run, model.task, config.calibration, labels=labels["validation"], scores=scores
        )
        run.clip_head.unlink()
        return
    known = run.load_clip_head(sizes=model.embedding_sizes, n_tags=len(model.tags))
    if known is not None and known.layers == wanted.layers:
        return
    features = {
        part: vectors_of_clips(
            model,
            data.store,
            rows=rows[part],
            config=config.stream,
            outputs=wanted.layers,
            make=partial(clip_features, layers=wanted.layers),
            title=title,
        )
        for part, title in (("train", "clip head"), ("validation", "  validate"))
    }
    fitted = fit_clip_head(
        features["train"],
        labels["train"],
        validation_features=features["validation"],
        validation_labels=labels["validation"],
        layers=wanted.layers,
        backbone=sha256_of_file(run.best_weights),
    )
    scores = fitted.head.of_features(features["validation"])
    monitored = model.task.metrics(labels["validation"], scores)[config.train.monitor]
    shown = "cannot be computed" if math.isnan(monitored) else f"{monitored:.4f}"
    notice(
        f"clip head on {', '.join(wanted.layers)}: validation {config.train.monitor} {shown}, "
        f"penalty {fitted.penalty:g}"
    )
    # The head comes last and makes it count: stopped in between, the next start fits both anew.
    save_decisions(run, model.task, config.calibration, labels=labels["validation"], scores=scores)
    fitted.head.save(run.clip_head)
