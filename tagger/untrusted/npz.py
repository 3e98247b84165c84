"""NumPy archives that may hold anything: plain arrays of bounded size, nothing executed."""

import math
import sys
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_arrays(path: Path, *, most_bytes: int) -> dict[str, npt.NDArray[Any]]:
    """Read an archive as ``numpy.savez`` writes it.

    Parameters
    ----------
    path : Path
        The file.
    most_bytes : int
        An archive that unpacks to more is refused before it is unpacked.

    Returns
    -------
    dict of str to np.ndarray
        Its arrays by name: numbers, booleans and texts.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no such archive, damaged or too large. The reason is one line.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # zipfile reads no more of a member than it says here, whatever is packed there.
            if sum(member.file_size for member in archive.infolist()) > most_bytes:
                raise ValueError(f"it holds more than {most_bytes >> 20} MB")
            for member in archive.infolist():
                with archive.open(member) as file:
                    _check_size(file, member.file_size)
        # Allowed here: without pickles it executes nothing.
        with np.load(path, allow_pickle=False) as content:  # noqa: TID251
            arrays = {name: content[name] for name in content.files}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufU":
                raise ValueError(f"{name} holds neither numbers nor texts")
            if array.dtype.kind == "U":
                _check_characters(name, array)
    except OSError:
        raise
    except Exception as error:
        # NumPy hands on what zipfile, zlib, Python's parser and its own types raise.
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(reason or type(error).__name__) from None
    return arrays


def _check_characters(name: str, texts: npt.NDArray[np.str_]) -> None:
    """Raise a ValueError if there is what is no character: Python would make texts of it."""
    number = np.dtype(np.uint32).newbyteorder(texts.dtype.byteorder)
    if (np.frombuffer(texts.tobytes(), number) > sys.maxunicode).any():
        raise ValueError(f"{name} holds what is no text")


def _check_size(file: IO[bytes], n_bytes: int) -> None:
    """Raise a ValueError if an array promises more than there is: NumPy would make room for it."""
    version = np.lib.format.read_magic(file)
    shape, _, dtype = _HEADERS[version](file)
    if math.prod(shape) * dtype.itemsize > n_bytes - file.tell():
        raise ValueError("an array promises more values than there are")
