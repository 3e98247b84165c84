"""Labels and scores of any number of clips, which metrics read tag by tag.

Scores come clip by clip, and metrics need all clips of one tag: a million clips and 188 tags are
close to a gigabyte. Here they lie column by column, in memory while they are few and in a temporary
file when they are many.
"""

import contextlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ModelError

# Beyond it a table lies on the disk.
_BYTES_IN_MEMORY = 64 << 20
# Of the clips that are turned from rows to columns together.
_BYTES_AT_ONCE = 16 << 20


class Columns(Protocol):
    """What metrics read: checked labels and scores, tag by tag."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of clips and of tags."""

    def column(self, tag: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.floating]]:
        """Labels and scores of one tag [shape=(n_clips,)]."""


def check_rows(labels: npt.NDArray[np.generic], scores: npt.NDArray[np.generic]) -> None:
    """Raise a ValueError if these are no labels and scores of the same clips and tags."""
    if labels.shape != scores.shape or labels.ndim != 2:
        raise ValueError(f"labels of shape {labels.shape} and scores of shape {scores.shape}")
    if not (np.issubdtype(scores.dtype, np.floating) or np.issubdtype(scores.dtype, np.integer)):
        raise ValueError(f"the scores (est) are {scores.dtype}, not real numbers")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("the labels hold values other than 0 and 1")
    if not np.isfinite(scores).all():
        raise ValueError("the scores hold NaN or infinity")


def floating(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Type that scores are measured in: whole numbers as the smallest that holds them exactly.

    Between whole numbers there is no threshold, and the negative of an unsigned one is no lower.
    """
    given = np.dtype(dtype)
    return np.result_type(given, np.float32) if np.issubdtype(given, np.integer) else given


class ArrayColumns:
    """Arrays that are in memory anyway.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_tags)]
        1 where a clip carries a tag.
    scores : np.ndarray [shape=(n_clips, n_tags)]
        What a model says; whole numbers become floating point.

    Raises
    ------
    ValueError
        If the shapes differ, a label is neither 0 nor 1 or a score is not finite.
    """

    def __init__(self, labels: npt.NDArray[np.generic], scores: npt.NDArray[np.generic]) -> None:
        check_rows(labels, scores)
        self._labels = labels
        self._scores: npt.NDArray[np.floating] = scores.astype(floating(scores.dtype), copy=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of clips and of tags."""
        n_clips, n_tags = self._labels.shape
        return n_clips, n_tags

    def column(self, tag: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.floating]]:
        """Labels and scores of one tag."""
        return self._labels[:, tag] != 0, self._scores[:, tag]


class ScoreTable:
    """A table that is filled clip by clip and read tag by tag; close it, or use it in ``with``.

    Parameters
    ----------
    n_clips, n_tags : int
        Size of the whole.
    dtype : dtype
        Of the scores; whole numbers become floating point.
    folder : Path, optional
        Where the temporary file goes if the table is large; default the system's place for them,
        which may be in memory.

    Raises
    ------
    ModelError
        If the file cannot be made; also later, if the disk is full.
    """

    def __init__(
        self, n_clips: int, n_tags: int, *, dtype: npt.DTypeLike, folder: Path | None = None
    ) -> None:
        self.shape = (n_clips, n_tags)
        self.dtype = floating(dtype)
        self._n_filled = 0
        self._folder = folder
        self._n_bytes = n_clips * n_tags * (self.dtype.itemsize + 1)
        # Half of the file is known to be needed from the first clip on: no growing in memory first.
        with self._on_disk():
            self._file = (
                tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by `close`)
                if self._n_bytes > _BYTES_IN_MEMORY
                else tempfile.SpooledTemporaryFile(_BYTES_IN_MEMORY)  # noqa: SIM115
            )

    def __enter__(self) -> "ScoreTable":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the table."""
        # On a full disk closing fails once more, and would hide the error that says so.
        with contextlib.suppress(OSError):
            self._file.close()

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        """Say where the temporary file is, which its user does not know of."""
        try:
            yield
        except OSError as error:
            try:
                folder = str(self._folder or tempfile.gettempdir())
            except OSError:
                # None of the system's places can be written.
                folder = "temporary folder"
            raise ModelError(
                f"{folder}: no temporary file for {self.shape[0]} clips of {self.shape[1]} scores "
                f"can be kept there ({error.strerror}); "
                f"make {math.ceil(self._n_bytes / 1e6)} MB of room"
                + (" or set TMPDIR to another folder" if self._folder is None else "")
            ) from None

    @property
    def rows_at_once(self) -> int:
        """Clips that are best added together."""
        return max(1, _BYTES_AT_ONCE // (self.shape[1] * self.dtype.itemsize or 1))

    def add(self, labels: npt.NDArray[np.generic], scores: npt.NDArray[np.generic]) -> None:
        """Add the next clips.

        Parameters
        ----------
        labels : np.ndarray [shape=(n, n_tags)]
            1 where a clip carries a tag.
        scores : np.ndarray [shape=(n, n_tags)]
            What a model says.

        Raises
        ------
        ValueError
            If they are not of one shape, a label is neither 0 nor 1, a score is not finite, or
            there are more clips than the table was made for.
        ModelError
            If the disk is full.
        """
        check_rows(labels, scores)
        n_clips, n_tags = self.shape
        if labels.shape[1] != n_tags or self._n_filled + len(labels) > n_clips:
            raise ValueError(f"clips of shape {labels.shape} beyond a table of {self.shape}")
        flags = np.asfortranarray(labels != 0)
        values = np.asfortranarray(scores, dtype=self.dtype)
        with self._on_disk():
            for tag in range(n_tags):
                self._file.seek(self._flag_offset(tag) + self._n_filled)
                self._file.write(flags[:, tag].tobytes())
                self._file.seek(self._score_offset(tag) + self._n_filled * self.dtype.itemsize)
                self._file.write(values[:, tag].tobytes())
            # What lies in the buffer is told of here, and not when it is read.
            self._file.flush()
        self._n_filled += len(labels)

    def column(self, tag: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.floating]]:
        """Labels and scores of one tag."""
        return self._read(tag, 0, self.shape[0])

    def rows(self) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.floating]]]:
        """Labels and scores clip by clip again, some clips at a time."""
        n_clips, n_tags = self.shape
        for start in range(0, n_clips, self.rows_at_once):
            count = min(self.rows_at_once, n_clips - start)
            columns = [self._read(tag, start, count) for tag in range(n_tags)]
            yield (
                np.stack([flags for flags, _ in columns], axis=1),
                np.stack([values for _, values in columns], axis=1),
            )

    def _flag_offset(self, tag: int) -> int:
        return tag * self.shape[0]

    def _score_offset(self, tag: int) -> int:
        n_clips, n_tags = self.shape
        return n_tags * n_clips + tag * n_clips * self.dtype.itemsize

    def _read(
        self, tag: int, start: int, count: int
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.floating]]:
        if self._n_filled != self.shape[0]:
            raise ValueError(f"{self._n_filled} of {self.shape[0]} clips were added")
        with self._on_disk():
            self._file.seek(self._flag_offset(tag) + start)
            flags = np.frombuffer(self._file.read(count), dtype=np.bool_)
            self._file.seek(self._score_offset(tag) + start * self.dtype.itemsize)
            values = self._file.read(count * self.dtype.itemsize)
        return flags, np.frombuffer(values, dtype=self.dtype)
