"""A clip head fitted to all clips but those of a fold, and measured on these; then to all."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocess.clips.splits.k_fold import folds_of
from tagger.base.errors import ConfigError
from tagger.base.log import progress_bar
from tagger.scoring.clip_heads import CLIP_HEADS, ClipHead, Labels
from tagger.scoring.scorer import Floats


@dataclass(frozen=True)
class Fitted:
    """A clip head, and what heads like it say of clips that they were not fitted to.

    Parameters
    ----------
    head : ClipHead
        Fitted to all clips.
    rows : np.ndarray [dtype=intp]
        Clips that were tested.
    scores : np.ndarray [shape=(len(rows), n_tags), dtype=float32]
        Of these, each by a head that was fitted to the clips of other folds alone.
    folds : np.ndarray [shape=(n_clips,), dtype=intp]
        Fold of each clip.
    said : str
        What the last fit found, for people.
    """

    head: ClipHead
    rows: npt.NDArray[np.intp]
    scores: Floats
    folds: npt.NDArray[np.intp]
    said: str


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
    features : np.ndarray [shape=(n_clips, n_features), dtype=float32]
        As it makes them.
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
    rows, scores = [], []
    with progress_bar("fit", n_tested + 1) as advance:
        for fold in range(n_tested):
            tested = np.flatnonzero(folds == fold)
            others = np.flatnonzero(folds != fold)
            _require_labels(labels[others])
            one = CLIP_HEADS.create(head.name, head.params.model_dump())
            one.fit(features[others], labels[others], groups=[groups[row] for row in others])
            rows.append(tested)
            scores.append(one.scores(features[tested]))
            advance(1, f"fold {fold + 1}")
        said = head.fit(features, labels, groups=groups)
        advance(1, "")
    order = np.argsort(np.concatenate(rows), kind="stable")
    return Fitted(head, np.concatenate(rows)[order], np.concatenate(scores)[order], folds, said)


def _require_labels(labels: Labels) -> None:
    counts = labels.sum(axis=0, dtype=np.int64)
    if not ((counts > 0) & (counts < len(labels))).any():
        raise ConfigError(
            "no tag is carried by some of the clips and not by others; add clips or tags"
        )
