"""Heads: embedding -> logits. One module each, found by name."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from tagger.base.registry import Entry, Registry


class Head(Entry):
    """Contract of a head.

    A subclass sits in a module of its own in this package, bound to the name ``ENTRY``, and imports
    Keras inside its methods only.
    """

    @abstractmethod
    def build(self, embedding: Any, n_outputs: int) -> Any:
        """Add the layers of this head to a graph.

        Parameters
        ----------
        embedding : Keras tensor [shape=(n_windows, n_dimensions)]
            What the backbone gives.
        n_outputs : int
            Number of tags or classes.

        Returns
        -------
        Keras tensor [shape=(n_windows, n_outputs)]
            Logits; the task turns them into scores.
        """

    def embeddings(self, output_of: Callable[[str], Any]) -> dict[str, Any]:
        """Named vectors per window that users may ask for; none unless overridden.

        Parameters
        ----------
        output_of : callable
            Gives the output of one of this head's layers by the layer's name.

        Returns
        -------
        dict of str to Keras tensor [shape=(n_windows, n_dimensions)]
        """
        del output_of
        return {}


HEADS: Registry[Head] = Registry("tagger.network.heads", "head")
