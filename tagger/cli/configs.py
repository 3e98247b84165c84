"""Verbs that show configs, and write one to start from."""

import re
from pathlib import Path
from typing import Annotated

import typer

from tagger.base.errors import ConfigError
from tagger.base.suggest import did_you_mean
from tagger.cli.app import ConfigOption, SetOption, app, config_of, verb

config_app = typer.Typer(name="config", help="Show configs, and write one to start from.")
app.add_typer(config_app)


@verb(
    "show",
    short="Print every key, or a config.",
    of=config_app,
    examples_=(
        "tagger config show",
        "tagger config show --config magnatagatune --set train.epochs=5",
    ),
)
def show(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Print every key: with what it means, or with its value in a config."""
    if config is None and not set_:
        from tagger.base.shipped import shipped_folder

        print((shipped_folder() / "base.yaml").read_text(encoding="utf-8"), end="")
        return
    print(config_of(config, set_).to_yaml(), end="")


@verb(
    "list",
    short="List what comes with the programme.",
    of=config_app,
    examples_=("tagger config list",),
)
def list_() -> None:
    """List the configs, studies and synonyms that come with the programme."""
    from itertools import takewhile

    from tagger.base.shipped import shipped_folder, shipped_names

    for name in shipped_names():
        lines = (shipped_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        comment = " ".join(line[1:].strip() for line in takewhile(_is_comment, lines))
        print(f"{name}: {comment.partition('. ')[0].removesuffix('.')}.")


def _is_comment(line: str) -> bool:
    return line.startswith("#")


@verb(
    "new",
    short="Write a config file to start from.",
    of=config_app,
    examples_=(
        "tagger config new mine.yaml",
        "tagger config new mine.yaml --from magnatagatune",
    ),
)
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Is not there yet.")],
    start: Annotated[
        str, typer.Option("--from", metavar="NAME", help="Of 'config list'.")
    ] = "base",
) -> None:
    """Write a config file to start from."""
    from tagger.base.files import write_text
    from tagger.base.shipped import shipped_folder, shipped_names

    names = shipped_names()
    if start not in names:
        hint = did_you_mean(start, names)
        raise ConfigError(f"--from {start}: no such config{hint}; see: tagger config list")
    if file.exists():
        raise ConfigError(f"{file}: is there already; name a new file")
    text = (shipped_folder() / f"{start}.yaml").read_text(encoding="utf-8")
    # What it extends lies beside it there, and is found by its whole name from anywhere.
    beside = f"{start.rpartition('/')[0]}/" if "/" in start else ""
    write_text(file, re.sub("^extends: ", f"extends: {beside}", text, flags=re.MULTILINE))
    print(f"{file}: a copy of {start}; use it with: tagger train --config {file}")
