"""Backbones: named windows -> one embedding per window. One module each, found by name."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tagger.base.errors import ConfigError
from tagger.base.registry import Entry, Registry


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

    def embeddings(self, output_of: Callable[[str], Any]) -> dict[str, Any]:
        """Named vectors per window that users may ask for.

        Parameters
        ----------
        output_of : callable
            Gives the output of one of this backbone's layers by the layer's name.

        Returns
        -------
        dict of str to Keras tensor [shape=(n_windows, n_dimensions)]
            Unless overridden none, for which the output of `build` stands in as ``embedding``.
        """
        del output_of
        return {}

    def log_mel(self, inputs: dict[str, Any], name: str, *, min_frames: int, min_bands: int) -> Any:
        """Input `name`, checked to be a spectrogram of at least this size.

        Raises
        ------
        ConfigError
            If there is none, or it is smaller.
        """
        if name not in inputs:
            raise ConfigError(
                f"backbone {self.name!r} needs the input {name!r}, but the front end "
                f"gives {', '.join(inputs)}; set model.backbone.params.input"
            )
        shape = tuple(inputs[name].shape[1:])
        if len(shape) != 2 or shape[0] < min_frames or shape[1] < min_bands:
            raise ConfigError(
                f"backbone {self.name!r} needs windows of at least {min_frames} frames x "
                f"{min_bands} bands, not of shape {shape}"
            )
        return inputs[name]

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
        from tagger.network.weights import load_by_layer_name

        return load_by_layer_name(model, path)

    def load_named(self, model: Any, name: str) -> list[str] | None:
        """Load weights that this kind of backbone has by name, e.g. ``imagenet``.

        Parameters
        ----------
        model : keras.Model
            As of `load_weights`.
        name : str
            As of ``model.backbone.weights``.

        Returns
        -------
        list of str or None
            Names of the tensors that were used; None where it has none of that name.

        Raises
        ------
        ModelError
            If they cannot be had.
        """
        del model, name
        return None

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


BACKBONES: Registry[Backbone] = Registry("tagger.network.backbones", "backbone")
