"""Exporters: a Keras network -> a file of another runtime. One module each, found by name."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tagger.base.registry import Registry

if TYPE_CHECKING:
    from tagger.network.model import TaggerModel
    from tagger.scoring.scorer import Outputs

# Largest difference from Keras that an export may have, by how its weights are quantized: float32
# differs by rounding, float16 keeps 11 bits of each weight, and dynamic int8 computes in 8 bits.
LIMITS = {"none": 1e-4, "float16": 5e-3, "dynamic": 0.02}


class Exporter(ABC):
    """Contract of an export format.

    A subclass sits in a module of its own in this package, bound to the name ``ENTRY``, and imports
    what it needs inside its methods only.
    """

    # What it can do to the weights, of the keys of LIMITS.
    quantizations: ClassVar[tuple[str, ...]] = ("none",)

    @abstractmethod
    def file_name(self, quantize: str) -> str:
        """Name of the file or folder within a bundle."""

    @abstractmethod
    def write(self, model: "TaggerModel", path: Path, quantize: str) -> None:
        """Write all outputs of `model` (scores and embeddings) to `path`."""

    @abstractmethod
    def run(self, path: Path, windows: dict[str, Any]) -> "Outputs":
        """Ask the exported model, in the runtime that it is for."""


def concrete_function(model: "TaggerModel") -> Any:
    """TensorFlow function from named windows to named outputs, for any number of windows."""
    from tagger.network.keras import tf

    signature = {
        name: tf.TensorSpec([None, *shape[1:]], tf.float32, name=name)
        for name, shape in model.output_model.input_shape.items()
    }

    def serve(windows: dict[str, Any]) -> dict[str, Any]:
        outputs = model.output_model(windows, training=False)
        return {name: tf.cast(value, tf.float32, name=name) for name, value in outputs.items()}

    return tf.function(serve, input_signature=[signature])


EXPORTERS: Registry[Exporter] = Registry("tagger.bundle.exporters", "export format")
