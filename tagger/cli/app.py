"""The programme itself, and what its verbs share. Heavy imports happen inside the verbs."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tagger.base.errors import ConfigError
from tagger.base.log import LOG_FORMAT_VARIABLE, set_log_format
from tagger.base.suggest import did_you_mean
from tagger.cli.shape import (
    Command,
    Group,
    completed,
    config_keys,
    configs,
    examples,
    show_version,
)

if TYPE_CHECKING:
    from tagger.config import Config


EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
# Groups of options in the help pages.
SETTINGS = "Configuration"
QUANTIZATIONS = ("none", "dynamic", "float16")
# What a model may be computed in.
PRECISIONS = (*QUANTIZATIONS, "bfloat16")

app = typer.Typer(
    name="tagger",
    cls=Group,
    help="Tag music: any audio at once, with published models or with your own labels.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def verb(
    name: str,
    *more: str,
    short: str,
    of: typer.Typer | None = None,
    examples_: tuple[str, ...],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a verb.

    Parameters
    ----------
    name : str
        Of the verb.
    *more : str
        Other names that are understood.
    short : str
        What it does, for the list of verbs.
    of : Typer, optional
        Group of verbs; default the programme itself.
    examples_ : tuple of str
        Lines for the end of its help.
    """
    group, epilog = of or app, examples(*examples_)

    def register(function: Callable[..., None]) -> Callable[..., None]:
        for number, given in enumerate((name, *more)):
            group.command(
                name=given, cls=Command, short_help=short, epilog=epilog, hidden=number > 0
            )(function)
        return function

    return register


@app.callback(
    epilog=examples(
        "tagger song.mp3",
        "tagger tag my_music --format csv --output tags.csv",
        "tagger train my_music --output runs/mine",
    )
)
def _options(
    log_format: Annotated[
        str,
        typer.Option(
            "--log-format",
            envvar=LOG_FORMAT_VARIABLE,
            help="What is said on stderr: text, or json with an object per line. With any verb.",
        ),
    ] = "text",
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    del version
    set_log_format(log_format)


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML config, or a shipped one's name; see 'config show'.",
        autocompletion=completed(configs),
        rich_help_panel=SETTINGS,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key, e.g. train.epochs=5. Repeatable.",
        autocompletion=completed(config_keys),
        rich_help_panel=SETTINGS,
    ),
]


def config_of(path: Path | None, overrides: list[str] | None) -> "Config":
    """Config of a file and of what `--set` says."""
    from tagger.config import load_config

    return load_config(path, overrides)


def unused(what: str, options: dict[str, Any]) -> None:
    """Refuse options that would be ignored."""
    for option, value in options.items():
        if value:
            raise ConfigError(f"{option} means nothing for {what}; leave it out")


def differences(advance: Callable[[int], None]) -> Callable[[int], None]:
    """Turn a callback that takes steps into one that takes totals."""
    last = 0

    def on_total(total: int) -> None:
        nonlocal last
        advance(total - last)
        last = total

    return on_total


def finite(option: str, value: float | None) -> None:
    """Refuse infinity and NaN."""
    if value is not None and not math.isfinite(value):
        raise ConfigError(f"{option} {value}: give a number of seconds")


def choice(option: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is none of those that are allowed."""
    if value not in allowed:
        hint = did_you_mean(value, allowed)
        raise ConfigError(f"{option} {value}{hint}: choose one of {', '.join(allowed)}")


def show_lines(lines: Sequence[str]) -> None:
    """Print ``title: text`` lines: as they are for programs; for people folded, titles bold."""
    import sys

    if not sys.stdout.isatty():
        print("\n".join(lines))
        return
    from tagger.base.text import folded

    for line in lines:
        title, colon, text = line.partition(": ")
        first, *others = folded(line)
        if colon and text and os.environ.get("NO_COLOR") is None:
            first = f"\x1b[1m{title}:\x1b[0m{first[len(title) + 1 :]}"
        print("\n".join([first, *others]))
