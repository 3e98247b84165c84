"""Verbs that train networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagger.base.errors import ConfigError
from tagger.cli.app import (
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    ConfigOption,
    SetOption,
    app,
    config_of,
)
from tagger.cloud.locations import require_local

if TYPE_CHECKING:
    pass


@app.command()
def train(
    config: ConfigOption = None,
    set_: SetOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in run.root if there is one.")
    ] = False,
    profile_input: Annotated[
        bool, typer.Option("--profile-input", help="Say how long training waits for data.")
    ] = False,
) -> None:
    """Train a tagger on a patch store."""
    settings = config_of(config, set_)

    from tagger.train.loop import train as run_train

    result = run_train(settings, resume=resume, profile_input=profile_input)
    if not result.finished:
        raise typer.Exit(EXIT_INTERRUPTED)
    print(f"{result.run}: {len(result.history)} epochs, best epoch {result.best_epoch}")


@app.command()
def search(
    config: ConfigOption = None,
    set_: SetOption = None,
    space: Annotated[
        Path | None,
        typer.Option("--space", metavar="FILE", help="YAML: key -> list, or low and high."),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trials in all.")] = 20,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="What is kept, and goes on from."),
    ] = None,
) -> None:
    """Try settings of a config within a space, with Optuna; go on where it stopped."""
    if space is None or output is None:
        raise ConfigError("search needs --space FILE and --output FOLDER; give both")
    require_local(output, "--output")
    settings = config_of(config, set_)

    from tagger.train.search import search as run_search

    result = run_search(settings, space, folder=output, n_trials=trials)
    print(result.table())
    if not result.finished:
        raise typer.Exit(EXIT_INTERRUPTED)
    if result.n_failed:
        raise typer.Exit(EXIT_SOME_FAILED)
