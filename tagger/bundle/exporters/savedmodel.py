"""TensorFlow's SavedModel: for TensorFlow Serving, and for conversions to yet other formats."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagger.bundle.exporters import Exporter, concrete_function

if TYPE_CHECKING:
    from tagger.network.model import TaggerModel
    from tagger.scoring.scorer import Outputs


class SavedModelExporter(Exporter):
    """Folder with a graph and its weights; the signature is named ``serving_default``."""

    def file_name(self, quantize: str) -> str:  # noqa: D102 (the contract documents it)
        del quantize
        return "saved_model"

    def write(self, model: "TaggerModel", path: Path, quantize: str) -> None:  # noqa: D102
        from tagger.network.keras import tf

        del quantize
        # A plain module with variables and one function: no Keras objects, which could carry code.
        module = tf.Module()
        module.weights = list(model.output_model.variables)
        module.serve = concrete_function(model)
        shutil.rmtree(path, ignore_errors=True)
        tf.saved_model.save(module, str(path), signatures=module.serve)

    def run(self, path: Path, windows: dict[str, Any]) -> "Outputs":  # noqa: D102
        from tagger.network.keras import tf

        # What has just been written, to be compared with the network.
        serve = tf.saved_model.load(str(path)).signatures["serving_default"]  # noqa: TID251
        tensors = {name: tf.constant(array) for name, array in windows.items()}
        return {name: value.numpy() for name, value in serve(**tensors).items()}


ENTRY = SavedModelExporter
