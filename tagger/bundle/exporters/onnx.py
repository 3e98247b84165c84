"""ONNX: for ONNX Runtime, browsers and other frameworks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagger.base.errors import ModelError
from tagger.base.files import silent_stderr, write_bytes
from tagger.bundle.exporters import Exporter, concrete_function

if TYPE_CHECKING:
    from tagger.network.model import TaggerModel
    from tagger.scoring.scorer import Outputs

_OPSET = 17
# tf2onnx takes over 14 GB of memory for VGGish with its fully connected layers (72 million).
_MAX_PARAMETERS = 50_000_000


class OnnxExporter(Exporter):
    """One ``.onnx`` file with named inputs and outputs, float32."""

    def file_name(self, quantize: str) -> str:  # noqa: D102 (the contract documents it)
        del quantize
        return "model.onnx"

    def write(self, model: "TaggerModel", path: Path, quantize: str) -> None:  # noqa: D102
        del quantize
        n_parameters = model.output_model.count_params()
        if n_parameters > _MAX_PARAMETERS:
            raise ModelError(
                f"{path.name}: the ONNX converter cannot take a network of {n_parameters:,d} "
                f"parameters (at most {_MAX_PARAMETERS:,d}); use --format litert or savedmodel"
            )
        import tf2onnx

        function = concrete_function(model)
        try:
            with silent_stderr():
                proto, _ = tf2onnx.convert.from_function(
                    function, input_signature=function.input_signature, opset=_OPSET
                )
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(
                f"{path.name}: ONNX cannot express this network ({lines[-1][:200]}); "
                "use another --format"
            ) from None
        write_bytes(path, proto.SerializeToString())

    def run(self, path: Path, windows: dict[str, Any]) -> "Outputs":  # noqa: D102
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        wanted = {item.name: item.name.split(":")[0] for item in session.get_inputs()}
        unknown = set(wanted.values()) - set(windows)
        if unknown:
            # Of some networks tf2onnx makes an input of what is a constant.
            raise ModelError(
                f"{path.name}: ONNX cannot express this network (it asks for {min(unknown)}); use "
                "another --format"
            )
        inputs = {name: windows[source] for name, source in wanted.items()}
        return dict(zip(names, session.run(names, inputs), strict=True))


ENTRY = OnnxExporter
