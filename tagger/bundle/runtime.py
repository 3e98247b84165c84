"""Light inference: an exported LiteRT model, without TensorFlow."""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ModelError
from tagger.base.files import without_stderr_lines
from tagger.scoring.scorer import Outputs
from tagger.untrusted.litert import check_structure

SIGNATURE = "serving_default"

# What the library raises on a file that it cannot run, by what is wrong with it.
_UNUSABLE = (ValueError, RuntimeError, KeyError, TypeError, IndexError, OverflowError)

# The library says once in a process which delegate it has made.
_CHATTER = b"INFO: "
_quiet = threading.Lock()
_has_spoken = False


@contextlib.contextmanager
def _first_time_quiet() -> Iterator[None]:
    """Drop what the library says at its first interpreter; nothing is redirected after that."""
    global _has_spoken
    if _has_spoken:
        yield
        return
    with _quiet, without_stderr_lines(_CHATTER):
        yield
    _has_spoken = True


def model_tensors(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Names of the tensors behind the inputs and outputs of a model's signature.

    Parameters
    ----------
    path : Path
        ``.tflite`` file.
    """
    from ai_edge_litert.interpreter import Interpreter

    with _first_time_quiet():
        interpreter: Any = Interpreter(model_path=os.fspath(path))
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner(SIGNATURE)
    sides = (runner.get_input_details(), runner.get_output_details())
    inputs, outputs = ({name: d["name"] for name, d in details.items()} for details in sides)
    return inputs, outputs


class Runtime:
    """One interpreter of an exported model; not to be shared between threads.

    Parameters
    ----------
    path : Path
        ``.tflite`` file with one signature: named windows -> named outputs.
    n_threads : int
        Threads that one call computes on.
    sizes : mapping of str to int, optional
        Length of each output that it must have.

    Raises
    ------
    ModelError
        If the file is no such model.
    """

    def __init__(
        self, path: Path, *, n_threads: int = 1, sizes: Mapping[str, int] | None = None
    ) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._path, self._sizes = path, sizes
        try:
            # A damaged file may end the process in there.
            check_structure(Path(path))
            with _first_time_quiet():
                self._interpreter: Any = Interpreter(
                    model_path=os.fspath(path), num_threads=n_threads
                )
                self._interpreter.allocate_tensors()
                runner = self._interpreter.get_signature_runner(SIGNATURE)
                inputs, outputs = runner.get_input_details(), runner.get_output_details()
        except _UNUSABLE as error:
            raise self._unusable(error) from None
        self._inputs = {name: detail["index"] for name, detail in inputs.items()}
        self._outputs = {name: detail["index"] for name, detail in outputs.items()}
        self._n_windows = 0

    def __call__(self, windows: Mapping[str, npt.NDArray[np.floating]]) -> Outputs:
        """Compute the outputs of windows.

        Parameters
        ----------
        windows : dict of str to np.ndarray [shape=(n_windows, *input_shapes[name])]
            At least one window.

        Returns
        -------
        dict of str to np.ndarray [shape=(n_windows, n_dimensions), dtype=float32]
            Scores and embeddings.

        Raises
        ------
        ModelError
            If the file is no model of such windows and outputs after all.
        """
        try:
            outputs = self._computed(windows)
        except _UNUSABLE as error:
            raise self._unusable(error) from None
        n_windows = len(next(iter(windows.values())))
        for name, size in (self._sizes or {}).items():
            if name not in outputs or outputs[name].shape != (n_windows, size):
                raise self._unusable(ValueError(f"its output {name!r} is not of length {size}"))
        return outputs

    def _unusable(self, error: Exception) -> ModelError:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        return ModelError(
            f"{self._path}: no LiteRT model that can be run ({reason}); export it again"
        )

    def _computed(self, windows: Mapping[str, npt.NDArray[np.floating]]) -> Outputs:
        n_windows = len(next(iter(windows.values())))
        if n_windows != self._n_windows:
            for name, index in self._inputs.items():
                self._interpreter.resize_tensor_input(index, windows[name].shape)
            self._interpreter.allocate_tensors()
            self._n_windows = n_windows
        for name, index in self._inputs.items():
            array = np.ascontiguousarray(windows[name], dtype=np.float32)
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}
