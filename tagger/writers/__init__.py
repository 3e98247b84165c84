"""Writers: predictions -> text. One module and class per output format, found by name."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TextIO

from tagger.registry import Registry

if TYPE_CHECKING:
    from tagger.predict import Prediction


class Writer(ABC):
    """Contract of an output format.

    A subclass sits in a module of its own in this package, bound to the name ``ENTRY``.

    Parameters
    ----------
    stream : TextIO
        Where the text goes.
    top_k : int
        At most so many tags of each file.
    threshold : float
        Only tags that score at least this.
    """

    def __init__(self, stream: TextIO, *, top_k: int, threshold: float) -> None:
        self.stream = stream
        self.top_k = top_k
        self.threshold = threshold

    def top(self, prediction: "Prediction") -> list[tuple[str, float]]:
        """Tags of `prediction` that are to be shown."""
        return prediction.top(self.top_k, threshold=self.threshold)

    # Most formats have nothing to say before the first or after the last file.
    def begin(self) -> None:  # noqa: B027
        """Write what comes before the first file."""

    @abstractmethod
    def write(self, prediction: "Prediction") -> None:
        """Write one file's tags."""

    def end(self) -> None:  # noqa: B027
        """Write what comes after the last file."""


WRITERS: Registry[Writer] = Registry("tagger.writers", "output format")
