"""The input of backbones that look at pictures."""

from typing import Any

from tagger.base.errors import ConfigError
from tagger.network.backbones import Backbone


def picture(backbone: Backbone, inputs: dict[str, Any], name: str, *, smallest: int) -> Any:
    """Input `name` of a backbone, checked to be pictures of at least so many pixels each way.

    Raises
    ------
    ConfigError
        If there is none, it is smaller, or it is no picture of three colours.
    """
    if name not in inputs:
        raise ConfigError(
            f"backbone {backbone.name!r} needs the input {name!r}, but the front end gives "
            f"{', '.join(inputs)}; use the front end mel_picture"
        )
    shape = tuple(inputs[name].shape[1:])
    if len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < smallest:
        raise ConfigError(
            f"backbone {backbone.name!r} needs pictures of at least {smallest} x {smallest} pixels "
            f"in three colours, not of shape {shape}"
        )
    return inputs[name]
