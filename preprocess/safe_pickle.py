"""Pickles that are data: written for any reader, read without executing what they ask for.

A pickle is a program: an ordinary ``pickle.load`` calls whatever function it names. The reader here
replaces the five names that a NumPy array's pickle uses by functions of its own and refuses every
other one, so a crafted file can at worst produce plain values.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

# Object arrays could hold anything; structured and text types are not used.
_ALLOWED_KINDS = frozenset("biuf")


class UnsafePickleError(pickle.UnpicklingError):
    """A pickle asks for something other than plain values and numeric arrays."""


def _plain_dtype(code: object, align: object = False, copy: object = True) -> np.dtype[Any]:
    del align, copy
    if not isinstance(code, str):
        raise UnsafePickleError("a data type that is not named by a text")
    # A copy, as the pickle sets the byte order of what it gets: never of NumPy's own object.
    dtype: np.dtype[Any] = np.dtype(code, copy=True)  # type: ignore[call-overload]
    if dtype.kind not in _ALLOWED_KINDS:
        raise UnsafePickleError(f"an array of the type {code!r}")
    return dtype


def _array_from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, *rest: Any) -> Any:
    del rest
    if not isinstance(dtype, np.dtype) or dtype.kind not in _ALLOWED_KINDS:
        raise UnsafePickleError("an array of a type that is not numeric")
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


class _ArrayType:
    """Stands for numpy.ndarray where a pickle only names it."""


def _empty_array(subtype: object, shape: object, code: object) -> np.ndarray[Any, Any]:
    del shape, code
    if subtype is not _ArrayType:
        raise UnsafePickleError("an array subclass")
    return _ArrayInProgress((0,), dtype=np.uint8)


class _ArrayInProgress(np.ndarray[Any, Any]):
    """An array whose state is still to come: checks the type before NumPy takes the state."""

    def __setstate__(self, state: Any, /) -> None:
        if not (
            isinstance(state, tuple)
            and len(state) == 5
            and isinstance(state[2], np.dtype)
            and state[2].kind in _ALLOWED_KINDS
            and isinstance(state[4], bytes)
        ):
            raise UnsafePickleError("an array of a type that is not numeric")
        super().__setstate__(state)


_REPLACEMENTS: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("numpy", "dtype"): _plain_dtype,
    ("numpy", "ndarray"): _ArrayType,
}
# NumPy 2 renamed numpy.core to numpy._core; files of both are read.
for _core in ("numpy._core", "numpy.core"):
    _REPLACEMENTS[_core + ".numeric", "_frombuffer"] = _array_from_buffer
    _REPLACEMENTS[_core + ".multiarray", "_reconstruct"] = _empty_array


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _REPLACEMENTS[module, name]
        except KeyError:
            raise UnsafePickleError(f"it asks for {module}.{name}") from None


def _plain(value: Any) -> Any:
    """Turn arrays made the old way into ordinary ones; refuse leftovers of odd pickles."""
    if isinstance(value, _ArrayInProgress):
        return value.view(np.ndarray)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(_plain(item) for item in value)
    if value is None or type(value) in (bool, int, float, complex, str, bytes, np.ndarray):
        return value
    raise UnsafePickleError(f"it holds a {type(value).__name__}")


def dumps(value: Any) -> bytes:
    """Pickle `value` (protocol 5)."""
    return pickle.dumps(value, protocol=5)


def loads(content: bytes) -> Any:
    """Read a pickle of plain containers, numbers, texts and numeric arrays.

    Raises
    ------
    UnsafePickleError
        If it asks for anything else; nothing of it has been executed.
    pickle.UnpicklingError
        If it is no whole pickle.
    """
    try:
        return _plain(_DataUnpickler(io.BytesIO(content)).load())
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        # A damaged pickle may raise anything: EOFError, KeyError, ValueError, MemoryError ...
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None
