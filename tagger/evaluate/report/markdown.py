"""A report as Markdown; pictures and sound are files beside it."""

import re
from collections.abc import Iterator

from tagger.base.blocks import (
    Block,
    Cell,
    Code,
    Heading,
    Listing,
    Number,
    Paragraph,
    Picture,
    Player,
    Report,
    Table,
    Taggram,
    Verdict,
)
from tagger.base.text import drawable

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
# What only at the start of a line is more than text.
_START = re.compile(r"^(\s*)([-+#=]|\d+(?=[.)]))")


def _text(value: str) -> str:
    line = " ".join(drawable(value).replace("\0", "\ufffd").split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line)


def _line(value: str) -> str:
    def escape(found: re.Match[str]) -> str:
        mark = found[2]
        return f"{found[1]}{mark}\\" if mark.isdigit() else f"{found[1]}\\{mark}"

    return _START.sub(escape, _text(value))


def markdown_report(report: Report, folder: str) -> str:
    """Write a report as Markdown.

    Parameters
    ----------
    report : Report
        Any text in it is shown as text.
    folder : str
        Of the pictures and sounds, relative to the file.

    Returns
    -------
    str
        A whole file, UTF-8.
    """
    parts = [f"# {_text(report.title)}"]
    for section in report.sections:
        parts.append(f"## {_text(section.title)}")
        parts += [part for block in section.blocks for part in _block(block, folder)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, folder: str) -> Iterator[str]:
    match block:
        case Heading(text):
            yield f"### {_text(text)}"
        case Paragraph(text, alarm):
            yield f"**{_line(text)}**" if alarm else _line(text)
        case Verdict(text):
            yield f"> {_line(text)}"
        case Listing(items):
            yield "\n".join(f"- {_line(item)}" for item in items)
        case Code(text):
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            yield f"{fence}\n{drawable(text)}\n{fence}"
        case Table(header, rows):
            numeric = [any(isinstance(row[i], Number) for row in rows) for i in range(len(header))]
            yield "\n".join(
                [
                    _row([_text(title) for title in header]),
                    _row(["---:" if number else "---" for number in numeric]),
                    *(_row([_cell(cell) for cell in row]) for row in rows),
                ]
            )
        case Taggram(_, rows):
            header = [_row(["tag", "score", "over time"]), _row(["---", "---:", "---"])]
            yield "\n".join([*header, *(_row([_text(cell) for cell in row]) for row in rows)])
        case Picture(name, _, alt):
            yield f"![{_text(alt)}]({folder}/{name}.png)"
        case Player(name, _, suffix, label):
            yield f"[{_text(label)}]({folder}/{name}{suffix})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return _text(cell)
    return _text(f"{cell.text} ({cell.note})" if cell.note else cell.text)
