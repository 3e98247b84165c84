"""Tags as a table for people."""

import math
import os
from typing import TYPE_CHECKING

from tagger.tagging.records import Record
from tagger.tagging.writers import TextWriter

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction

_BAR_CELLS = 20
# Characters that move the cursor or change the colours of a terminal.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
# Colours of a terminal; the same blue and orange as in pictures, as far as it has them.
_BLUE, _ORANGE, _BOLD, _PLAIN = "\x1b[34m", "\x1b[33m", "\x1b[1m", "\x1b[0m"


class TableWriter(TextWriter):
    """A line with the file's name, then a line per tag: times of a segment, score, bar, name.

    The bar has a mark at the score from which the tag applies, where the model has one; on a
    terminal there are colours, and tags that apply are bold.
    """

    suffix = ".txt"

    def begin(self) -> None:  # noqa: D102 (the contract documents it)
        # https://no-color.org
        on_terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = on_terminal and not os.environ.get("NO_COLOR")

    def write(  # noqa: D102
        self, record: Record, prediction: "Prediction | None" = None
    ) -> None:
        path = _visible(record.path)
        if record.error is not None:
            self.put(f"{path} (failed)\n  {_visible(record.error)}\n")
            return
        padded = ", padded" if record.padded else ""
        missing = f", {100 * record.missing:.0f} % missing" if record.missing else ""
        lines = [f"{self._in(_BOLD, path)} ({record.seconds:.1f} s{padded}{missing})"]
        if not record.rows:
            lines.append("  no tag reaches the threshold")
        times = [
            "" if row.start is None or row.end is None else f"{clock(row.start)}-{clock(row.end)} "
            for row in record.rows
        ]
        width = max(map(len, times), default=0)
        limits = {} if prediction is None else _limits(prediction)
        for row, time in zip(record.rows, times, strict=True):
            limit = limits.get(row.label)
            tag = _visible(row.label)
            if limit is not None and row.score >= limit:
                tag = self._in(_BOLD, tag)
            lines.append(f"  {time:>{width}}{row.score:.3f} {self._bar(row.score, limit)} {tag}")
        self.put("\n".join(lines) + "\n")

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours else text

    def _bar(self, score: float, limit: float | None) -> str:
        """Cells of a bar, with a mark at a limit."""
        full = round(score * _BAR_CELLS)
        block = "█" if self._colours else "#"
        cells = [block] * full + [" "] * (_BAR_CELLS - full)
        if limit is None:
            return self._in(_BLUE, "".join(cells))
        mark = min(int(limit * _BAR_CELLS), _BAR_CELLS - 1)
        before, behind = "".join(cells[:mark]), "".join(cells[mark + 1 :])
        return f"{self._in(_BLUE, before)}{self._in(_ORANGE, '|')}{self._in(_BLUE, behind)}"


def _limits(prediction: "Prediction") -> dict[str, float]:
    """Score from which each tag applies, of those that have one."""
    if prediction.thresholds is None:
        return {}
    known = zip(prediction.tags, prediction.thresholds.tolist(), strict=True)
    return {tag: limit for tag, limit in known if not math.isnan(limit)}


def clock(seconds: float) -> str:
    """Write a time as ``m:ss.d``, or ``h:mm:ss.d`` from an hour on."""
    minutes, tenths = divmod(round(10 * seconds), 600)
    hours, minutes = divmod(minutes, 60)
    minutes_text = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{minutes_text}:{tenths // 10:02d}.{tenths % 10}"


def _visible(text: str) -> str:
    return text.translate(_CONTROL)


ENTRY = TableWriter
