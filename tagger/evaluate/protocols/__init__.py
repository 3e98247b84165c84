"""Protocols: which clips and tags a model is measured on, so that figures can be compared."""

from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import Parts
from preprocess.clips.vocabulary import Vocabulary
from tagger.base.registry import Entry, Registry


@dataclass(frozen=True)
class Published:
    """A published result.

    Parameters
    ----------
    model : str
        What was measured.
    roc_auc_macro, pr_auc_macro : float
        Means over tags.
    """

    model: str
    roc_auc_macro: float
    pr_auc_macro: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Selection:
    """Clips and tags to measure on.

    Parameters
    ----------
    parts : np.ndarray [shape=(n_clips,), dtype=str]
        Part of each clip; empty for a clip that is left out.
    vocabulary : Vocabulary
        The tags, in their order.
    """

    parts: Parts
    vocabulary: Vocabulary


class Protocol(Entry):
    """Contract of a protocol.

    A subclass sits in a module of its own in this package, bound to the name ``ENTRY``.
    """

    summary: ClassVar[str]
    published: ClassVar[tuple[Published, ...]] = ()
    # Clips of the test part and tags; None where they depend on the data.
    test_shape: ClassVar[tuple[int, int] | None] = None

    @abstractmethod
    def select(self, index: ClipIndex, own: Selection) -> Selection:
        """Choose clips and tags.

        Parameters
        ----------
        index : ClipIndex
            The data.
        own : Selection
            Split and tags that the model itself was made with.

        Raises
        ------
        ConfigError
            If the data are not those of this protocol.
        """


PROTOCOLS: Registry[Protocol] = Registry("tagger.evaluate.protocols", "protocol")
