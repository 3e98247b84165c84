"""Progress bars and notices on stderr; results alone go to stdout."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, str], None]

_YELLOW, _PLAIN = "\x1b[33m", "\x1b[0m"


def notice(message: str) -> None:
    """Print one line of information to stderr."""
    print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print one line of warning to stderr, in yellow where it is a terminal."""
    line = f"warning: {message}"
    print(f"{_YELLOW}{line}{_PLAIN}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Advance]:
    """Show a bar of `total` steps; yields ``advance(n_steps, note)``."""
    # Half of the time that a small command takes: imported only for work that is long.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # Asked for at each use, so that stderr can be redirected.
    console = Console(file=sys.stderr, highlight=False, emoji=False, soft_wrap=True)
    with Progress(*columns, console=console, transient=False) as progress:
        task = progress.add_task(description, total=total, note="")

        def advance(n_steps: int = 1, note: str = "") -> None:
            if note:
                progress.update(task, advance=n_steps, note=note)
            else:
                progress.update(task, advance=n_steps)

        yield advance
