"""Model cards as blocks: the little Markdown that they are written in, and nothing active."""

import re
from collections.abc import Iterator

from tagger.base.blocks import Block, Code, Heading, Listing, Paragraph, Table

_HEADING = re.compile(r"#{1,6}\s+(.*?)\s*#*\s*$")
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+(.*)$")
_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")
_FENCE = re.compile(r"\s*(```+|~~~+)")
_CELLS = re.compile(r"(?<!\\)\|")


def parse_card(text: str) -> list[Block]:
    """Read headings, paragraphs, lists, tables and fenced code.

    Parameters
    ----------
    text : str
        Markdown. What else it may hold, HTML and links among it, stays the text that it is.

    Returns
    -------
    list of Block
    """
    lines = text.splitlines()
    blocks: list[Block] = []
    row = 0
    while row < len(lines):
        line = lines[row]
        heading = _HEADING.match(line)
        if not line.strip():
            row += 1
        elif heading:
            blocks.append(Heading(heading[1]))
            row += 1
        elif fence := _FENCE.match(line):
            end = row + 1
            while end < len(lines) and not lines[end].strip().startswith(fence[1]):
                end += 1
            blocks.append(Code("\n".join(lines[row + 1 : end])))
            row = end + 1
        elif "|" in line and row + 1 < len(lines) and _is_rule(lines[row + 1]):
            end = row + 2
            while end < len(lines) and "|" in lines[end]:
                end += 1
            header = _cells(line)
            body = [_cells(item) for item in lines[row + 2 : end]]
            # A line with too few or too many cells is no reason to show nothing.
            width = len(header)
            rows = [(cells + [""] * width)[:width] for cells in body]
            blocks.append(Table(header, rows))
            row = end
        elif _ITEM.match(line):
            items = list(_items(lines[row:]))
            blocks.append(Listing(tuple(items)))
            row += len(items)
        else:
            end = row + 1
            while end < len(lines) and lines[end].strip() and not _starts_block(lines[end]):
                end += 1
            blocks.append(Paragraph(" ".join(item.strip() for item in lines[row:end])))
            row = end
    return blocks


def _is_rule(line: str) -> bool:
    return "-" in line and _RULE.match(line) is not None


def _starts_block(line: str) -> bool:
    return any(pattern.match(line) for pattern in (_HEADING, _ITEM, _FENCE))


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return [cell.strip().replace("\\|", "|") for cell in _CELLS.split(inner)]


def _items(lines: list[str]) -> Iterator[str]:
    for line in lines:
        item = _ITEM.match(line)
        if item is None:
            return
        yield item[1]
