"""What is said on stderr, a line per event, and progress bars; results alone go to stdout.

As text, or as JSON objects with the names that log collectors read (``time``, ``severity``,
``message``), so that a machine can follow a long training.
"""

import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO

from tagger.base.addresses import without_secrets
from tagger.base.errors import ConfigError

Advance = Callable[[int, str], None]

LOG_FORMATS = ("text", "json")
# In the environment, so that worker processes speak as their parent does.
LOG_FORMAT_VARIABLE = "TAGGER_LOG_FORMAT"
_PROGRESS_SECONDS = 30.0
_YELLOW, _PLAIN = "\x1b[33m", "\x1b[0m"


def set_log_format(name: str) -> None:
    """Choose how this process and those that it starts speak on stderr.

    Parameters
    ----------
    name : str
        ``"text"``, or ``"json"``: one object per line.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    if name not in LOG_FORMATS:
        raise ConfigError(f"--log-format {name}: choose one of {', '.join(LOG_FORMATS)}")
    os.environ[LOG_FORMAT_VARIABLE] = name
    if name == "json":
        # What nobody foresaw is an event as well; its traceback is a value of it.
        sys.excepthook = _log_exception
        warnings.showwarning = _log_warning


def _log_exception(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    import traceback as tracebacks

    text = "".join(tracebacks.format_exception(kind, error, traceback))
    _say("CRITICAL", f"{kind.__name__}: {error}", event="crash", traceback=text)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del file, line
    where = f"{filename}:{lineno}"
    _say("WARNING", str(message), event="warning", category=category.__name__, where=where)


def _as_json() -> bool:
    return os.environ.get(LOG_FORMAT_VARIABLE) == "json"


def _say(severity: str, message: str, *, event: str, **fields: Any) -> None:
    import json
    from datetime import UTC, datetime

    content = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "severity": severity,
        "event": event,
        "message": without_secrets(message.strip()),
        **{name: _value(value) for name, value in fields.items()},
    }
    # In one write: threads and processes share stderr.
    sys.stderr.write(json.dumps(content, default=str) + "\n")
    sys.stderr.flush()


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def notice(message: str, *, event: str = "notice", **fields: Any) -> None:
    """Print one line of information to stderr.

    Parameters
    ----------
    message : str
        What a person reads.
    event : str
        What kind of event it is, for machines.
    **fields
        Its values under names, for machines; null where they are not finite.
    """
    if _as_json():
        _say("INFO", message, event=event, **fields)
    else:
        print(without_secrets(message), file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print one line of warning to stderr, in yellow where it is a terminal."""
    if _as_json():
        _say("WARNING", message, event="warning")
        return
    line = f"warning: {without_secrets(message)}"
    print(f"{_YELLOW}{line}{_PLAIN}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


def failed(message: str) -> None:
    """Print one line to stderr about an input that could not be used; the others go on."""
    if _as_json():
        _say("ERROR", message, event="failed")
    else:
        print(f"failed: {without_secrets(message)}", file=sys.stderr, flush=True)


def say_error(message: str) -> None:
    """Print one line to stderr about what ends the command."""
    if _as_json():
        _say("ERROR", message, event="error")
    else:
        print(f"error: {without_secrets(message)}", file=sys.stderr, flush=True)


def access(method: str, path: str, *, status: int, seconds: float, client: str) -> None:
    """Note a request that was answered, always as JSON."""
    fields = {"method": method, "path": path, "status": status, "client": client}
    message = f"{method} {path} {status}"
    _say("INFO", message, event="request", **fields, ms=round(1000 * seconds, 1))


@contextmanager
def _progress_events(description: str, total: int) -> Iterator[Advance]:
    """Say now and then how far it has come, and at the end."""
    done, last_said = 0, time.monotonic()
    last_note = ""

    def say() -> None:
        note = f" ({last_note})" if last_note else ""
        line = f"{description.strip()}: {done} of {total}{note}"
        _say("INFO", line, event="progress", task=description.strip(), done=done, total=total)

    def advance(n_steps: int = 1, note: str = "") -> None:
        nonlocal done, last_said, last_note
        done, last_note = done + n_steps, note or last_note
        if time.monotonic() - last_said >= _PROGRESS_SECONDS:
            last_said = time.monotonic()
            say()

    yield advance
    say()


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Advance]:
    """Show a bar of `total` steps; yields ``advance(n_steps, note)``.

    Where the log is JSON an event now and then takes its place.
    """
    if _as_json():
        with _progress_events(description, total) as advance:
            yield advance
        return
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


def silence_libraries() -> Callable[[], None]:
    """Keep stderr for Python: decoders of damaged files talk there in their own format.

    Returns
    -------
    callable
        What gives stderr back.
    """
    before = sys.stderr
    try:
        # Not inherited by what the process runs, e.g. ffmpeg.
        descriptor = os.dup(2)
    except OSError:
        return lambda: None
    # Somebody who takes what Python says in a text of their own goes on doing so.
    if before is sys.__stderr__:
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)

    def give_back() -> None:
        sys.stderr.flush()
        os.dup2(descriptor, 2)
        os.close(descriptor)
        sys.stderr = before

    return give_back


@contextmanager
def libraries_silenced() -> Iterator[None]:
    """Do so for as long as a block runs."""
    give_back = silence_libraries()
    try:
        yield
    finally:
        give_back()
