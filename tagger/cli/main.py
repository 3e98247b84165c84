"""The command line: parses and calls."""

import io
import os
import signal
import sys
import threading
from typing import NoReturn

import typer

from tagger.base.errors import TaggerError
from tagger.base.log import LOG_FORMAT_VARIABLE, say_error, set_log_format
from tagger.cli.app import EXIT_USAGE, app
from tagger.cli.shape import EXIT_INTERRUPTED

# isort: off
# The help lists verbs in the order in which they are imported.
from tagger.cli import preparing, training, studies, evaluating, tagging, models, configs, corpora
from tagger.cli import serving
# isort: on

# As shells have it: 128 and the number of the signal.
_EXIT_TERMINATED = 143

VERBS = (preparing, training, studies, evaluating, tagging, models, configs, corpora, serving)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 all fine, 1 some inputs failed, 2 wrong usage.

    Parameters
    ----------
    arguments : list of str, optional
        Put before those of the process, e.g. ``["train"]``.
    """
    _open_closed_streams()
    _end_on_sigterm()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name need not be Unicode; what cannot be encoded is escaped, also within JSON.
        sys.stdout.reconfigure(errors="backslashreplace")
    words = _log_format_first([*(arguments or []), *sys.argv[1:]])
    try:
        if _asks_for_json(words):
            _run_with_events(words)
        app(words, prog_name="tagger")
    except TaggerError as error:
        _fail(str(error))
    except _Terminated:
        say_error("ended by a signal (SIGTERM)")
        sys.exit(_EXIT_TERMINATED)
    except ModuleNotFoundError as error:
        from tagger.base.extras import explain

        missing = explain(error)
        if missing is None:
            raise
        _fail(str(missing))
    except OSError as error:
        # A full disk or a folder without rights, which a traceback would not explain better.
        if error.filename is None:
            _fail(f"{error.strerror or error}; check the disk space")
        _fail(f"{error.filename}: {error.strerror}; check the path, its rights and the disk space")


class _Terminated(BaseException):
    """Somebody has sent SIGTERM: what is half done is cleaned up on the way out."""


def _end_on_sigterm() -> None:
    def end(*_: object) -> NoReturn:
        raise _Terminated

    # Whoever started this may have had it ignored.
    is_ours = threading.current_thread() is threading.main_thread()
    if is_ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


def _open_closed_streams() -> None:
    """Give what a shell has closed, e.g. by ``2>&-``, a place to go to.

    The next file to be opened would take its number, and get what is written to it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _fail(message: str) -> NoReturn:
    line = " ".join(part.strip() for part in message.splitlines())
    say_error(line)
    sys.exit(EXIT_USAGE)


def _asks_for_json(words: list[str]) -> bool:
    """Whether the log is to be JSON, told before click has looked at the command line."""
    option, _, value = words[0].partition("=") if words else ("", "", "")
    if option != "--log-format":
        return os.environ.get(LOG_FORMAT_VARIABLE) == "json"
    return (value or "".join(words[1:2])) == "json"


def _run_with_events(words: list[str]) -> NoReturn:
    """Run the command line; what click would say of wrong usage is an event as well."""
    set_log_format("json")
    try:
        code = app(words, prog_name="tagger", standalone_mode=False)
    except typer.Abort:
        say_error("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        # Click's own errors; typer brings a click of its own or takes the one that is installed.
        explain = getattr(error, "format_message", None)
        if explain is None:
            raise
        say_error(f"{explain()}; see tagger --help")
        sys.exit(EXIT_USAGE)
    sys.exit(code if isinstance(code, int) else 0)


def _log_format_first(arguments: list[str]) -> list[str]:
    """Put ``--log-format`` before the verb: it may stand behind it as well, as all options may."""
    first: list[str] = []
    others: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            others += [argument, *remaining]
        elif argument == "--log-format":
            first += [argument, *[value for value in [next(remaining, None)] if value is not None]]
        elif argument.startswith("--log-format="):
            first.append(argument)
        else:
            others.append(argument)
    return [*first, *others]
