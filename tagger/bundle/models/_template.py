"""LiteRT files of known networks without weights, and weights put into them, without TensorFlow.

A template is the file that our own export makes of a network, with zeros for what depends on
weights, and for each stretch of zeros what belongs there: a kernel in another order of its axes, a
bias, or what batch normalisation comes to. The converter folds that into constants; so does this.
``_make_templates.py`` makes them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ModelError
from tagger.base.files import write_bytes
from tagger.untrusted.npz import read_arrays

Weights = Mapping[str, npt.NDArray[np.floating]]
Floats = npt.NDArray[np.float32]

FOLDER = Path(__file__).parent / "networks"
_MODEL, _RECIPE = "model", "recipe"
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Part:
    """A stretch of a LiteRT file that depends on weights.

    Parameters
    ----------
    at : int
        Its first byte.
    kind : str
        ``"kernel"`` or ``"bias"`` of a layer; ``"scale"``, ``"shift"``, ``"scale up"`` or ``"scale
        down"`` (the scale where it is above or below zero) of a batch normalisation.
    layer : str
        Name of the layer.
    before, after : str
        Batch normalisations whose effect is within a kernel or bias, or empty.
    axes : tuple of int
        Order of a kernel's axes in the file.
    """

    at: int
    kind: str
    layer: str
    before: str = ""
    after: str = ""
    axes: tuple[int, ...] = ()

    def values(self, weights: Weights, *, epsilon: float) -> Floats:
        """Compute what belongs there.

        Parameters
        ----------
        weights : mapping of str to np.ndarray
            By layer and kind, e.g. ``"conv1/kernel"``.
        epsilon : float
            Of the batch normalisations.

        Returns
        -------
        np.ndarray [dtype=float32]
        """
        if self.kind == "kernel":
            kernel = weights[f"{self.layer}/kernel"]
            if self.before:
                kernel = kernel * scale_of(weights, self.before, epsilon)[:, np.newaxis]
            if self.after:
                kernel = kernel * scale_of(weights, self.after, epsilon)
            return kernel.transpose(self.axes).astype(np.float32)
        if self.kind == "bias":
            bias = weights[f"{self.layer}/bias"]
            if self.before:
                shift = shift_of(weights, self.before, epsilon)
                bias = bias + shift @ weights[f"{self.layer}/kernel"]
            if self.after:
                scale = scale_of(weights, self.after, epsilon)
                bias = bias * scale + shift_of(weights, self.after, epsilon)
            return bias.astype(np.float32)
        if self.kind == "shift":
            return shift_of(weights, self.layer, epsilon).astype(np.float32)
        scale = scale_of(weights, self.layer, epsilon).astype(np.float32)
        if self.kind == "scale up":
            return np.maximum(scale, 0)
        return np.minimum(scale, 0) if self.kind == "scale down" else scale


def scale_of(weights: Weights, layer: str, epsilon: float) -> npt.NDArray[np.floating]:
    """Factor that a batch normalisation comes to (Ioffe & Szegedy 2015)."""
    deviation = np.sqrt(weights[f"{layer}/moving_variance"] + np.float32(epsilon))
    return weights[f"{layer}/gamma"] / deviation


def shift_of(weights: Weights, layer: str, epsilon: float) -> npt.NDArray[np.floating]:
    """Summand that a batch normalisation comes to."""
    mean = weights[f"{layer}/moving_mean"] * scale_of(weights, layer, epsilon)
    return weights[f"{layer}/beta"] - mean


@dataclass(frozen=True)
class Template:
    """A LiteRT file without weights.

    Parameters
    ----------
    content : bytes
        The file.
    parts : tuple of Part
        What depends on weights.
    shapes : dict of str to tuple of int
        Of the weights of our network, by name.
    outputs : dict of str to int
        Length of each output.
    epsilon : float
        Of its batch normalisations.
    answers : dict of str to np.ndarray [shape=(n_windows, n_tags), dtype=float32]
        Scores that Keras gives with the weights of each published model, by the model's name, of
        the windows of `tagger.bundle.parity.windows_of_demo`.
    """

    content: bytes
    parts: tuple[Part, ...]
    shapes: dict[str, tuple[int, ...]]
    outputs: dict[str, int]
    epsilon: float
    answers: dict[str, Floats]

    def filled(self, weights: Weights) -> bytes:
        """LiteRT file with weights."""
        content = bytearray(self.content)
        for part in self.parts:
            values = part.values(weights, epsilon=self.epsilon).tobytes()
            content[part.at : part.at + len(values)] = values
        return bytes(content)

    def save(self, path: Path) -> None:
        """Write it as one compressed archive."""
        import io

        recipe = {
            "parts": [asdict(part) for part in self.parts],
            "shapes": self.shapes,
            "outputs": self.outputs,
            "epsilon": self.epsilon,
        }
        file = io.BytesIO()
        arrays: dict[str, Any] = {
            _MODEL: np.frombuffer(self.content, dtype=np.uint8),
            _RECIPE: np.array(json.dumps(recipe)),
            **self.answers,
        }
        np.savez_compressed(file, **arrays)
        write_bytes(path, file.getvalue())


def read_template(name: str) -> Template:
    """Read the template of a network, e.g. ``"musicnn"``.

    Raises
    ------
    ModelError
        If the installation lacks it.
    """
    path = FOLDER / f"{name}.npz"
    try:
        arrays = read_arrays(path, most_bytes=_MOST_BYTES)
        recipe = json.loads(str(arrays.pop(_RECIPE)))
        return Template(
            content=arrays.pop(_MODEL).tobytes(),
            parts=tuple(Part(**{**part, "axes": tuple(part["axes"])}) for part in recipe["parts"]),
            shapes={weight: tuple(shape) for weight, shape in recipe["shapes"].items()},
            outputs=recipe["outputs"],
            epsilon=recipe["epsilon"],
            answers=arrays,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path}: missing or damaged ({error}); install the package again"
        ) from None
