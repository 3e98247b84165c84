"""TensorFlow's checkpoints -> arrays, without TensorFlow.

A checkpoint ("tensor bundle", tensorflow/core/util/tensor_bundle) is an index and a data file. The
index is a sorted table of LevelDB's form: blocks of names and entries, each block with a checksum.
An entry (a protocol buffer) says where in the data file a tensor lies, its type, shape and
checksum.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.untrusted.crc32c import crc32c

INDEX_SUFFIX, DATA_SUFFIX = ".index", ".data-00000-of-00001"
_FOOTER_BYTES, _MAGIC = 48, 0xDB4775248B80FB57
# Behind each block: how it is packed (0: not at all), and its checksum.
_TRAILER_BYTES = 5
# Checksums of bytes that may hold checksums are turned and moved by this number.
_MASK = 0xA282EAD8
_MOST_INDEX_BYTES = 16 << 20
# Of TensorFlow's numbers of types: those that weights and counters have.
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}
_ENTRY_TYPE, _ENTRY_SHAPE, _ENTRY_SHARD, _ENTRY_AT, _ENTRY_SIZE, _ENTRY_CRC = 1, 2, 3, 4, 5, 6
_ENTRY_SLICES = 7
_SHAPE_DIMENSION, _DIMENSION_SIZE = 2, 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_tensor_bundle(prefix: Path) -> dict[str, npt.NDArray[Any]]:
    """Read every tensor of numbers of a checkpoint with one data file.

    Parameters
    ----------
    prefix : Path
        The checkpoint's name, without ``.index``.

    Returns
    -------
    dict of str to np.ndarray
        By name. Texts are left out.

    Raises
    ------
    ValueError
        If it is no such checkpoint, a checksum is wrong, or it has several data files.
    OSError
        If a file cannot be read.
    """
    index = prefix.with_name(prefix.name + INDEX_SUFFIX)
    if index.stat().st_size > _MOST_INDEX_BYTES:
        raise ValueError("its index is larger than any network's")
    data = prefix.with_name(prefix.name + DATA_SUFFIX).read_bytes()
    tensors = {}
    try:
        for name, entry in _entries(index.read_bytes()):
            # The first entry, without a name, is about the whole.
            if name:
                tensor = _tensor(name.decode("utf-8"), _fields(entry), data)
                if tensor is not None:
                    tensors[name.decode("utf-8")] = tensor
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"not a checkpoint's index ({error})") from None
    return tensors


def _tensor(name: str, entry: dict[int, list[Any]], data: bytes) -> npt.NDArray[Any] | None:
    def number(field: int) -> int:
        value = entry.get(field, [0])[0]
        if not isinstance(value, int):
            raise ValueError(f"{name}: its entry is damaged")
        return value

    dtype = _TYPES.get(number(_ENTRY_TYPE))
    if dtype is None:
        return None
    if _ENTRY_SLICES in entry or number(_ENTRY_SHARD):
        raise ValueError(f"{name}: lies in several parts; save the checkpoint in one")
    shape = []
    for wrapped in entry.get(_ENTRY_SHAPE, [b""]):
        for dimension in _fields(wrapped).get(_SHAPE_DIMENSION, []):
            shape.append(_fields(dimension).get(_DIMENSION_SIZE, [0])[0])
    at, size = number(_ENTRY_AT), number(_ENTRY_SIZE)
    if at + size > len(data) or size != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError(f"{name}: its data are shorter than the index says")
    content = data[at : at + size]
    if _masked(crc32c(content)) != number(_ENTRY_CRC):
        raise ValueError(f"{name}: its checksum is wrong")
    return np.frombuffer(content, dtype=dtype).reshape(shape)


def _masked(checksum: int) -> int:
    return ((checksum >> 15 | checksum << 17) + _MASK) & 0xFFFFFFFF


def _entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table, in order."""
    footer = content[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or struct.unpack_from("<Q", footer, 40)[0] != _MAGIC:
        raise ValueError("not a checkpoint's index")
    # Where blocks about the table are, which nobody needs; then where the block of blocks is.
    _, place = _varint(footer, 0)
    _, place = _varint(footer, place)
    for _, handle in _of_block(content, footer[place:]):
        yield from _of_block(content, handle)


def _of_block(content: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries of the block that a handle (offset and size) leads to."""
    at, place = _varint(handle, 0)
    size, _ = _varint(handle, place)
    if at + size + _TRAILER_BYTES > len(content):
        raise ValueError("a block leads out of the index")
    packing, checksum = struct.unpack_from("<BI", content, at + size)
    if _masked(crc32c(content[at : at + size + 1])) != checksum:
        raise ValueError("a block's checksum is wrong")
    if packing:
        raise ValueError("its index is compressed")
    block = content[at : at + size]
    # At the end stand places where names begin anew, and how many.
    end = size - 4 - 4 * struct.unpack_from("<I", block, size - 4)[0]
    key, place = b"", 0
    while place < end:
        shared, place = _varint(block, place)
        own, place = _varint(block, place)
        length, place = _varint(block, place)
        if shared > len(key) or place + own + length > end:
            raise ValueError("an entry leads out of its block")
        key = key[:shared] + block[place : place + own]
        place += own
        yield key, block[place : place + length]
        place += length


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """Read a number of seven bits a byte; gives also the place behind it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = content[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return number, place
    raise ValueError("a number is too long")


def _fields(message: bytes) -> dict[int, list[Any]]:
    """Fields of a protocol buffer: numbers, or bytes of what lies within."""
    found: dict[int, list[Any]] = {}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        field, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, place = _varint(message, place)
        elif kind == _BYTES:
            length, place = _varint(message, place)
            value = message[place : place + length]
            if len(value) < length:
                raise ValueError("an entry is cut short")
            place += length
        elif kind in (_FIXED32, _FIXED64):
            form = "<I" if kind == _FIXED32 else "<Q"
            value = struct.unpack_from(form, message, place)[0]
            place += struct.calcsize(form)
        else:
            raise ValueError("an entry is damaged")
        found.setdefault(field, []).append(value)
    return found
