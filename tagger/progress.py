"""Progress bars and notices on stderr; results alone go to stdout."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int, str], None]


def console() -> Console:
    """Console on the present stderr (asked for at each use, so that it can be redirected)."""
    return Console(file=sys.stderr, highlight=False, emoji=False, soft_wrap=True)


def notice(message: str) -> None:
    """Print one line of information to stderr."""
    console().print(message, markup=False)


def warn(message: str) -> None:
    """Print one line of warning to stderr."""
    console().print(f"warning: {message}", style="yellow", markup=False)


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Advance]:
    """Show a bar of `total` steps; yields ``advance(n_steps, note)``."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console(), transient=False) as progress:
        task = progress.add_task(description, total=total, note="")

        def advance(n_steps: int = 1, note: str = "") -> None:
            if note:
                progress.update(task, advance=n_steps, note=note)
            else:
                progress.update(task, advance=n_steps)

        yield advance
