"""Tags as CSV: a row per tag of a file or of a segment of it."""

from typing import TYPE_CHECKING

from tagger.tagging.records import Record
from tagger.tagging.writers import TextWriter, span

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction

COLUMNS = ("path", "start", "end", "tag", "score", "error")
# The csv module leaves a bare carriage return unquoted, at which readers then break the line; and
# readers that skip comments may take an unquoted number sign for the start of one.
_QUOTED = frozenset(',"\r\n#')


class CsvWriter(TextWriter):
    """Comment lines with the origin, a line of column names, then the rows.

    Times are in seconds. The row of a file that failed has a path and an error alone.
    """

    suffix = ".csv"

    def begin(self) -> None:  # noqa: D102 (the contract documents it)
        comments = [f"# {name}: {value}\n" for name, value in self.header.items().items()]
        self.put("".join(comments) + _line(*COLUMNS))

    def write(  # noqa: D102
        self, record: Record, prediction: "Prediction | None" = None
    ) -> None:
        if record.error is not None:
            self.put(_line(record.path, "", "", "", "", record.error))
            return
        lines = []
        for row in record.rows:
            start, end = span(record, row)
            lines.append(
                _line(record.path, f"{start:.6f}", f"{end:.6f}", row.label, f"{row.score:.6f}", "")
            )
        self.put("".join(lines))


def _line(*fields: str) -> str:
    return ",".join(map(_field, fields)) + "\n"


def _field(text: str) -> str:
    if _QUOTED.isdisjoint(text):
        return text
    return '"' + text.replace('"', '""') + '"'


ENTRY = CsvWriter
