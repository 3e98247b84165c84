"""Errors that a user can act on: each message names the thing that is wrong and the remedy."""


class TaggerError(Exception):
    """Base of every error that the command line prints as one line instead of a traceback."""


class ConfigError(TaggerError):
    """A configuration, a command-line value or an annotation file asks for something impossible."""


class AudioError(TaggerError):
    """One audio file cannot be used; a batch goes on with the next file."""


class StoreError(TaggerError):
    """A patch store is missing, damaged, unsafe to read or made for another front end."""


class ModelError(TaggerError):
    """A run folder or a weight file is missing, damaged or does not fit the network."""
