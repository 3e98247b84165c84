"""The programme itself, and what its verbs share. Heavy imports happen inside the verbs."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tagger.base.errors import ConfigError
from tagger.base.log import LOG_FORMAT_VARIABLE, set_log_format
from tagger.base.suggest import did_you_mean

if TYPE_CHECKING:
    from tagger.config import Config


EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
QUANTIZATIONS = ("none", "dynamic", "float16")

app = typer.Typer(
    name="tagger",
    help="Tag music: train a tagger on your own labels, tag any audio.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    log_format: Annotated[
        str,
        typer.Option(
            "--log-format",
            envvar=LOG_FORMAT_VARIABLE,
            help="What is said on stderr: text, or json with an object per line. With any verb.",
        ),
    ] = "text",
) -> None:
    set_log_format(log_format)


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="YAML config, or a shipped one's name; see 'config show'."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key, e.g. train.epochs=5. Repeatable."
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
