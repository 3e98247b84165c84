"""Pickles that are data: written for any reader, read without executing what they ask for.

A pickle is a program: an ordinary ``pickle.load`` calls whatever function it names. The reader here
knows only the instructions that plain values need, replaces the names that a NumPy array's pickle
uses by functions of its own and refuses every other one, so a crafted file can at worst produce
plain values.
"""

import io
import pickle
import pickletools
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

# Object arrays could hold anything; structured and text types are not used.
_ALLOWED_KINDS = frozenset("biuf")

# What protocols 2 to 5 need for None, numbers, texts, bytes, lists, tuples, dicts and the calls of
# `_REPLACEMENTS`. Left out: classes and their instances, persistent ids, copyreg's extensions
# (which a process may have cached and would then not ask for), sets.
_INSTRUCTIONS = (
    "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 "
    "LONG1 LONG4 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES "
    "BINBYTES8 BYTEARRAY8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS "
    "EMPTY_DICT SETITEM SETITEMS MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL "
    "STACK_GLOBAL REDUCE BUILD"
)
_ALLOWED_CODES = frozenset(
    ord(opcode.code) for opcode in pickletools.opcodes if opcode.name in _INSTRUCTIONS.split()
)


class UnsafePickleError(pickle.UnpicklingError):
    """A pickle asks for something other than plain values and numeric arrays."""


class _DtypeInProgress:
    """Stands for a numeric numpy.dtype, whose byte order may still be to come.

    NumPy's own type is not given to a pickle: the state that it takes can turn a plain type into
    one whose arrays reach beyond their buffer.
    """

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        del align, copy
        if not isinstance(code, str):
            raise UnsafePickleError("a data type that is not named by a text")
        self.value: np.dtype[Any] = np.dtype(code)
        if self.value.kind not in _ALLOWED_KINDS:
            raise UnsafePickleError(f"an array of the type {code!r}")

    def set_state(self, state: Any) -> None:
        # version, byte order, subarray, names, fields, size, alignment, flags
        if not (
            isinstance(state, tuple)
            and len(state) >= 5
            and isinstance(state[1], str)
            and all(part is None for part in state[2:5])
        ):
            raise UnsafePickleError("an array of a type that is not numeric")
        self.value = self.value.newbyteorder(state[1])  # type: ignore[arg-type]


def _array_from_buffer(
    buffer: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None
) -> Any:
    if not isinstance(dtype, _DtypeInProgress) or not isinstance(buffer, bytes | bytearray):
        raise UnsafePickleError("an array of a type that is not numeric")
    flat = np.frombuffer(buffer, dtype=dtype.value)
    if order == "K" and axis_order is not None:
        # Axes in another order than C's or Fortran's, as NumPy 2.3 began to write them.
        array = flat.reshape(shape, order="C").transpose(axis_order)
    else:
        array = flat.reshape(shape, order=order)
    array.flags.writeable = False
    return array


class _ArrayInProgress:
    """Stands for an array whose content is still to come."""

    value: np.ndarray[Any, Any] | None = None

    def set_state(self, state: Any) -> None:
        # version, shape, type, Fortran order, content
        if not (isinstance(state, tuple) and len(state) == 5):
            raise UnsafePickleError("an array of a type that is not numeric")
        self.value = _array_from_buffer(state[4], state[2], state[1], "F" if state[3] else "C")


def _array_type(*arguments: object) -> object:
    del arguments
    raise UnsafePickleError("an array made by its type")


def _empty_array(subtype: object, shape: object, code: object) -> _ArrayInProgress:
    del shape, code
    if subtype is not _array_type:
        raise UnsafePickleError("an array subclass")
    return _ArrayInProgress()


def _bytes_of_text(text: object, encoding: object) -> bytes:
    """Protocol 2 has no bytes and writes them as a text to encode."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UnsafePickleError("a text in another encoding than latin1")
    return text.encode("latin1")


def _no_bytes(*arguments: object) -> bytes:
    if arguments:
        raise UnsafePickleError("bytes made of something else")
    return b""


_REPLACEMENTS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _DtypeInProgress,
    ("numpy", "ndarray"): _array_type,
    ("_codecs", "encode"): _bytes_of_text,
    ("__builtin__", "bytes"): _no_bytes,
}
# NumPy 2 renamed numpy.core to numpy._core; files of both are read.
for _core in ("numpy._core", "numpy.core"):
    _REPLACEMENTS[_core + ".numeric", "_frombuffer"] = _array_from_buffer
    _REPLACEMENTS[_core + ".multiarray", "_reconstruct"] = _empty_array


def _require_plain_keys(keys: Sequence[Any]) -> None:
    # Hashing a tuple that is nested deeply enough overruns the stack and ends the process.
    for key in keys:
        if not isinstance(key, str | bytes | int | float | None):
            raise UnsafePickleError(f"it has a dict with a key of the type {type(key).__name__}")


def _load_build(reader: Any) -> None:
    state = reader.stack.pop()
    target = reader.stack[-1]
    if not isinstance(target, _DtypeInProgress | _ArrayInProgress):
        raise UnsafePickleError(f"it sets the state of a {type(target).__name__}")
    target.set_state(state)


def _load_item(reader: Any) -> None:
    _require_plain_keys(reader.stack[-2:-1])
    pickle._Unpickler.dispatch[pickle.SETITEM[0]](reader)


def _load_items(reader: Any) -> None:
    _require_plain_keys(reader.stack[::2])
    pickle._Unpickler.dispatch[pickle.SETITEMS[0]](reader)


def _load_byte_array(reader: Any) -> None:
    # Room for all of it would be made before the first byte is read.
    (length,) = struct.unpack("<Q", reader.read(8))
    content = reader.read(min(length, sys.maxsize))
    if len(content) < length:
        raise pickle.UnpicklingError("it ends too early")
    reader.append(bytearray(content))


def _load_nothing(reader: Any) -> None:
    del reader
    raise UnsafePickleError("it uses an instruction that plain values do not need")


# The Python version and not the C one, which is faster by 40 us per clip: there a file of ten bytes
# can ask for gigabytes (the memo is an array as long as its largest index), and its instructions
# cannot be chosen.
class _DataUnpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **{
            code: load if code in _ALLOWED_CODES else _load_nothing
            for code, load in pickle._Unpickler.dispatch.items()
        },
        pickle.BUILD[0]: _load_build,
        pickle.BYTEARRAY8[0]: _load_byte_array,
        pickle.SETITEM[0]: _load_item,
        pickle.SETITEMS[0]: _load_items,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _REPLACEMENTS[module, name]
        except KeyError:
            raise UnsafePickleError(f"it asks for {module}.{name}") from None


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """Put arrays in their places; refuse leftovers of odd pickles.

    `done` holds results by identity: lists that share their members may be exponentially large
    when they are walked without it.
    """
    if value is None or type(value) in (bool, int, float, str, bytes, np.ndarray):
        return value
    if id(value) in done:
        return done[id(value)]
    result: Any
    if isinstance(value, _ArrayInProgress) and value.value is not None:
        result = value.value
    elif isinstance(value, dict):
        result = {key: _plain(item, done) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        result = type(value)(_plain(item, done) for item in value)
    else:
        raise UnsafePickleError(f"it holds a {type(value).__name__}")
    done[id(value)] = result
    return result


def dumps(value: Any) -> bytes:
    """Pickle `value` (protocol 5)."""
    return pickle.dumps(value, protocol=5)


def loads(content: bytes) -> Any:
    """Read a pickle of plain containers, numbers, texts and numeric arrays.

    Parameters
    ----------
    content : bytes
        A pickle of protocol 2 to 5, by this module or by an ordinary ``pickle.dumps``.

    Returns
    -------
    Any
        None, numbers, texts and bytes, lists, tuples and dicts of them, and read-only arrays.

    Raises
    ------
    UnsafePickleError
        If it asks for anything else; nothing of it has been executed.
    pickle.UnpicklingError
        If it is no whole pickle.
    """
    try:
        return _plain(_DataUnpickler(io.BytesIO(content)).load(), {})
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        # A damaged pickle may raise anything: EOFError, KeyError, ValueError, MemoryError ...
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None
