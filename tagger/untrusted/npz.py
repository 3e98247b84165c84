"""NumPy archives that may hold anything: nothing is believed that the file has no bytes for.

NumPy itself makes room for what a header promises before it reads the first byte, and raises
whatever its parser of headers happens to raise.
"""

import math
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_SUFFIX = ".npy"


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the start of an array in a file.

    Returns
    -------
    shape : tuple of int
        Of the array.
    by_columns : bool
        Whether it lies in Fortran's order.
    dtype : np.dtype
        Without Python objects.

    Raises
    ------
    ValueError
        If there is no such start.
    """
    try:
        version = np.lib.format.read_magic(file)
        shape, by_columns, dtype = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version](file)
    except Exception as error:
        # NumPy hands on what Python's tokenizer, its parser and its own types raise.
        raise ValueError(f"damaged header: {type(error).__name__}") from None
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if dtype.kind == "V":
        raise ValueError("it holds records")
    if any(length < 0 for length in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape, by_columns, dtype


class Arrays:
    """Arrays of an archive; use `open_arrays`."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members = {
            member.filename.removesuffix(_SUFFIX): member
            for member in archive.infolist()
            if member.filename.endswith(_SUFFIX)
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays."""
        return tuple(self._members)

    def n_bytes(self, name: str) -> int:
        """Bytes that an array takes, as the archive says; 0 if there is none."""
        return self._members[name].file_size if name in self._members else 0

    def read(self, name: str, *, most_bytes: int) -> npt.NDArray[Any]:
        """Read an array, which is read-only.

        Parameters
        ----------
        name : str
            Of the array.
        most_bytes : int
            A larger one is refused.

        Raises
        ------
        KeyError
            If there is none of that name.
        ValueError, EOFError, RuntimeError, OSError, zipfile.BadZipFile, zlib.error
            If it is damaged, by what of it is.
        """
        member = self._members[name]
        with self._archive.open(member) as file:
            shape, by_columns, dtype = read_header(file)
            n_bytes = math.prod(shape) * dtype.itemsize
            if n_bytes + file.tell() != member.file_size:
                raise ValueError(f"{name} promises {n_bytes} bytes and has others")
            if n_bytes > most_bytes:
                raise ValueError(f"{name} is larger than {most_bytes >> 20} MB")
            content = file.read(n_bytes)
        if len(content) != n_bytes:
            raise EOFError("the archive ends too early")
        if dtype.kind == "U" and content:
            characters = np.frombuffer(content, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
            if characters.max() > sys.maxunicode:
                raise ValueError(f"{name} holds what is no text")
        return np.ndarray(shape, dtype, content, order="F" if by_columns else "C")


@contextmanager
def open_arrays(path: Path) -> Iterator[Arrays]:
    """Open an archive as ``numpy.savez`` writes it.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError, RuntimeError, EOFError, zipfile.BadZipFile
        If it is no such archive.
    """
    with zipfile.ZipFile(path) as archive:
        yield Arrays(archive)
