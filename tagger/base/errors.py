"""Errors that a user can act on: each message names the thing that is wrong and the remedy."""

import re

# What ends a line or steers a terminal; names and reasons that come from files may hold it.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Longer ones lose their middle: the file is named in front, the remedy stands at the end.
_LONGEST = 2000
_KEPT_IN_FRONT = 1400


class TaggerError(Exception):
    """Base of every error that the command line prints as one line instead of a traceback.

    Parameters
    ----------
    message : str
        What is wrong with which thing, and the remedy. Control characters are escaped, and what is
        too long to be read is cut in the middle.
    """

    def __init__(self, message: object = "") -> None:
        text = _CONTROL.sub(_escaped, str(message))
        if len(text) > _LONGEST:
            end = len(text) - (_LONGEST - _KEPT_IN_FRONT)
            text = f"{text[:_KEPT_IN_FRONT]} ... {text[end:]}"
        super().__init__(text)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class ConfigError(TaggerError):
    """A configuration, a command-line value or an annotation file asks for something impossible."""


class AudioError(TaggerError):
    """One audio file cannot be used; a batch goes on with the next file."""


class StoreError(TaggerError):
    """A patch store is missing, damaged, unsafe to read or made for another front end."""


class ModelError(TaggerError):
    """A run folder or a weight file is missing, damaged or does not fit the network."""
