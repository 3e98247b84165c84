"""Tags as a table for people."""

from typing import TYPE_CHECKING

from tagger.tagging.records import Record
from tagger.tagging.writers import TextWriter

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction

_BAR_CELLS = 20
# Characters that move the cursor or change the colours of a terminal.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


class TableWriter(TextWriter):
    """A line with the file's name, then a line per tag: times of a segment, score, bar, name."""

    suffix = ".txt"

    def write(  # noqa: D102 (the contract documents it)
        self, record: Record, prediction: "Prediction | None" = None
    ) -> None:
        path = _visible(record.path)
        if record.error is not None:
            self.put(f"{path} (failed)\n  {_visible(record.error)}\n")
            return
        padded = ", padded" if record.padded else ""
        lines = [f"{path} ({record.seconds:.1f} s{padded})"]
        if not record.rows:
            lines.append("  no tag reaches the threshold")
        times = [
            "" if row.start is None or row.end is None else f"{clock(row.start)}-{clock(row.end)} "
            for row in record.rows
        ]
        width = max(map(len, times), default=0)
        for row, time in zip(record.rows, times, strict=True):
            bar = "#" * round(row.score * _BAR_CELLS)
            tag = _visible(row.label)
            lines.append(f"  {time:>{width}}{row.score:.3f} {bar:<{_BAR_CELLS}} {tag}")
        self.put("\n".join(lines) + "\n")


def clock(seconds: float) -> str:
    """Write a time as ``m:ss.d``, or ``h:mm:ss.d`` from an hour on."""
    minutes, tenths = divmod(round(10 * seconds), 600)
    hours, minutes = divmod(minutes, 60)
    minutes_text = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{minutes_text}:{tenths // 10:02d}.{tenths % 10}"


def _visible(text: str) -> str:
    return text.translate(_CONTROL)


ENTRY = TableWriter
