"""Texts, made fit to be shown."""

import textwrap

# A terminal's.
LINE_WIDTH = 80


def drawable(name: str) -> str:
    """Escape the bytes of a file name that is no Unicode, which fonts refuse."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def folded(line: str) -> list[str]:
    """Lines of a long line, none longer than a terminal's; all but the first are indented."""
    # Paths and names are not broken.
    lines = textwrap.wrap(
        line, LINE_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return lines or [""]
