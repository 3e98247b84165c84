"""Scores on the disk: NumPy archives with labels ``gt`` and scores ``est``, of any size.

NumPy itself reads and writes an array of an archive as a whole; here large ones pass by some clips
at a time.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ModelError
from tagger.base.files import atomic_write
from tagger.metrics.score_table import ArrayColumns, Columns, ScoreTable
from tagger.untrusted.npz import open_arrays, read_header

SCORES, LABELS, TAGS, CLIP_IDS = "est", "gt", "tags", "clip_ids"
PATHS, ARTISTS, THRESHOLDS = "paths", "artists", "thresholds"
# A name of each clip; left out where there are so many that these would fill the memory.
_NAMES_OF_CLIPS = (CLIP_IDS, PATHS, ARTISTS)
# Archives of more bytes, once unpacked, are not read as a whole.
_BYTES_IN_MEMORY = 64 << 20
_BYTES_OF_NAMES = 256 << 20
# What NumPy and zipfile raise on a file that is no archive, a damaged one or an encrypted one.
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    AttributeError,
    TypeError,
    KeyError,
    RuntimeError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def first_line(error: Exception) -> str:
    """First line of what an error says, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True)
class ScoreArchive:
    """Labels and scores of anybody's model, with the names that came along.

    Parameters
    ----------
    columns : Columns
        Labels and scores.
    tags : tuple of str
        Names of the columns; numbers where the archive has none.
    thresholds : np.ndarray [shape=(n_tags,), dtype=float64], optional
        Score from which each tag applies; NaN where it has none.
    clip_ids, paths, artists : tuple of str
        Of the rows; empty where the archive has none, or too many to hold.
    has_tags : bool
        Whether the archive names its columns.
    """

    columns: Columns
    tags: tuple[str, ...]
    thresholds: npt.NDArray[np.float64] | None
    clip_ids: tuple[str, ...]
    paths: tuple[str, ...]
    artists: tuple[str, ...]
    has_tags: bool


@contextmanager
def open_scores(path: Path) -> Iterator[ScoreArchive]:
    """Open labels and scores of anybody's model.

    Parameters
    ----------
    path : Path
        NumPy archive with the arrays ``est`` (n_clips, n_tags; scores), ``gt`` (n_clips, n_tags;
        0 or 1) and, if wanted, ``tags`` (n_tags names), ``thresholds`` (n_tags), and of the clips
        ``clip_ids``, ``paths`` and ``artists`` (n_clips).

    Yields
    ------
    ScoreArchive

    Raises
    ------
    ModelError
        If the file is missing or no such archive, the arrays do not fit together, or there is no
        room for a temporary file.
    """
    large = False
    arrays: dict[str, Any] = {}
    try:
        with open_arrays(path) as archive:
            names = archive.names
            large = sum(map(archive.n_bytes, (SCORES, LABELS))) > _BYTES_IN_MEMORY
            for name in (SCORES, LABELS, TAGS, THRESHOLDS, *_NAMES_OF_CLIPS):
                by_parts = large and name in (SCORES, LABELS)
                too_many = name in _NAMES_OF_CLIPS and archive.n_bytes(name) > _BYTES_OF_NAMES
                if name in names and not by_parts and not too_many:
                    arrays[name] = archive.read(name, most_bytes=_BYTES_OF_NAMES)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; give a .npz file or a run folder") from None
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    missing = [name for name in (SCORES, LABELS) if name not in names]
    if missing:
        raise ModelError(
            f"{path}: lacks the array{'s' if len(missing) > 1 else ''} {' and '.join(missing)} "
            f"(it has {', '.join(names) or 'none'}); save scores as est and labels as gt"
        )
    if not large:
        try:
            columns = ArrayColumns(arrays[LABELS], arrays[SCORES])
        except (ValueError, TypeError) as error:
            raise _not_fitting(path, error) from None
        yield _named(path, columns, arrays)
        return
    with _table(path) as table:
        yield _named(path, table, arrays)


def _named(path: Path, columns: Columns, arrays: dict[str, Any]) -> ScoreArchive:
    """Check that names and thresholds fit the labels and scores."""
    n_clips, n_tags = columns.shape
    names: dict[str, tuple[str, ...]] = {}
    for name, count in ((TAGS, n_tags), *((name, n_clips) for name in _NAMES_OF_CLIPS)):
        given = np.asarray(arrays[name]) if name in arrays else np.empty(0, dtype=str)
        if name in arrays and given.shape != (count,):
            what = "columns" if name == TAGS else "rows"
            raise ModelError(f"{path}: {name} has {given.size} names for {count} {what}; fix it")
        names[name] = tuple(map(str, given.tolist()))
    for name in (TAGS, CLIP_IDS):
        if len(set(names[name])) != len(names[name]):
            raise ModelError(f"{path}: {name} holds a name twice; fix it")
    thresholds = None
    if THRESHOLDS in arrays:
        try:
            thresholds = np.asarray(arrays[THRESHOLDS], dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise ModelError(f"{path}: thresholds: {first_line(error)}; fix it") from None
        if thresholds.shape != (n_tags,):
            raise ModelError(
                f"{path}: {thresholds.size} thresholds for {n_tags} columns; fix thresholds"
            )
    return ScoreArchive(
        columns,
        names[TAGS] or tuple(f"tag {number}" for number in range(n_tags)),
        thresholds,
        names[CLIP_IDS],
        names[PATHS],
        names[ARTISTS],
        has_tags=bool(names[TAGS]),
    )


def _unreadable(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path}: not a NumPy .npz archive ({first_line(error)}); save one again")


def _not_fitting(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path}: {first_line(error)}; fix est and gt")


@contextmanager
def _table(path: Path) -> Iterator[ScoreTable]:
    """Labels and scores of a large archive, turned into columns on the way from it."""
    try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(f"{SCORES}.npy") as score_file,
            archive.open(f"{LABELS}.npy") as label_file,
        ):
            scores, labels = _Rows(score_file, SCORES), _Rows(label_file, LABELS)
            if scores.shape != labels.shape or len(scores.shape) != 2:
                raise _DoNotFitError(
                    f"labels of shape {labels.shape} and scores of shape {scores.shape}"
                )
            try:
                # The system's place for temporary files may be in memory.
                table = ScoreTable(*scores.shape, dtype=scores.dtype, folder=path.absolute().parent)
            except ModelError:
                # One may read the archive's folder, but not write there.
                table = ScoreTable(*scores.shape, dtype=scores.dtype)
            try:
                for start in range(0, scores.shape[0], table.rows_at_once):
                    count = min(table.rows_at_once, scores.shape[0] - start)
                    flags, values = labels.read(count), scores.read(count)
                    try:
                        table.add(flags, values)
                    except (ValueError, TypeError) as error:
                        raise _DoNotFitError(first_line(error)) from None
            except BaseException:
                table.close()
                raise
    except _DoNotFitError as error:
        raise _not_fitting(path, error) from None
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    with table:
        yield table


class _DoNotFitError(Exception):
    """Arrays can be read, but are no labels and scores of the same clips."""


class _Rows:
    """Rows of a two-dimensional array in a file, from the first on."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self.shape, by_columns, self.dtype = read_header(file)
        if by_columns:
            raise _DoNotFitError(f"{name} lies column by column; save it with np.ascontiguousarray")

    def read(self, count: int) -> npt.NDArray[Any]:
        """Next `count` rows."""
        n_bytes = count * self.shape[1] * self.dtype.itemsize
        content = self._file.read(n_bytes)
        if len(content) != n_bytes:
            raise EOFError("the archive ends too early")
        return np.frombuffer(content, dtype=self.dtype).reshape(count, self.shape[1])


class Rows(Protocol):
    """What is written: labels and scores, some clips at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of clips and of tags."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the scores."""

    def rows(self) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.floating]]]:
        """Labels and scores clip by clip."""


def write_scores(
    path: Path,
    table: Rows,
    *,
    tags: Sequence[str],
    clip_ids: Sequence[str],
    paths: Sequence[str] = (),
    artists: Sequence[str] = (),
    thresholds: npt.NDArray[np.float64] | None = None,
) -> None:
    """Write labels and scores as a compressed NumPy archive, atomically.

    Parameters
    ----------
    path : Path
        The ``.npz`` file.
    table : Rows
        Labels and scores.
    tags, clip_ids : sequence of str
        Names of its columns and rows.
    paths, artists : sequence of str
        Of the rows, where they are known.
    thresholds : np.ndarray [shape=(n_tags,)], optional
        Score from which each tag applies; NaN where it has none.
    """
    names = {TAGS: tags, CLIP_IDS: clip_ids, PATHS: paths, ARTISTS: artists}
    arrays = {}
    for name, texts in names.items():
        # NumPy gives each name the room of the longest, 4 bytes a character.
        n_bytes = 4 * len(texts) * max(map(len, texts), default=0)
        if len(texts) and (name in (TAGS, CLIP_IDS) or n_bytes <= _BYTES_OF_NAMES):
            arrays[name] = np.array(texts, dtype=str)
    if thresholds is not None:
        arrays[THRESHOLDS] = thresholds
    with (
        atomic_write(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for item, (name, dtype) in enumerate([(LABELS, np.dtype(np.uint8)), (SCORES, table.dtype)]):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": dtype.str, "fortran_order": False, "shape": table.shape}
                np.lib.format.write_array_header_1_0(member, header)
                for rows in table.rows():
                    member.write(np.ascontiguousarray(rows[item], dtype=dtype).data)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
