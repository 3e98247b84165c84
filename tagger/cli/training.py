"""Verbs that train networks, or fit clip heads to what pretrained ones say."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagger.base.errors import ConfigError
from tagger.base.log import libraries_silenced
from tagger.cli.app import (
    EXIT_SOME_FAILED,
    ConfigOption,
    SetOption,
    config_of,
    finite,
    unused,
    verb,
)
from tagger.cli.shape import EXIT_INTERRUPTED, choices, completed, models
from tagger.cloud.locations import require_local

if TYPE_CHECKING:
    from tagger.config import Config

# Groups of options in the help pages.
MUSIC_GROUP, NETWORK_GROUP = "With MUSIC", "Training a network"
_HEADS = (
    "linear",
    "logistic_regression",
    "linear_svm",
    "rbf_svm",
    "nearest_neighbours",
    "gradient_boosting",
    "xgboost",
    "random_forest",
)


MusicArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[MUSIC]",
        help="Your clips: a folder of folders named by label, or a CSV file of path,tags. A "
        "clip head is fitted to what a pretrained model says of them, in a minute.",
    ),
]
RunOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="RUN", help="The run.", rich_help_panel=MUSIC_GROUP),
]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="MODEL",
        help="Pretrained model, bundle or run.",
        rich_help_panel=MUSIC_GROUP,
        autocompletion=completed(models),
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="single_label or multilabel; default by the labels of the clips.",
        rich_help_panel=MUSIC_GROUP,
        autocompletion=choices("single_label", "multilabel"),
    ),
]
HeadOption = Annotated[
    str | None,
    typer.Option(
        "--head",
        metavar="NAME",
        help=f"linear (default), or a classifier: {', '.join(_HEADS[1:])}.",
        rich_help_panel=MUSIC_GROUP,
        autocompletion=choices(*_HEADS),
    ),
]
MiddleOption = Annotated[
    float | None,
    typer.Option(
        "--window-middle",
        metavar="SECONDS",
        min=0.01,
        help="Only so much of the middle of each clip.",
        rich_help_panel=MUSIC_GROUP,
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the run in run.root if there is one.",
        rich_help_panel=NETWORK_GROUP,
    ),
]
ProfileOption = Annotated[
    bool,
    typer.Option(
        "--profile-input",
        help="Say how long training waits for data.",
        rich_help_panel=NETWORK_GROUP,
    ),
]


@verb(
    "train",
    short="Learn your own labels, or train a network.",
    examples_=(
        "tagger train my_music --output runs/mine",
        "tagger train --config magnatagatune --set data.root=FOLDER --resume",
    ),
)
def train(
    music: MusicArgument = None,
    output: RunOption = None,
    on: OnOption = None,
    task: TaskOption = None,
    head: HeadOption = None,
    middle: MiddleOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    resume: ResumeOption = False,
    profile_input: ProfileOption = False,
) -> None:
    """Learn your labels: from a folder of music in a minute, or a network from a patch store."""
    finite("--window-middle", middle)
    chosen = _head_settings(head)
    if middle is not None:
        chosen.append(f"fit.middle_seconds={middle}")
    settings = config_of(config, [*chosen, *(set_ or [])])
    if music is not None:
        if output is None:
            raise ConfigError(f"train {music} needs --output RUN, the folder of the run; give it")
        settings = _of_music(settings, music, output=output, on=on, task=task)
    else:
        names = ("--output", "--on", "--task", "--head", "--window-middle")
        values = (output, on, task, head, middle)
        unused("a config (use --set)", dict(zip(names, values, strict=True)))
    if settings.fit is not None:
        unused("a fit, which takes seconds", {"--resume": resume, "--profile-input": profile_input})
        _fit(settings)
        return

    from tagger.train.loop import train as run_train

    result = run_train(settings, resume=resume, profile_input=profile_input)
    if not result.finished:
        raise typer.Exit(EXIT_INTERRUPTED)
    print(f"{result.run}: {len(result.history)} epochs, best epoch {result.best_epoch}")


def _head_settings(head: str | None) -> list[str]:
    """Say what ``--head`` says, as ``--set`` would."""
    if head is None:
        return []
    from tagger.fit.music import head_of

    return [f"{key}={value}" for key, value in head_of(head).items()]


def _of_music(
    settings: "Config", music: Path, *, output: Path, on: str | None, task: str | None
) -> "Config":
    """Config of the labels in a folder or a CSV file."""
    from tagger.config import with_overrides
    from tagger.fit.music import data_of, task_of

    values = data_of(music)
    values |= {"run.root": str(output), "fit.model": on or _fit_model(settings)}
    settings = with_overrides(settings, values)
    name = task or task_of(settings)
    return with_overrides(settings, {"task.name": name})


def _fit_model(settings: "Config") -> str:
    from tagger.config import FitConfig

    return (settings.fit or FitConfig()).model


def _fit(settings: "Config") -> None:
    from tagger.fit.fit_run import fit_run

    with libraries_silenced():
        result = fit_run(settings)
    print(result.evaluation.table())
    for kind, path in result.evaluation.files.items():
        print(f"{kind}: {path}")
    print()
    for line in result.verdict:
        print(line)
    if result.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


@verb(
    "search",
    short="Try settings within a space, with Optuna.",
    examples_=("tagger search --config mine.yaml --space space.yaml --output runs/search",),
)
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
