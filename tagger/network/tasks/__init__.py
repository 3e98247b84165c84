"""Tasks: what the outputs mean, what is minimised, what is reported. One module each."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from tagger.base.registry import Entry, Registry

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Task(Entry):
    """Contract of a task.

    A subclass sits in a module of its own in this package, bound to the name ``ENTRY``, and imports
    Keras inside its methods only.
    """

    # Validation metrics that may choose the best epoch, with whether larger is better.
    monitors: ClassVar[dict[str, bool]]

    @abstractmethod
    def scores(self, logits: Any) -> Any:
        """Turn logits [shape=(..., n_outputs)] into float32 scores of the same shape."""

    @abstractmethod
    def loss(self, labels: Any, scores: Any) -> Any:
        """Mean loss of clip scores.

        Parameters
        ----------
        labels : tensor [shape=(n_clips, n_outputs), dtype=float32]
            1 where a clip carries a tag.
        scores : tensor [shape=(n_clips, n_outputs), dtype=float32]
            What the model says.
        """

    @abstractmethod
    def metrics(
        self, labels: "npt.NDArray[np.uint8]", scores: "npt.NDArray[np.float32]"
    ) -> dict[str, float]:
        """Figures of merit of clip scores on a whole part of the data: the keys of `monitors`."""

    def thresholds(
        self, labels: "npt.NDArray[np.uint8]", scores: "npt.NDArray[np.float32]"
    ) -> list[float | None] | None:
        """Scores from which outputs apply, fitted on validation clips.

        Returns
        -------
        list of float or None
            None within the list for an output that cannot be fitted; None altogether, unless
            overridden, for a task whose outputs are no decisions of their own.
        """
        del labels, scores
        return None

    def warnings(self) -> list[str]:
        """Say what a user should know about the chosen parameters, one line each."""
        return []


TASKS: Registry[Task] = Registry("tagger.network.tasks", "task")
