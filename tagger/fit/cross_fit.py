"""A clip head fitted to all clips but those of a fold, and measured on these; then to all."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocess.clips.splits.k_fold import folds_of
from tagger.base.errors import ConfigError
from tagger.base.log import progress_bar
from tagger.scoring.clip_heads import ClipHead, Labels
from tagger.scoring.scorer import Floats


@dataclass(frozen=True)
class Fitted:
    """A clip head, and what heads like it say of clips that they were not fitted to.

    Parameters
    ----------
    head : ClipHead
        Fitted to all clips, in the way that the folds have chosen.
    rows : np.ndarray [dtype=intp]
        Clips that were tested.
    scores : np.ndarray [shape=(len(rows), n_tags), dtype=float32]
        Of these, each by a head that was fitted to the clips of other folds alone.
    folds : np.ndarray [shape=(n_clips,), dtype=intp]
        Fold of each clip.
    """

    head: ClipHead
    rows: npt.NDArray[np.intp]
    scores: Floats
    folds: npt.NDArray[np.intp]


def cross_fit(
    head: ClipHead,
    features: Floats,
    labels: Labels,
    *,
    groups: list[str],
    n_folds: int,
    n_tested: int,
    seed: int,
) -> Fitted:
    """Fit a clip head, with folds that tell how good it is.

    Parameters
    ----------
    head : ClipHead
        Not fitted yet.
    features : np.ndarray [shape=(n_clips, ...)]
        As its `together` makes them.
    labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        1 where a clip carries a tag.
    groups : list of str
        Clips that stay together, e.g. by artist.
    n_folds : int
        Into so many folds the clips are dealt.
    n_tested : int
        So many of them are tested; each takes a fit.
    seed : int
        Of the folds.

    Raises
    ------
    ConfigError
        If there are fewer groups than folds.
    """
    folds = folds_of(labels, groups, n_folds=n_folds, seed=seed)
    scores: list[list[Floats]] = []
    losses: list[list[float]] = []
    with progress_bar("fit", n_tested + 1) as advance:
        for fold in range(n_tested):
            tested, others = folds == fold, folds != fold
            _require_labels(labels[others])
            said, lost = [], []
            near = list(itertools.compress(groups, others))
            for one in head.fits(features[others], labels[others], groups=near):
                said.append(one.scores(features[tested]))
                lost.append(one.loss(features[tested], labels[tested]))
                # The next ones bend further and take longer.
                if len(lost) > 2 and lost[-1] > lost[-2] > lost[-3]:
                    break
            scores.append(said)
            losses.append(lost)
            advance(1, "")
        totals = _totals(losses, [int((folds == fold).sum()) for fold in range(n_tested)])
        number = int(np.argmin(totals.sum(axis=0)))
        best = _item(head.fits(features, labels, groups=groups), number)
        advance(1, "")
    found = []
    for fold, said in enumerate(scores):
        # What scores a fold is chosen on the others; of one fold alone, on itself.
        others_lost = totals.sum(axis=0) - (totals[fold] if n_tested > 1 else 0)
        found.append(said[min(int(np.argmin(others_lost)), len(said) - 1)])
    rows = np.concatenate([np.flatnonzero(folds == fold) for fold in range(n_tested)])
    order = np.argsort(rows, kind="stable")
    return Fitted(best, rows[order], np.concatenate(found)[order], folds)


def _totals(losses: list[list[float]], sizes: list[int]) -> npt.NDArray[np.float64]:
    """Loss of all clips of each fold, by candidate; those after the last one are no better."""
    n_candidates = max(map(len, losses))
    totals = np.empty((len(losses), n_candidates))
    for fold, (lost, size) in enumerate(zip(losses, sizes, strict=True)):
        totals[fold] = size * np.array(lost + [lost[-1]] * (n_candidates - len(lost)))
    return totals


def _item(heads: Iterator[ClipHead], number: int) -> ClipHead:
    return next(itertools.islice(heads, number, None))


def _require_labels(labels: Labels) -> None:
    counts = labels.sum(axis=0, dtype=np.int64)
    if not ((counts > 0) & (counts < len(labels))).any():
        raise ConfigError(
            "no tag is carried by some of the clips and not by others; add clips or tags"
        )
