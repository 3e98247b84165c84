"""Tables of values that were computed already: a row for each clip, or for each segment of one."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from preprocess.clips.datasets import DATASETS, Dataset, read_table
from preprocess.clips.gtzan_clips import artist_of
from preprocess.clips.index import ClipIndex, ClipRecord, refuse_repeats
from tagger.base.addresses import is_remote
from tagger.base.errors import ConfigError
from tagger.base.registry import Params
from tagger.untrusted.npz import read_arrays

if TYPE_CHECKING:
    import pandas as pd

_MOST_BYTES = 1 << 32
_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "?"})
_PARTS = frozenset({"", "train", "validation", "test"})


class FeatureTableParams(Params):
    """Which files, and what their columns (of a .npz file: its arrays) are."""

    files: Annotated[
        tuple[str, ...],
        Field(min_length=1, description=".csv or .npz below data.root, one after the other"),
    ]
    group: Annotated[
        str,
        Field(
            description="regular expression that finds the clip in a file name, by its first "
            "group; rows of one clip are never parted"
        ),
    ]
    name: Annotated[str, Field(description="column of the file names")] = "filename"
    label: Annotated[str, Field(description="column of the labels")] = "label"
    label_names: Annotated[
        tuple[str, ...], Field(description="names of labels that are numbers from 0")
    ] = ()
    part: Annotated[str, Field(description="column for the split 'column'; optional")] = ""
    columns: Annotated[
        tuple[str, ...], Field(description="columns of values, in this order; none: all others")
    ] = ()
    ignore: Annotated[tuple[str, ...], Field(description="columns that are no values")] = (
        "length",
    )
    array: Annotated[str, Field(description="of a .npz file: the array of values")] = "X"
    artists: Annotated[
        Literal["", "gtzan"],
        Field(description="take artists from what is known of the clips of this data set"),
    ] = ""

    @field_validator("group")
    @classmethod
    def _is_a_pattern(cls, group: str) -> str:
        try:
            re.compile(group)
        except re.error as error:
            raise ValueError(f"{group!r} is no regular expression ({error})") from None
        return group


@dataclass(frozen=True)
class FeatureValues:
    """Rows of a table.

    Parameters
    ----------
    index : ClipIndex
        A clip for each row; the track of a row is the clip that it is (part) of.
    columns : tuple of str
        Names of the values.
    values : np.ndarray [shape=(n_rows, n_columns), dtype=float32]
        In the order of the index; finite.
    """

    index: ClipIndex
    columns: tuple[str, ...]
    values: npt.NDArray[np.float32]


def feature_values(root: Path, params: dict[str, Any]) -> FeatureValues:
    """Read index and values of a table at once.

    Parameters
    ----------
    root : Path
        As of `Dataset.index`.
    params : dict
        Parameters of the data set ``feature_table``.

    Raises
    ------
    ConfigError
        If a file is missing, or a column, a label or a value is.
    """
    return FeatureTable(DATASETS.params("feature_table", params)).read(root)


@dataclass(frozen=True)
class _Table:
    """Content of one file, a text or a row of values for each of its rows."""

    path: Path
    names: list[str]
    labels: list[str]
    parts: list[str]
    columns: tuple[str, ...]
    values: npt.NDArray[np.float32]


class FeatureTable(Dataset):
    """Rows of values in place of audio: there is nothing to preprocess."""

    Params = FeatureTableParams
    params: FeatureTableParams

    def index(self, root: Path) -> ClipIndex:  # noqa: D102 (the contract documents it)
        return self.read(root).index

    def read(self, root: Path) -> FeatureValues:
        """Index and values; see `feature_values`."""
        tables = [
            _of_npz(root / file, self.params)
            if file.lower().endswith(".npz")
            else _of_csv(root / file, self.params)
            for file in self.params.files
        ]
        columns = tables[0].columns
        values = [_ordered(table, columns, like=tables[0].path) for table in tables]
        source = ", ".join(str(table.path) for table in tables)
        labels = [label for table in tables for label in table.labels]
        clips = [clip for table in tables for clip in self._clips(table)]
        tags, matrix = _matrix(labels, self.params.label_names, source)
        _refuse_two_labels(clips, labels, source)
        index = ClipIndex(tags, clips, matrix, source, segments=True)
        return FeatureValues(index, columns, np.concatenate(values))

    def _clips(self, table: _Table) -> list[ClipRecord]:
        clips = []
        for name, part in zip(table.names, table.parts, strict=True):
            match = re.search(self.params.group, name)
            track = (match[1] if match.re.groups else match[0]) if match else ""
            if not track:
                raise ConfigError(
                    f"{table.path}: data.params.group={self.params.group!r} finds no clip in "
                    f"{name!r}; change the pattern"
                )
            if part not in _PARTS:
                raise ConfigError(
                    f"{table.path}: row {name!r} has the part {part!r}; use train, validation or "
                    "test, or leave it empty"
                )
            artist = artist_of(name) if self.params.artists else ""
            clips.append(ClipRecord(name, name, artist=artist, track=track, part=part))
        return clips


def _of_csv(path: Path, params: FeatureTableParams) -> _Table:
    remedy = "set data.params.name, label and part to columns that it has"
    own = [params.name, params.label, *([params.part] if params.part else [])]
    frame = read_table(path, separator=",", required=own, remedy=remedy)
    names, labels = frame[params.name].tolist(), frame[params.label].tolist()
    for what, texts in (("file name", names), ("label", labels)):
        if "" in texts:
            row = texts.index("")
            named = repr(names[row] or row + 1)
            raise ConfigError(f"{path}: row {named} has no {what}; fill it, or remove the row")
    columns = _columns(path, [str(name) for name in frame.columns], own=own, params=params)
    return _Table(
        path,
        names,
        labels,
        frame[params.part].tolist() if params.part else [""] * len(names),
        columns,
        _numbers(path, frame, columns, names),
    )


def _columns(
    path: Path, there: Sequence[str], *, own: Sequence[str], params: FeatureTableParams
) -> tuple[str, ...]:
    """Names of the columns of values."""
    refuse_repeats(params.columns, "columns", "data.params.columns")
    # That of lengths need not be there: it is left out unless somebody asks for it.
    ignored = set(params.ignore) - {"length"}
    unknown = [name for name in (*params.columns, *ignored) if name not in there]
    if unknown:
        raise ConfigError(
            f"{path}: has no column {unknown[0]!r}; it has {', '.join(there[:5])}, ...; check "
            "data.params.columns and ignore"
        )
    told = [name for name in params.columns if name in own]
    if told:
        raise ConfigError(
            f"{path}: column {told[0]!r} says which row it is, not how it sounds; remove it from "
            "data.params.columns"
        )
    found = params.columns or tuple(n for n in there if n not in (*own, *params.ignore))
    if not found:
        raise ConfigError(f"{path}: has no columns of values; check data.params.ignore")
    if "" in found:
        raise ConfigError(
            f"{path}: column {there.index('') + 1} has no name and may number the rows; name it, "
            "or add '' to data.params.ignore"
        )
    return found


def _numbers(
    path: Path, frame: "pd.DataFrame", columns: Sequence[str], names: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Values [shape=(n_rows, n_columns)]."""
    import pandas as pd

    values = np.empty((len(frame), len(columns)), dtype=np.float32)
    for number, column in enumerate(columns):
        parsed = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
        with np.errstate(over="ignore"):
            values[:, number] = parsed
        wrong = np.flatnonzero(~np.isfinite(values[:, number]))
        if not len(wrong):
            continue
        text = str(frame[column][wrong[0]])
        more = f", and so in {len(wrong) - 1} more rows" if len(wrong) > 1 else ""
        where = f"{path}: column {column!r} of row {names[wrong[0]]!r}"
        if text.strip().lower() in _MISSING:
            raise ConfigError(
                f"{where} has no value{more}; fill it, remove the row, or add the column to "
                "data.params.ignore"
            )
        raise ConfigError(
            f"{where} holds {text[:40]!r}, which is no finite number{more}; correct it, or add the "
            "column to data.params.ignore if it holds no values"
        )
    return values


def _of_npz(path: Path, params: FeatureTableParams) -> _Table:
    if is_remote(path):
        raise ConfigError(f"{path}: a .npz file is read on this machine alone; copy it here")
    try:
        arrays = read_arrays(path, most_bytes=_MOST_BYTES)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; set data.root to the folder that has it"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a .npz file") from None
    own = [params.name, params.label, *([params.part] if params.part else [])]
    missing = [name for name in (*own, params.array) if name not in arrays]
    if missing:
        raise ConfigError(
            f"{path}: has no array {missing[0]!r}; it has {', '.join(sorted(arrays))}; set "
            "data.params.name, label and array to those of file names, labels and values"
        )
    values = arrays[params.array]
    texts = [[str(value) for value in np.atleast_1d(arrays[name]).tolist()] for name in own]
    lengths = {len(values) if values.ndim == 2 else -1, *map(len, texts)}
    if values.dtype.kind not in "biuf" or len(lengths) > 1:
        raise ConfigError(
            f"{path}: {params.array} is {values.dtype}{list(values.shape)}; data.params.array "
            f"is to name numbers in as many rows as there are names ({len(texts[0])}), and columns"
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        raise ConfigError(
            f"{path}: column {column} of row {texts[0][row]!r} holds {values[row, column]}; "
            "remove the row, or compute it again"
        )
    parts = texts[2] if params.part else [""] * len(values)
    there = [f"{params.array}_{number}" for number in range(values.shape[1])]
    columns = _columns(path, there, own=(), params=params)
    places = [there.index(name) for name in columns]
    return _Table(path, _numbered(texts[0]), texts[1], parts, columns, values[:, places])


def _numbered(names: Sequence[str]) -> list[str]:
    """Names that are told apart: windows of one clip have its name in a .npz file."""
    times = Counter(names)
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        found.append(f"{name}#{seen[name]}" if times[name] > 1 else name)
        seen[name] += 1
    return found


def _ordered(table: _Table, columns: tuple[str, ...], *, like: Path) -> npt.NDArray[np.float32]:
    """Values with columns in the order of another table."""
    if table.columns == columns:
        return table.values
    unlike = sorted(set(table.columns) ^ set(columns))
    if unlike:
        raise ConfigError(
            f"{table.path}: {like} and this file do not both have the column {unlike[0]!r}; name "
            "those that both have in data.params.columns"
        )
    return table.values[:, [table.columns.index(name) for name in columns]]


def _matrix(
    labels: Sequence[str], names: tuple[str, ...], source: str
) -> tuple[tuple[str, ...], npt.NDArray[np.uint8]]:
    """Names of the labels, and 1 where a row carries one [shape=(n_rows, n_labels)]."""
    if names:
        known = {str(number): name for number, name in enumerate(names)}
        unknown = sorted(set(labels) - set(known))
        if unknown:
            raise ConfigError(
                f"{source}: has the label {unknown[0]!r}, and data.params.label_names names 0 to "
                f"{len(names) - 1}; give a name for each"
            )
        labels = [known[label] for label in labels]
    tags = names or tuple(sorted(set(labels)))
    place = {tag: number for number, tag in enumerate(tags)}
    matrix = np.zeros((len(labels), len(tags)), dtype=np.uint8)
    matrix[np.arange(len(labels)), [place[label] for label in labels]] = 1
    return tags, matrix


def _refuse_two_labels(clips: Sequence[ClipRecord], labels: Sequence[str], source: str) -> None:
    label_of: dict[str, str] = {}
    for clip, label in zip(clips, labels, strict=True):
        if label_of.setdefault(clip.track, label) != label:
            raise ConfigError(
                f"{source}: rows of the clip {clip.track!r} have the labels "
                f"{label_of[clip.track]!r} and {label!r}; correct them, or data.params.group"
            )


ENTRY = FeatureTable
