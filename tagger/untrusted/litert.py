"""What LiteRT takes for granted in a model file after its own check, and crashes without.

Its check follows every offset, but a part that every model has may be missing, or a number may
point to what is not there. Names and numbers of the fields are those of LiteRT's schema.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

_MODEL_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS, _MODEL_SIGNATURES = 1, 2, 4, 7
_GRAPH_TENSORS, _GRAPH_INPUTS, _GRAPH_OUTPUTS, _GRAPH_OPERATORS = 0, 1, 2, 3
_TENSOR_BUFFER = 2
# An operator of few numbers has its own in a field of one byte, and there again.
_CODE_SMALL, _CODE = 0, 3
_OPERATOR_CODE, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 0, 1, 2
_SIGNATURE_INPUTS, _SIGNATURE_OUTPUTS, _SIGNATURE_KEY, _SIGNATURE_GRAPH = 0, 1, 2, 4
_MAP_NAME, _MAP_TENSOR = 0, 1
# How many inputs the operators of exported networks have at the least, by their numbers. LiteRT
# reads them before it counts them.
_LEAST_INPUTS = {
    **dict.fromkeys((1, 2, 6, 14, 17, 19, 22, 25, 28, 43, 47, 53, 76, 77, 83, 98, 111, 114), 1),
    # ADD, CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, MUL; PAD, GATHER, TRANSPOSE, MEAN, SUB, DIV;
    # PRELU, MAXIMUM, MINIMUM; TILE, EXPAND_DIMS, SUM, REDUCE_MAX; FILL, SQUARED_DIFFERENCE,
    # BATCH_MATMUL, BROADCAST_TO.
    **dict.fromkeys((0, 3, 4, 9, 18, 34, 36, 39, 40, 41, 42, 54, 55, 57, 69, 70, 74, 82), 2),
    **dict.fromkeys((94, 99, 126, 130), 2),
    # PADV2, SELECT, SLICE, TRANSPOSE_CONV, SELECT_V2.
    **dict.fromkeys((60, 64, 65, 67, 123), 3),
    # STRIDED_SLICE.
    45: 4,
}


class _Table:
    """A table of a flatbuffer: fields by number, each of which may be missing."""

    def __init__(self, content: mmap.mmap, at: int) -> None:
        self._content, self._at = content, at
        self._fields = at - self._number("<i", at)

    def _number(self, form: str, at: int) -> int:
        if at < 0:
            raise ValueError("an offset leads out of the file")
        number: int = struct.unpack_from(form, self._content, at)[0]
        return number

    def _place(self, field: int) -> int | None:
        """Where a field is; None if it is missing."""
        entry = 4 + 2 * field
        if entry + 2 > self._number("<H", self._fields):
            return None
        offset = self._number("<H", self._fields + entry)
        return self._at + offset if offset else None

    def has(self, field: int) -> bool:
        return self._place(field) is not None

    def number(self, field: int) -> int:
        """Unsigned number of 32 bits; 0 where it is missing, as everywhere."""
        at = self._place(field)
        return 0 if at is None else self._number("<I", at)

    def byte(self, field: int) -> int:
        """Unsigned number of 8 bits; 0 where it is missing, as everywhere."""
        at = self._place(field)
        return 0 if at is None else self._number("<B", at)

    def _vector(self, field: int) -> tuple[int, int]:
        at = self._place(field)
        if at is None:
            return 0, 0
        start = at + self._number("<I", at)
        length = self._number("<I", start)
        if start + 4 + 4 * length > len(self._content):
            raise ValueError("a list leads out of the file")
        return start + 4, length

    def length(self, field: int) -> int:
        return self._vector(field)[1]

    def numbers(self, field: int) -> tuple[int, ...]:
        """Signed numbers of 32 bits."""
        start, length = self._vector(field)
        return struct.unpack_from(f"<{length}i", self._content, start)

    def tables(self, field: int) -> Iterator["_Table"]:
        start, length = self._vector(field)
        for at in range(start, start + 4 * length, 4):
            yield _Table(self._content, at + self._number("<I", at))


def check_structure(path: Path) -> None:
    """Make sure that a model has all parts, and that what it refers to is there.

    Parameters
    ----------
    path : Path
        ``.tflite`` file.

    Raises
    ------
    ValueError
        If not.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            _check_model(_Table(content, struct.unpack_from("<I", content, 0)[0]))
    except OSError as error:
        raise ValueError(error.strerror) from None
    except struct.error:
        raise ValueError("an offset leads out of the file") from None


def _check_model(model: _Table) -> None:
    for field in (_MODEL_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS):
        if not model.has(field):
            raise ValueError("it lacks operators, graphs or buffers")
    n_codes, n_buffers = model.length(_MODEL_CODES), model.length(_MODEL_BUFFERS)
    codes = [max(code.byte(_CODE_SMALL), code.number(_CODE)) for code in model.tables(_MODEL_CODES)]
    graphs = list(model.tables(_MODEL_SUBGRAPHS))
    if not graphs:
        raise ValueError("it has no graph")
    for graph in graphs:
        n_tensors = graph.length(_GRAPH_TENSORS)
        for tensor in graph.tables(_GRAPH_TENSORS):
            _require_below(n_buffers, tensor.number(_TENSOR_BUFFER))
        _require_below(n_tensors, *graph.numbers(_GRAPH_INPUTS), *graph.numbers(_GRAPH_OUTPUTS))
        for operator in graph.tables(_GRAPH_OPERATORS):
            _require_below(n_codes, operator.number(_OPERATOR_CODE))
            # An input that is left out is -1.
            inputs, outputs = (
                operator.numbers(field) for field in (_OPERATOR_INPUTS, _OPERATOR_OUTPUTS)
            )
            _require_below(n_tensors, *(number for number in (*inputs, *outputs) if number != -1))
            n_needed = _LEAST_INPUTS.get(codes[operator.number(_OPERATOR_CODE)], 0)
            if len(inputs) < n_needed or -1 in inputs[:n_needed] or (n_needed and not outputs):
                raise ValueError("an operator lacks inputs or outputs")
    for signature in model.tables(_MODEL_SIGNATURES):
        _require_below(len(graphs), signature.number(_SIGNATURE_GRAPH))
        if not signature.has(_SIGNATURE_KEY):
            raise ValueError("a signature has no name")
        n_tensors = graphs[signature.number(_SIGNATURE_GRAPH)].length(_GRAPH_TENSORS)
        for field in (_SIGNATURE_INPUTS, _SIGNATURE_OUTPUTS):
            for entry in signature.tables(field):
                _require_below(n_tensors, entry.number(_MAP_TENSOR))
                if not entry.has(_MAP_NAME):
                    raise ValueError("an input or output of a signature has no name")


def _require_below(end: int, *numbers: int) -> None:
    if not all(0 <= number < end for number in numbers):
        raise ValueError("it refers to what it does not have")
