"""A LiteRT model computed in bfloat16 by OpenVINO, on processors that have such numbers.

It has the range of float32 and a third of its digits. VGGish is twice as fast with it, musicnn a
third faster: docs/models.md has the table.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ModelError
from tagger.bundle.runtime import model_tensors
from tagger.scoring.scorer import Outputs
from tagger.untrusted.litert import check_structure

_CAPABILITY = "BF16"


class OpenVinoRuntime:
    """One compiled model, in place of `tagger.bundle.runtime.Runtime` and made as that is.

    Raises
    ------
    ModelError
        If the file is no such model, or this processor has no bfloat16.
    """

    def __init__(
        self, path: Path, *, n_threads: int = 1, sizes: Mapping[str, int] | None = None
    ) -> None:
        import openvino

        self._path, self._sizes = path, sizes
        core = openvino.Core()
        if _CAPABILITY not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ModelError(
                f"{path}: this processor cannot compute in bfloat16, and would be no faster; use "
                "--quantize none"
            )
        options = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": n_threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Several of them share a processor: pinned, all would wait for its first core.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            check_structure(Path(path))
            inputs, outputs = model_tensors(path)
            model = core.read_model(os.fspath(path))
            self._compiled: Any = core.compile_model(model, "CPU", options)
            # Names of the signature -> ports of the compiled model.
            self._inputs = {name: _port(self._compiled.inputs, at) for name, at in inputs.items()}
            self._outputs = {
                name: _port(self._compiled.outputs, at) for name, at in outputs.items()
            }
        except (ValueError, RuntimeError, KeyError) as error:
            raise self._unusable(error) from None

    def __call__(self, windows: Mapping[str, npt.NDArray[np.floating]]) -> Outputs:
        """Compute the outputs of windows; see `tagger.bundle.runtime.Runtime`."""
        given = {
            port: np.ascontiguousarray(windows[name], dtype=np.float32)
            for name, port in self._inputs.items()
        }
        try:
            found = self._compiled(given)
        except (ValueError, RuntimeError) as error:
            raise self._unusable(error) from None
        outputs = {name: np.array(found[port]) for name, port in self._outputs.items()}
        n_windows = len(next(iter(windows.values())))
        for name, size in (self._sizes or {}).items():
            if name not in outputs or outputs[name].shape != (n_windows, size):
                raise self._unusable(ValueError(f"its output {name!r} is not of length {size}"))
        return outputs

    def _unusable(self, error: Exception) -> ModelError:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        return ModelError(f"{self._path}: no model that OpenVINO can run ({reason})")


def _port(ports: Any, tensor: str) -> Any:
    """Input or output of a compiled model by the name of its tensor."""
    for port in ports:
        if tensor in port.get_names():
            return port
    raise KeyError(tensor)
