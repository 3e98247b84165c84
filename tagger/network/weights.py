"""Published weights: read them, and put them into a network by name and shape."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ModelError
from tagger.untrusted.npz import read_arrays

CHECKPOINT_SUFFIXES = (".index", ".meta")
_MOST_BYTES = 8 << 30
# Kinds of variables, as TensorFlow 1 and Keras call them.
_KERNEL_NAMES = frozenset({"weights", "kernel"})
_BIAS_NAMES = frozenset({"biases", "bias"})
# Optimizer slots and counters that checkpoints and whole Keras models carry beside the network.
_NOT_WEIGHTS = (
    "Adam",
    "global_step",
    "Momentum",
    "ExponentialMovingAverage",
    "save_counter",
    "optimizer_weights/",
)


def read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read every tensor of a TensorFlow checkpoint, or of a .h5 or .npz weight file.

    Parameters
    ----------
    path : Path
        A checkpoint (its prefix or single file), an HDF5 file, or an archive of arrays.

    Returns
    -------
    dict of str to np.ndarray
        Tensors by their full name, e.g. ``vggish/conv1/weights``.

    Raises
    ------
    ModelError
        If the file cannot be read as either.
    """
    if path.suffix.lower() in (".h5", ".hdf5", ".keras"):
        return _read_h5(path)
    if path.suffix.lower() == ".npz":
        try:
            return read_arrays(path, most_bytes=_MOST_BYTES)
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: not a weight file ({error}); copy it again") from None
    from tagger.network.keras import tf

    try:
        reader = tf.train.load_checkpoint(str(path))
        names = reader.get_variable_to_shape_map()
        return {name: reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        # An IndexError: the data file is shorter than its index says.
        reason = str(error).splitlines()[0][:200]
        raise ModelError(
            f"{path}: not a TensorFlow checkpoint ({reason}); give a .ckpt or a Keras .h5 file"
        ) from None


def _read_h5(path: Path) -> dict[str, npt.NDArray[Any]]:
    import h5py

    tensors: dict[str, npt.NDArray[Any]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            tensors[name.removesuffix(":0")] = item[()]

    try:
        with h5py.File(path, "r") as h5:
            h5.visititems(visit)
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        # All but the first two come from damaged types and shapes.
        raise ModelError(f"{path}: not an HDF5 weight file ({error}); copy it again") from None
    return tensors


def _split_name(name: str) -> tuple[str, str]:
    """Layer and kind of a tensor: ``vggish/conv3/conv3_1/weights`` -> ``conv3_1``, ``kernel``."""
    parts = name.split("/")
    kind = parts[-1].removesuffix(":0")
    if kind in _KERNEL_NAMES:
        kind = "kernel"
    elif kind in _BIAS_NAMES:
        kind = "bias"
    return (parts[-2] if len(parts) > 1 else ""), kind


def match_tensors(
    tensors: Mapping[str, npt.NDArray[Any]], wanted: Mapping[str, tuple[int, ...]], *, source: str
) -> dict[str, str]:
    """Find the tensor for each weight by layer name, kind and shape.

    Parameters
    ----------
    tensors : mapping of str to np.ndarray
        What a file holds.
    wanted : mapping of str to tuple of int
        Shapes by weight name, e.g. ``{"conv1/kernel": (3, 3, 1, 64)}``.
    source : str
        The file, for messages.

    Returns
    -------
    dict of str to str
        For each weight the name of its tensor.

    Raises
    ------
    ModelError
        Naming every weight without a tensor and every tensor of another shape.
    """
    by_layer: dict[tuple[str, str], list[str]] = {}
    for name in tensors:
        if not any(part in name for part in _NOT_WEIGHTS):
            by_layer.setdefault(_split_name(name), []).append(name)
    found: dict[str, str] = {}
    problems = []
    for weight, shape in wanted.items():
        candidates = by_layer.get(_split_name(weight), [])
        if not candidates:
            problems.append(f"no tensor for {weight}")
        elif len(candidates) > 1:
            problems.append(f"several tensors for {weight} ({', '.join(candidates)})")
        elif tensors[candidates[0]].shape != shape:
            given = tensors[candidates[0]].shape
            problems.append(f"{candidates[0]} has shape {given}, {weight} needs {shape}")
        else:
            found[weight] = candidates[0]
    if problems:
        raise ModelError(
            f"{source}: does not fit the backbone: {'; '.join(problems)}; "
            "published weights need width 1 and no batch_norm"
        )
    return found


def load_by_layer_name(model: Any, path: Path) -> list[str]:
    """Put a file's tensors into the layers of the same name.

    Parameters
    ----------
    model : keras.Model
        Every weight of it must be in the file.
    path : Path
        TensorFlow checkpoint or Keras .h5.

    Returns
    -------
    list of str
        Names of the tensors used.

    Raises
    ------
    ModelError
        Naming what does not fit; nothing is changed then.
    """
    tensors = read_tensors(path)
    variables = {weight.name.removesuffix(":0"): weight for weight in model.weights}
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    matched = match_tensors(tensors, shapes, source=str(path))
    for weight, tensor in matched.items():
        # As the network will hold it: a float64 may be beyond float32.
        with np.errstate(over="ignore"):
            value = tensors[tensor].astype(variables[weight].dtype.as_numpy_dtype, copy=False)
        if not np.isfinite(value).all():
            raise ModelError(f"{path}: {tensor} holds NaN or infinity; download it again")
    for weight, tensor in matched.items():
        variables[weight].assign(tensors[tensor])
    return sorted(matched.values())
