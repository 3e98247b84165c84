"""How commands are found, completed and described; typer does the rest."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from tagger.base.errors import ConfigError
from tagger.base.log import say_error

EXIT_INTERRUPTED = 130
# The verb that a file without one is for.
TAG = "tag"
# In the order in which people meet them.
_ORDER = (
    TAG,
    "embed",
    "models",
    "train",
    "serve",
    "listen",
    "evaluate",
    "compare",
    "study",
    "info",
    "config",
    "cache",
    "export",
    "calibrate",
    "preprocess",
    "search",
    "demo-corpus",
    "fetch-magnatagatune",
)
_CONFIG_OPTION = "--config"
_YAML = (".yaml", ".yml")
_AUDIO = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aiff", ".aif", ".aac", ".wma")


# As typer writes the types of values.
_TYPE = re.compile(r" <([a-z]+)[^>]*>")


def _plain_type(match: re.Match[str]) -> str:
    names = {"int": "NUMBER", "float": "NUMBER", "path": "PATH", "list": "NAME"}
    return f" {names.get(match[1], 'NAME')}"


def examples(*lines: str) -> str:
    """Examples for the end of a help page, a line each."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


class Command(TyperCommand):
    """A command whose options are shown in groups, and that knows a config when it sees one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the name of a YAML file that stands alone for that of ``--config``."""
        args = self._with_config(list(args))
        found: list[str] = super().parse_args(ctx, args)
        return found

    def _with_config(self, args: list[str]) -> list[str]:
        options = {name: param for param in self.params for name in param.opts}
        if _CONFIG_OPTION not in options or _CONFIG_OPTION in args or "--" in args:
            return args
        for place, word in enumerate(args):
            before = options.get(args[place - 1]) if place else None
            takes_value = before is not None and not getattr(before, "is_flag", False)
            if word.endswith(_YAML) and not takes_value and Path(word).is_file():
                print(f"config: {word}", file=sys.stderr)
                return [*args[:place], _CONFIG_OPTION, *args[place:]]
        return args

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options by group; those of no group come last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        last = "Options"
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                name, text = record
                is_argument = param.param_type_name == "argument"
                # Arguments have names of their own; what an option takes is said in plain words.
                name = _TYPE.sub("" if is_argument else _plain_type, name)
                group = getattr(param, "rich_help_panel", None) or last
                sections.setdefault("Arguments" if is_argument else group, []).append((name, text))
        for title in sorted(sections, key=lambda title: (title != "Arguments", title == last)):
            with formatter.section(title):
                formatter.write_dl(sections[title])


class Group(TyperGroup):
    """Verbs in the order in which people meet them; a file without a verb is tagged."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; Ctrl-C ends it with one line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say_error("interrupted")
            raise typer.Exit(EXIT_INTERRUPTED) from None

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the verbs."""
        names = super().list_commands(ctx)
        known = {name: place for place, name in enumerate(_ORDER)}
        return sorted(names, key=lambda name: known.get(name, len(known)))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the verb; a file or folder in its place is for `TAG`."""
        word = args[0]
        if word not in self.commands:
            if word.endswith(_YAML) and Path(word).is_file():
                raise ConfigError(
                    f"{word}: a config needs a verb before it, e.g. tagger train {word}"
                )
            if Path(word).exists() or word.lower().endswith(_AUDIO):
                args = [TAG, *args]
        found: tuple[str | None, Any, list[str]] = super().resolve_command(ctx, args)
        return found


def completed(names: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Complete a value from names that are looked up when somebody asks."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def choices(*names: str) -> Callable[[str], list[str]]:
    """Complete a value from a few names."""
    return completed(lambda: list(names))


def models() -> list[str]:
    """Names that ``--model`` knows: registered models, and runs below this folder."""
    from tagger.bundle.find import known_models

    return known_models()


def configs() -> list[str]:
    """Names of the shipped configs."""
    from tagger.base.shipped import shipped_names

    return [name for name in shipped_names() if not name.startswith(("studies/", "synonyms/"))]


def config_keys() -> list[str]:
    """Keys of ``--set``, each with its equals sign."""
    from tagger.config import Config

    def below(content: dict[str, Any], prefix: str) -> list[str]:
        found = []
        for key, value in content.items():
            nested = isinstance(value, dict) and value
            found += below(value, f"{prefix}{key}.") if nested else [f"{prefix}{key}="]
        return found

    return below(Config().to_dict(), "")


def show_version(wanted: bool) -> None:
    """Print the version, and end."""
    if wanted:
        from tagger.base.version import VERSION

        print(f"tagger {VERSION}")
        raise typer.Exit
