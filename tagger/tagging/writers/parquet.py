"""Tags as Parquet: the columns of the CSV format with their types."""

import contextlib
from typing import TYPE_CHECKING, Any, BinaryIO

from tagger.tagging.records import Record
from tagger.tagging.writers import BinaryWriter, Header, encodable, span

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction

# Rows kept in memory until they are written as one group.
_GROUP_ROWS = 1 << 16


class ParquetWriter(BinaryWriter):
    """A row per tag of a file or of a segment of it; the origin is in the file's metadata.

    Start and end are in seconds. The row of a file that failed has a path and an error alone.
    """

    suffix = ".parquet"

    def __init__(self, file: BinaryIO, header: Header) -> None:
        super().__init__(file, header)
        import pyarrow
        import pyarrow.parquet

        self._schema = pyarrow.schema(
            [
                ("path", pyarrow.string()),
                ("start", pyarrow.float64()),
                ("end", pyarrow.float64()),
                ("tag", pyarrow.string()),
                ("score", pyarrow.float64()),
                ("error", pyarrow.string()),
            ],
            metadata={name: encodable(value) for name, value in header.items().items()},
        )
        self._rows: list[tuple[Any, ...]] = []
        self._parquet = pyarrow.parquet.ParquetWriter(file, self._schema)

    def write(  # noqa: D102 (the contract documents it)
        self, record: Record, prediction: "Prediction | None" = None
    ) -> None:
        path = encodable(record.path)
        if record.error is not None:
            self._rows.append((path, None, None, None, None, encodable(record.error)))
        for row in record.rows:
            start, end = span(record, row)
            times = (round(start, 6), round(end, 6))
            self._rows.append((path, *times, encodable(row.label), round(row.score, 6), None))
        if len(self._rows) >= _GROUP_ROWS:
            self._write_group()

    def _write_group(self) -> None:
        import pyarrow

        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        arrays = [
            pyarrow.array(column, field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        self._parquet.write_table(pyarrow.table(arrays, schema=self._schema))
        self._rows.clear()

    def end(self) -> None:  # noqa: D102
        if self._rows:
            self._write_group()
        self._parquet.close()

    def abandon(self) -> None:  # noqa: D102
        # Else it would try to finish the file when it is collected, which is closed by then. What
        # made the run end may also keep this from working: a full disk.
        with contextlib.suppress(Exception):
            self._parquet.close()


ENTRY = ParquetWriter
