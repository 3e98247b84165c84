"""Scores on the disk: NumPy archives with labels ``gt`` and scores ``est``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ModelError
from tagger.base.files import atomic_write
from tagger.metrics.columns import ArrayColumns
from tagger.untrusted.npz import read_arrays

SCORES, LABELS, TAGS, CLIP_IDS = "est", "gt", "tags", "clip_ids"
PATHS, ARTISTS, THRESHOLDS, TASK = "paths", "artists", "thresholds", "task"
# What scores are of where nobody says.
_DEFAULT_TASK = "multilabel"
_NAMES_OF_CLIPS = (CLIP_IDS, PATHS, ARTISTS)
# Of a whole archive, once unpacked; ten million clips of 188 tags have as many.
_MOST_BYTES = 16 << 30


def first_line(error: Exception) -> str:
    """First line of what an error says, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True)
class ScoreArchive:
    """Labels and scores of anybody's model, with the names that came along.

    Parameters
    ----------
    columns : ArrayColumns
        Labels and scores.
    tags : tuple of str
        Names of the columns; numbers where the archive has none.
    thresholds : np.ndarray [shape=(n_tags,), dtype=float64], optional
        Score from which each tag applies; NaN where it has none.
    clip_ids, paths, artists : tuple of str
        Of the rows; empty where the archive has none.
    has_tags : bool
        Whether the archive names its columns.
    task : str
        What the scores mean: the name of a task.
    """

    columns: ArrayColumns
    tags: tuple[str, ...]
    thresholds: npt.NDArray[np.float64] | None
    clip_ids: tuple[str, ...]
    paths: tuple[str, ...]
    artists: tuple[str, ...]
    has_tags: bool
    task: str = _DEFAULT_TASK


def read_scores(path: Path) -> ScoreArchive:
    """Read labels and scores of anybody's model.

    Parameters
    ----------
    path : Path
        NumPy archive with the arrays ``est`` (n_clips, n_tags; scores), ``gt`` (n_clips, n_tags;
        0 or 1) and, if wanted, ``tags`` (n_tags names), ``thresholds`` (n_tags), ``task`` (a
        text), and of the clips ``clip_ids``, ``paths`` and ``artists`` (n_clips).

    Returns
    -------
    ScoreArchive

    Raises
    ------
    ModelError
        If the file is missing or no such archive, or the arrays do not fit together.
    """
    try:
        arrays = read_arrays(path, most_bytes=_MOST_BYTES)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; give a .npz file or a run folder") from None
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise ModelError(f"{path}: not a NumPy .npz archive ({reason}); save one again") from None
    missing = [name for name in (SCORES, LABELS) if name not in arrays]
    if missing:
        raise ModelError(
            f"{path}: lacks the array{'s' if len(missing) > 1 else ''} {' and '.join(missing)} "
            f"(it has {', '.join(arrays) or 'none'}); save scores as est and labels as gt"
        )
    try:
        columns = ArrayColumns(arrays[LABELS], arrays[SCORES])
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: {first_line(error)}; fix est and gt") from None
    return _named(path, columns, arrays)


def _named(path: Path, columns: ArrayColumns, arrays: dict[str, Any]) -> ScoreArchive:
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
        task=str(arrays[TASK]) if TASK in arrays else _DEFAULT_TASK,
    )


def write_scores(
    path: Path,
    columns: ArrayColumns,
    *,
    tags: Sequence[str],
    clip_ids: Sequence[str],
    paths: Sequence[str] = (),
    artists: Sequence[str] = (),
    thresholds: npt.NDArray[np.float64] | None = None,
    task: str = _DEFAULT_TASK,
) -> None:
    """Write labels and scores as a compressed NumPy archive, atomically.

    Parameters
    ----------
    path : Path
        The ``.npz`` file.
    columns : ArrayColumns
        Labels and scores.
    tags, clip_ids : sequence of str
        Names of the columns and rows.
    paths, artists : sequence of str
        Of the rows, where they are known.
    thresholds : np.ndarray [shape=(n_tags,)], optional
        Score from which each tag applies; NaN where it has none.
    task : str
        What the scores mean: the name of a task.
    """
    names = {TAGS: tags, CLIP_IDS: clip_ids, PATHS: paths, ARTISTS: artists}
    arrays: dict[str, npt.NDArray[Any]] = {
        LABELS: columns.labels.astype(np.uint8),
        SCORES: columns.scores,
        TASK: np.array(task),
        **{name: np.array(texts, dtype=str) for name, texts in names.items() if len(texts)},
    }
    if thresholds is not None:
        arrays[THRESHOLDS] = thresholds
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
