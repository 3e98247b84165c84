"""Tags as CSV: a row per tag of a file or of a segment of it."""

from typing import TYPE_CHECKING

from tagger.tagging.records import Record
from tagger.tagging.writers import TextWriter, span

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction

COLUMNS = ("path", "start", "end", "tag", "score", "error")
# Where a row comes from: files are put together, and these stay with it.
ORIGIN = ("model", "version", "time")
# The csv module leaves a bare carriage return unquoted, at which readers then break the line.
_QUOTED = frozenset(',"\r\n')


class CsvWriter(TextWriter):
    """A line of column names, then the rows; model, version and time are columns.

    Times are in seconds. The row of a file that failed has a path and an error alone.
    """

    suffix = ".csv"

    def begin(self) -> None:  # noqa: D102 (the contract documents it)
        known = self.header.items()
        self._origin = [known[name] for name in ORIGIN]
        self.put(_line(*COLUMNS, *ORIGIN))

    def write(  # noqa: D102
        self, record: Record, prediction: "Prediction | None" = None
    ) -> None:
        if record.error is not None:
            self.put(_line(record.path, "", "", "", "", record.error, *self._origin))
            return
        lines = []
        for row in record.rows:
            start, end = span(record, row)
            times, score = (f"{start:.6f}", f"{end:.6f}"), f"{row.score:.6f}"
            lines.append(_line(record.path, *times, row.label, score, "", *self._origin))
        self.put("".join(lines))


def _line(*fields: str) -> str:
    return ",".join(map(_field, fields)) + "\n"


def _field(text: str) -> str:
    if _QUOTED.isdisjoint(text):
        return text
    return '"' + text.replace('"', '""') + '"'


ENTRY = CsvWriter
