"""What a model says of one clip; the only thing that output formats need to know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

# What is said of a clip whose labels all score too low.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Prediction:
    """What a model says of one clip.

    Parameters
    ----------
    path : str
        The file; empty for a waveform.
    tags : tuple of str
        Names, in the model's order.
    scores : np.ndarray [shape=(n_tags,), dtype=float32]
        Of the whole clip, between 0 and 1.
    taggram : np.ndarray [shape=(n_windows, n_tags), dtype=float32]
        Scores over time.
    times : np.ndarray [shape=(n_windows,), dtype=float64]
        Start of each window in seconds from the start of the file.
    window_seconds : float
        Length of a window.
    seconds : float
        Length of the audio that was read.
    padded : bool
        The audio was shorter than a window and was padded.
    thresholds : np.ndarray [shape=(n_tags,), dtype=float32], optional
        Score from which the model says that a tag applies; None where it has none of its own.
    decides_one : bool
        The tags exclude one another: see `label`.
    """

    path: str
    tags: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    taggram: npt.NDArray[np.float32]
    times: npt.NDArray[np.float64]
    window_seconds: float
    seconds: float
    padded: bool = False
    thresholds: npt.NDArray[np.float32] | None = None
    decides_one: bool = False

    @property
    def label(self) -> tuple[str, float]:
        """The label of the highest score, and that score; `UNKNOWN` where it is too low."""
        best = int(np.argmax(self.scores))
        score = float(self.scores[best])
        # NaN is no threshold, and nothing is below it.
        too_low = self.thresholds is not None and self.scores[best] < self.thresholds[best]
        return (UNKNOWN if too_low else self.tags[best]), score

    def merged(self, synonyms: Mapping[str, Sequence[str]]) -> "Prediction":
        """Put tags that mean the same together.

        Parameters
        ----------
        synonyms : mapping of str to sequence of str
            Name -> the tags that it stands for, as `preprocess.clips.vocabulary.read_synonyms`
            gives them.

        Returns
        -------
        Prediction
            One tag where there were several. It scores what the highest of these does, and has the
            highest of their thresholds: whoever says either is asked for no less.
        """
        name_of = {tag: name for name, tags in synonyms.items() for tag in (name, *tags)}
        columns: dict[str, list[int]] = {}
        for column, tag in enumerate(self.tags):
            columns.setdefault(name_of.get(tag, tag), []).append(column)
        groups = list(columns.values())

        def highest(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            return np.stack([values[..., group].max(axis=-1) for group in groups], axis=-1)

        return replace(
            self,
            tags=tuple(columns),
            scores=highest(self.scores),
            taggram=highest(self.taggram),
            # Of tags one of which has no threshold of its own, the others' counts.
            thresholds=None
            if self.thresholds is None
            else np.stack([np.fmax.reduce(self.thresholds[group]) for group in groups]),
        )

    def top(self, k: int | None = None, *, threshold: float = 0.0) -> list[tuple[str, float]]:
        """Tags with the highest scores.

        Parameters
        ----------
        k : int, optional
            At most so many; default all.
        threshold : float
            Only tags that score at least this.

        Returns
        -------
        list of tuple of (str, float)
            Tag and score, highest first.
        """
        order = np.argsort(-self.scores, kind="stable")[:k]
        ranked = [(self.tags[tag], float(self.scores[tag])) for tag in order]
        return [(tag, score) for tag, score in ranked if score >= threshold]
