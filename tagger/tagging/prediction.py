"""What a model says of one clip; the only thing that output formats need to know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tagger.base.suggest import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

# What is said of a clip whose labels all score too low.
UNKNOWN = "unknown"


# Tags that a short description names.
_FEW = 3


@dataclass(frozen=True, eq=False, repr=False)
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
    missing : float
        Share of the audio that is not there or cannot be decoded, as far as the file tells.
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
    missing: float = 0.0

    def __eq__(self, other: object) -> bool:
        """Whether everything is the same, value by value."""
        if not isinstance(other, Prediction):
            return NotImplemented
        return all(
            _same(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)
        )

    def __hash__(self) -> int:
        return hash((self.path, self.tags, self.scores.tobytes()))

    def __getitem__(self, tag: str) -> float:
        """Score of a tag.

        Raises
        ------
        KeyError
            If the model does not know it; the message names one that it does know.
        """
        try:
            return float(self.scores[self.tags.index(tag)])
        except ValueError:
            raise KeyError(f"no tag {tag!r}{did_you_mean(tag, self.tags)}") from None

    def __repr__(self) -> str:
        best = ", ".join(f"{tag} {score:.2f}" for tag, score in self._ranked(_FEW))
        more = ", ..." if len(self.tags) > _FEW else ""
        name = f"{self.path!r}, " if self.path else ""
        return f"Prediction({name}{self.seconds:.1f} s, {best}{more})"

    def _repr_html_(self) -> str:
        """Taggram and player, for notebooks."""
        from tagger.tagging.notebook import prediction_html

        return prediction_html(self)

    def plot(self) -> Any:
        """Draw the taggram.

        Returns
        -------
        matplotlib.figure.Figure
            As ``predict-tags --taggram`` writes it; a notebook shows it.
        """
        from tagger.tagging.taggram import taggram_figure
        from tagger.tagging.taggram_view import taggram_view

        return taggram_figure(taggram_view(self))

    def to_dataframe(self) -> "pd.DataFrame":
        """Scores over time: a row for each window by its start in seconds, a column for each tag.

        Its mean need not be `scores`: a model may make these of more than the windows' scores.
        """
        import pandas as pd

        index = pd.Index(self.times, name="seconds")
        return pd.DataFrame(self.taggram, index=index, columns=list(self.tags))

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

    def top(self, k: int | None = None, *, threshold: float = 0.0) -> list[dict[str, Any]]:
        """Tags with the highest scores.

        Parameters
        ----------
        k : int, optional
            At most so many; default all.
        threshold : float
            Only tags that score at least this.

        Returns
        -------
        list of dict
            ``{"label": tag, "score": score}``, highest first, as audio classifiers elsewhere give
            them.
        """
        ranked = self._ranked(k)
        return [{"label": tag, "score": score} for tag, score in ranked if score >= threshold]

    def _ranked(self, k: int | None) -> list[tuple[str, float]]:
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [(self.tags[tag], float(self.scores[tag])) for tag in order]


def _same(first: Any, second: Any) -> bool:
    """Whether two fields are the same; NaN is NaN."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return bool(np.array_equal(first, second, equal_nan=True))
    return bool(first is second or (type(first) is type(second) and first == second))
