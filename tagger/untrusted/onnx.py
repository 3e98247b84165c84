"""What an ONNX model asks of onnxruntime, looked at before onnxruntime sees the model.

onnxruntime follows a model's references to other files, and its loops need not end. Numbers of the
fields are those of ONNX's schema (``onnx.proto``), which is encoded as protocol buffers.
"""

from collections.abc import Collection, Iterator, Mapping

_MODEL_GRAPH, _MODEL_OPSETS, _MODEL_FUNCTIONS = 7, 8, 25
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODES, _GRAPH_TENSORS, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTES = 4, 5
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEEPEST = 4


def check_onnx(content: bytes, *, operators: Collection[str], opsets: Mapping[str, int]) -> None:
    """Refuse a model that asks for more than it should.

    Parameters
    ----------
    content : bytes
        The model.
    operators : collection of str
        Operators that it may have.
    opsets : mapping of str to int
        Newest version of each domain of operators that is understood; ``""`` is ONNX's own.

    Raises
    ------
    ValueError
        If it is damaged, too new, refers to other files or has other operators. The reason is one
        line.
    """
    graphs = 0
    for field, value in _fields(content):
        if field == _MODEL_OPSETS:
            found = dict(_fields(_bytes(value)))
            domain = _bytes(found.get(_OPSET_DOMAIN, b"")).decode(errors="replace")
            version = found.get(_OPSET_VERSION, 0)
            if domain not in opsets or not isinstance(version, int) or version > opsets[domain]:
                raise ValueError(
                    f"it needs version {version!r} of the operators {domain or 'ai.onnx'!r}; "
                    f"known here is {opsets.get(domain, 'none')}"
                )
        elif field == _MODEL_FUNCTIONS:
            raise ValueError("it defines operators of its own")
        elif field == _MODEL_GRAPH:
            graphs += 1
            _check_graph(_bytes(value), operators, depth=0)
    if graphs != 1:
        raise ValueError("it is no ONNX model")


def _check_graph(content: bytes, operators: Collection[str], *, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("its graphs lie too deep in one another")
    for field, value in _fields(content):
        if field == _GRAPH_TENSORS:
            _check_tensor(_bytes(value))
        elif field == _GRAPH_SPARSE:
            raise ValueError("it holds sparse tensors")
        elif field == _GRAPH_NODES:
            for part, inner in _fields(_bytes(value)):
                if part == _NODE_OPERATOR:
                    name = _bytes(inner).decode(errors="replace")
                    if name not in operators:
                        raise ValueError(f"it has the operator {name!r}, which no classifier has")
                elif part == _NODE_ATTRIBUTES:
                    _check_attribute(_bytes(inner), operators, depth=depth)


def _check_attribute(content: bytes, operators: Collection[str], *, depth: int) -> None:
    for field, value in _fields(content):
        if field in _ATTRIBUTE_TENSORS:
            _check_tensor(_bytes(value))
        elif field in _ATTRIBUTE_GRAPHS:
            _check_graph(_bytes(value), operators, depth=depth + 1)
        elif field in _ATTRIBUTE_SPARSE:
            raise ValueError("it holds sparse tensors")


def _check_tensor(content: bytes) -> None:
    for field, value in _fields(content):
        if field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and value):
            raise ValueError("it refers to another file")


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("it is no ONNX model")
    return value


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Fields of a message: number, and what is there; numbers of fixed length as zero."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, at = _varint(content, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("it is no ONNX model")
        if at + length > len(content):
            raise ValueError("it ends too early")
        yield key >> 3, content[at : at + length] if kind == _BYTES else 0
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(content) and shift < 64:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
    raise ValueError("it ends too early")
