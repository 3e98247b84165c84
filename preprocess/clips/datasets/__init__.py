"""Data sets: annotation files -> `ClipIndex`. One module each, found by name."""

import codecs
import io
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from preprocess.clips.index import ClipIndex, refuse_repeats
from tagger.base.addresses import is_remote
from tagger.base.errors import ConfigError
from tagger.base.registry import Entry, Registry

if TYPE_CHECKING:
    import pandas as pd


class Dataset(Entry):
    """Contract of a data set.

    A subclass sits in a module of its own in this package, bound to the name ``ENTRY``.
    """

    @abstractmethod
    def index(self, root: Path) -> ClipIndex:
        """Read the annotations.

        Parameters
        ----------
        root : Path
            Folder that clip paths are relative to, local or at an address; annotation files are
            looked up in it.

        Returns
        -------
        ClipIndex
            Every annotated clip, whether its audio exists or not.

        Raises
        ------
        ConfigError
            If a file is missing or is not what this data set consists of.
        """


# As objects of Python fields take fifty times the space that they take in the file.
_ROWS_AT_ONCE = 1024

DATASETS: Registry[Dataset] = Registry("preprocess.clips.datasets", "data set")


def read_table(path: Path, *, separator: str, required: list[str], remedy: str) -> "pd.DataFrame":
    """Read a CSV file whose fields are all text.

    Parameters
    ----------
    path : Path
        The file; UTF-8, quotes and CRLF as CSV allows them.
    separator : str
        Between two fields.
    required : list of str
        Columns that must be there.
    remedy : str
        What to give instead when they are not.

    Returns
    -------
    pd.DataFrame
        Text columns, empty fields as empty strings.

    Raises
    ------
    ConfigError
        If the file is missing, no CSV, or lacks a required column.
    """
    import pandas as pd

    parts = read_table_in_parts(path, separator=separator, required=required, remedy=remedy)
    return pd.concat(parts, ignore_index=True)


def read_table_in_parts(
    path: Path, *, separator: str, required: list[str], remedy: str, n_header_rows: int = 1
) -> Iterator["pd.DataFrame"]:
    """`read_table` for a file of many fields: a thousand rows at a time, at least one part.

    The name of a column that has several header rows is theirs with dots, e.g. ``set.split``.
    """
    import pandas as pd

    header: list[str] = []
    for part in _parts(path, separator, remedy):
        if not header:
            rows = part.iloc[:n_header_rows].to_numpy(dtype=object)
            header = [".".join(filter(None, names)) for names in rows.T.tolist()]
            _check_header(header, path, required=required, remedy=remedy)
            part = part.iloc[n_header_rows:]
        yield part.reset_index(drop=True).set_axis(pd.Index(header, dtype=object), axis="columns")


def _parts(path: Path, separator: str, remedy: str) -> Iterator["pd.DataFrame"]:
    import pandas as pd

    try:
        # The header is read as a row: of a header pandas would rename a column that occurs twice,
        # and take the first column for row names where the rows have a field more than it.
        with io.BytesIO(path.read_bytes()) if is_remote(path) else path.open("rb") as table:
            yield from pd.read_csv(
                table,
                sep=separator,
                header=None,
                dtype=str,
                keep_default_na=False,
                na_filter=False,
                encoding=_encoding(table),
                chunksize=_ROWS_AT_ONCE,
            )
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; set data.root to the folder that has it"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: is no UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8, which "
            "spreadsheets call 'CSV UTF-8'"
        ) from None
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not readable as a table ({reason}); {remedy}") from None


def _encoding(table: BinaryIO) -> str:
    """UTF-8, or UTF-16 where a byte order mark says so: some spreadsheets write that."""
    mark = table.read(2)
    table.seek(0)
    return "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8"


def _check_header(header: list[str], path: Path, *, required: list[str], remedy: str) -> None:
    refuse_repeats(header, "columns", str(path))
    missing = [column for column in required if column not in header]
    if missing:
        found = ", ".join(repr(column) for column in header[:4])
        raise ConfigError(
            f"{path}: lacks the column{'s' if len(missing) > 1 else ''} "
            f"{', '.join(repr(column) for column in missing)} (its first columns are {found}); "
            f"{remedy}"
        )
