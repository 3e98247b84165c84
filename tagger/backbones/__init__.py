"""Backbones: named windows -> one embedding per window. One module each, found by name."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

from tagger.registry import Entry, Registry


class Backbone(Entry):
    """Contract of a backbone.

    A subclass sits in a module of its own in this package, bound to the name ``ENTRY``. It imports
    Keras inside its methods only, as configs are checked without it.
    """

    @abstractmethod
    def build(self, inputs: dict[str, Any]) -> Any:
        """Add the layers of this backbone to a graph.

        Parameters
        ----------
        inputs : dict of str to Keras tensor [shape=(n_windows, *input_shapes[name])]
            One window per row, under the front end's names.

        Returns
        -------
        Keras tensor [shape=(n_windows, n_dimensions)]
            Embedding of each window.

        Raises
        ------
        ConfigError
            If an input that it needs is missing or of a shape it cannot take.
        """

    def load_weights(self, model: Any, path: Path) -> list[str]:
        """Load published weights into the Keras `model` that `build` made.

        Parameters
        ----------
        model : keras.Model
            From the inputs to the embedding.
        path : Path
            Weight file.

        Returns
        -------
        list of str
            Names of the tensors of the file that were used.

        Raises
        ------
        ModelError
            Naming the tensors that are missing or do not fit.
        """
        from tagger.weights import load_by_layer_name

        return load_by_layer_name(model, path)

    def smoke_test(self, model: Any) -> "SmokeTest | None":
        """Compare `model` with published figures; None where none are published."""
        del model
        return None


class SmokeTest:
    """Outcome of a backbone's published smoke test.

    Parameters
    ----------
    figures : dict of str to tuple of (float, float)
        Measured and expected value of each figure.
    tolerance : float
        Relative difference allowed.
    """

    def __init__(self, figures: dict[str, tuple[float, float]], tolerance: float) -> None:
        self.figures = figures
        self.tolerance = tolerance

    @property
    def passed(self) -> bool:
        """Whether every figure is within the tolerance."""
        return all(
            abs(measured - expected) <= self.tolerance * abs(expected)
            for measured, expected in self.figures.values()
        )

    def __str__(self) -> str:
        parts = [
            f"{name} {measured:.6f} (expected {expected:.6f})"
            for name, (measured, expected) in self.figures.items()
        ]
        return f"{'pass' if self.passed else 'FAIL'}: " + ", ".join(parts)


BACKBONES: Registry[Backbone] = Registry("tagger.backbones", "backbone")
