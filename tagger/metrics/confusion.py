"""Which tag is taken for which: errors of two tags on the same clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.metrics.columns import Columns

# Clips whose errors are unpacked together; a multiple of 8.
_CLIPS_AT_ONCE = 1 << 13
# A pair that erred together on fewer clips is chance.
_FEWEST = 3


@dataclass(frozen=True)
class Confusion:
    """Errors of two tags on the same clip.

    Parameters
    ----------
    n_missed, n_wrong : np.ndarray [shape=(n_tags,), dtype=int64]
        Clips on which a tag was missed, and on which it was said wrongly.
    n_both : np.ndarray [shape=(n_tags, n_tags), dtype=int64]
        Clips on which the tag of the row was missed while that of the column was said wrongly.
    n_clips : int
        All clips.
    """

    n_missed: npt.NDArray[np.int64]
    n_wrong: npt.NDArray[np.int64]
    n_both: npt.NDArray[np.int64]
    n_clips: int

    def expected(self) -> npt.NDArray[np.float64]:
        """Compute what `n_both` would be if errors had nothing to do with one another."""
        return np.outer(self.n_missed, self.n_wrong) / self.n_clips

    def lift(self) -> npt.NDArray[np.float64]:
        """Tell how many times as often as by chance [shape=(n_tags, n_tags)]; NaN at chance 0."""
        with np.errstate(invalid="ignore"):
            return self.n_both / self.expected()

    def excess(self) -> npt.NDArray[np.float64]:
        """How many standard deviations (of a Poisson count) more than by chance; 0 at chance 0."""
        expected = self.expected()
        with np.errstate(invalid="ignore"):
            return np.nan_to_num((self.n_both - expected) / np.sqrt(expected))

    def top_pairs(self, n: int) -> list[tuple[int, int]]:
        """Rows and columns of the pairs that err together most beyond chance, first the worst."""
        excess = np.where(self.n_both >= _FEWEST, self.excess(), 0)
        order = np.argsort(-excess, axis=None, kind="stable")[:n]
        pairs = [divmod(int(place), len(excess)) for place in order]
        return [(row, column) for row, column in pairs if excess[row, column] > 0]

    def to_json(self, tags: Sequence[str], *, n_pairs: int = 20) -> dict[str, Any]:
        """Plain values: the matrix, and the top pairs with names."""
        lift = self.lift()
        return {
            "n_missed": self.n_missed.tolist(),
            "n_wrong": self.n_wrong.tolist(),
            "n_both": self.n_both.tolist(),
            "top_pairs": [
                {
                    "missed": tags[row],
                    "said": tags[column],
                    "n_clips": int(self.n_both[row, column]),
                    "times_chance": float(lift[row, column]),
                }
                for row, column in self.top_pairs(n_pairs)
            ],
        }


def find_confusion(columns: Columns, thresholds: npt.NDArray[np.float64]) -> Confusion:
    """Count errors of two tags on the same clip.

    Parameters
    ----------
    columns : Columns
        Labels and scores.
    thresholds : np.ndarray [shape=(n_tags,)]
        Score from which each tag is said; a tag with NaN makes no errors.

    Returns
    -------
    Confusion
        Of a million clips and 188 tags the errors take 47 MB of memory, a bit each.
    """
    n_clips, n_tags = columns.shape
    n_bytes = -(-n_clips // 8)
    missed = np.zeros((n_tags, n_bytes), dtype=np.uint8)
    wrong = np.zeros_like(missed)
    for tag in np.flatnonzero(~np.isnan(thresholds)):
        labels, scores = columns.column(int(tag))
        said = scores >= np.asarray(thresholds[tag], dtype=scores.dtype)
        missed[tag] = np.packbits(labels & ~said)
        wrong[tag] = np.packbits(said & ~labels)
    n_both = np.zeros((n_tags, n_tags))
    totals = np.zeros((2, n_tags))
    for start in range(0, n_bytes, _CLIPS_AT_ONCE // 8):
        part = slice(start, start + _CLIPS_AT_ONCE // 8)
        flags = [
            np.unpackbits(bits[:, part], axis=1).astype(np.float32) for bits in (missed, wrong)
        ]
        # Exact: counts of a part are far below 2**24.
        n_both += flags[0] @ flags[1].T
        totals += [item.sum(axis=1) for item in flags]
    return Confusion(
        totals[0].astype(np.int64), totals[1].astype(np.int64), n_both.astype(np.int64), n_clips
    )
