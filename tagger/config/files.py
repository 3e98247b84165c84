"""YAML files and overrides -> `Config`.

A config file holds what differs from the defaults, or from the file that its key ``extends`` names.
"""

import math
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tagger.base.addresses import is_remote
from tagger.base.errors import ConfigError
from tagger.base.nested import merged
from tagger.base.registry import describe_validation_error
from tagger.base.shipped import given_or_shipped, shipped_names
from tagger.base.suggest import did_you_mean
from tagger.cloud.locations import location
from tagger.config.sections import Config
from tagger.untrusted import yaml as safe_yaml

_MAX_EXTENDS = 10


def _read_yaml(path: Path, depth: int = 0) -> list[dict[str, Any]]:
    """Contents of a config file and of those that it extends, the farthest first."""
    if depth > _MAX_EXTENDS:
        raise ConfigError(f"{path}: 'extends' goes in a circle; break it")
    path = location(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = did_you_mean(path.stem, shipped_names())
        raise ConfigError(f"{path}: no such config file{hint}; check --config") from None
    except (OSError, ValueError) as error:
        # A ValueError: what is no UTF-8, or a name that no file can have.
        raise ConfigError(f"{path}: cannot be read ({error}); check --config") from None
    try:
        content = safe_yaml.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not valid YAML ({error}); fix it") from None
    if content is None:
        return []
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: a config file holds 'section: ...' lines; see: tagger config show"
        )
    parent = content.pop("extends", None)
    if parent is None:
        return [content]
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends: give the name of one config file")
    own = path.parent / parent
    found = own if is_remote(own) or own.exists() else given_or_shipped(Path(parent))
    if found == Path(parent):
        # Neither here nor shipped: named as it would lie here.
        found = own
    return [*_read_yaml(found, depth + 1), content]


def override(text: str) -> tuple[str, Any]:
    """Turn ``section.key=value`` into dotted key and value; the value is read as YAML.

    Raises
    ------
    ConfigError
        If it is not written so.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {text}: write it as section.key=value, e.g. train.epochs=5")
    try:
        found = safe_yaml.loads(value)
    except ValueError:
        raise ConfigError(f"--set {text}: the value is not valid YAML; quote it") from None
    return key, _number_or_text(found) if isinstance(found, str) else found


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _number_or_text(text: str) -> Any:
    # YAML 1.1 reads 1e-4 (without a dot) as a text; nobody who writes it means one.
    try:
        number = float(text)
    except ValueError:
        return text
    # A folder may be called nan.
    return number if math.isfinite(number) else text


def with_overrides(config: Config, values: dict[str, Any]) -> Config:
    """Config with other values of some keys.

    Parameters
    ----------
    config : Config
        What all others are taken from.
    values : dict of str to value
        By dotted key, e.g. ``{"train.epochs": 5}``. Names of entries and splits count first: with
        another name the entry's own parameters are the defaults.

    Raises
    ------
    ConfigError
        If a key is unknown or a value out of range.
    """
    content = config.to_dict()
    for key in sorted(values, key=lambda key: not key.endswith((".name", ".split"))):
        content = merged(content, _nested(key, values[key]))
    return _validated(content)


def load_config(path: Path | None = None, overrides: list[str] | None = None) -> Config:
    """Read a config file and apply ``section.key=value`` overrides.

    Parameters
    ----------
    path : Path, optional
        YAML file, or the name of a shipped one, e.g. ``demo``; without it the defaults hold.
    overrides : list of str, optional
        Applied in order, e.g. ``["train.epochs=5", "data.tags=50"]``.

    Returns
    -------
    Config
        Validated and complete.

    Raises
    ------
    ConfigError
        If the file or an override has an unknown key or a value out of range.
    """
    # Merged into the defaults as text, not left to pydantic: a file may give one parameter of a
    # default entry without repeating the entry's name.
    content = Config().to_dict()
    if path is not None:
        # One after the other: whether a name is another one than before shows only against the
        # defaults.
        for changes in _read_yaml(given_or_shipped(path)):
            content = merged(content, changes)
    for text in overrides or []:
        content = merged(content, _nested(*override(text)))
    return _validated(content, where="" if path is None else f"{path}: ")


def _validated(content: dict[str, Any], *, where: str = "") -> Config:
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            f"{where}{describe_validation_error(error, model=Config)}; tagger config show lists "
            "every key"
        ) from None
