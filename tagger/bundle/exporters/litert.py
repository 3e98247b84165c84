"""LiteRT (formerly TensorFlow Lite): what prediction runs on."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tagger.base.errors import ModelError
from tagger.base.files import silent_stderr, write_bytes
from tagger.bundle.exporters import Exporter, concrete_function

if TYPE_CHECKING:
    from tagger.network.model import TaggerModel
    from tagger.scoring.scorer import Outputs


class LitertExporter(Exporter):
    """``.tflite`` with one signature; weights in float32, float16 or int8."""

    quantizations: ClassVar[tuple[str, ...]] = ("none", "dynamic", "float16")

    def file_name(self, quantize: str) -> str:  # noqa: D102 (the contract documents it)
        return "model.tflite" if quantize == "none" else f"model_{quantize}.tflite"

    def write(self, model: "TaggerModel", path: Path, quantize: str) -> None:  # noqa: D102
        from tagger.network.keras import tf

        function = concrete_function(model).get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model.output_model)
        if quantize != "none":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            # The converter tells its progress and that it will move house, at length.
            with silent_stderr():
                content = converter.convert()
        except Exception as error:  # The converter has no class of errors of its own.
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(
                f"{path.name}: LiteRT cannot express this network ({lines[-1][:200]}); "
                "use layers that it supports, or another --format"
            ) from None
        write_bytes(path, content)

    def run(self, path: Path, windows: dict[str, Any]) -> "Outputs":  # noqa: D102
        from tagger.bundle.runtime import Runtime

        return Runtime(path)(windows)


ENTRY = LitertExporter
