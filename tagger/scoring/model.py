"""What can tag: a front end, what computes outputs of its windows, and what is made of these.

A network that is trained in epochs is one kind of model, a classifier that is fitted is another:
prediction and evaluation ask for no more than this.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from preprocess.signal.features import FrontEnd
from tagger.metrics.calibration import Calibration
from tagger.scoring.clip_heads import ClipHead
from tagger.scoring.scorer import Floats, Scorer


class Model(Protocol):
    """Contract of a model."""

    @property
    def name(self) -> str:
        """What it is called, for people."""

    @property
    def version(self) -> str:
        """Short digest of all that decides its numbers."""

    @property
    def runs_on(self) -> str:
        """What computes: another one may round otherwise."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of its scores, in order; none for a model of embeddings alone."""

    @property
    def front_end(self) -> FrontEnd:
        """What computes its windows."""

    @property
    def decides_one(self) -> bool:
        """Whether its tags exclude one another: a prediction is one of them."""

    @property
    def output_sizes(self) -> Mapping[str, int]:
        """Length of each output by name: ``scores``, where it has tags, and its embeddings."""

    @property
    def clip_head(self) -> ClipHead:
        """What makes clip scores of the outputs of a clip's windows."""

    @property
    def calibration(self) -> Calibration | None:
        """What clip scores go through; None where nothing was fitted."""

    @property
    def thresholds(self) -> Floats | None:
        """Score from which each tag applies [shape=(n_tags,)]: NaN where none could be fitted.

        None where no tag has one.
        """

    def make_scorer(self, names: Sequence[str], *, n_threads: int = 1) -> Scorer:
        """Make what computes some outputs.

        Parameters
        ----------
        names : sequence of str
            Which outputs are wanted.
        n_threads : int
            Threads that one call computes on.

        Raises
        ------
        ModelError
            If it cannot be made.
        """


def thresholds_as_array(fitted: Sequence[float | None] | None) -> Floats | None:
    """Thresholds as a `Model` has them: NaN for a tag without one, None without any."""
    if fitted is None or all(value is None for value in fitted):
        return None
    return np.array([np.nan if value is None else value for value in fitted], dtype=np.float32)
