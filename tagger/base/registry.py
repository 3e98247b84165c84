"""Extension points: a package whose modules are its entries, found by name.

An entry of the package ``tagger.network.backbones`` named ``vggish`` is the module
``tagger/network/backbones/vggish.py``; it binds its class to the name ``ENTRY``. Adding one is
adding a file: nothing lists the entries, and a module is imported only when its name is asked for.

An installed package adds entries without a file here, by entry points of its own whose group is
that package::

    [project.entry-points."tagger.network.backbones"]
    tiny = "their_package.tiny:TinyBackbone"
"""

import functools
import importlib
import pkgutil
from abc import ABC
from collections.abc import Sequence
from importlib import metadata
from typing import Any, ClassVar, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from tagger.base.errors import ConfigError
from tagger.base.suggest import did_you_mean

EntryT = TypeVar("EntryT")
_LONGEST_SHOWN = 200


class Params(BaseModel):
    """Parameters of one entry: frozen, typed, unknown keys and infinity refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Entry(ABC):
    """Base of the entries that have parameters; their name is that of their module.

    Parameters
    ----------
    params : Params
        An instance of the subclass's own ``Params``.
    """

    name: ClassVar[str]
    Params: ClassVar[type[Params]] = Params

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = cls.__module__.rpartition(".")[2]

    def __init__(self, params: Any) -> None:
        self.params = params


def describe_validation_error(
    error: ValidationError, *, model: type[BaseModel] | None = None
) -> str:
    """Put every problem that pydantic found into one line: ``key: problem``.

    Parameters
    ----------
    error : ValidationError
        As pydantic raised it.
    model : type, optional
        Of what was validated, whose keys are suggested in place of unknown ones.
    """
    problems = []
    for item in error.errors():
        # The names that pydantic gives to validators among them are of no use.
        key = ".".join(str(part) for part in item["loc"] if "[" not in str(part))
        if item["type"] == "extra_forbidden":
            keys = _keys_beside(model, item["loc"])
            problems.append(f"{key}: unknown key{did_you_mean(str(item['loc'][-1]), keys)}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            given = "" if item["type"] == "value_error" else f" (given: {_shown(item['input'])})"
            problems.append(f"{key}: {message}{given}" if key else f"{message}{given}")
    return "; ".join(problems)


def _keys_beside(model: type[BaseModel] | None, place: Sequence[int | str]) -> list[str]:
    """Names of the keys that a model has where an unknown one was given."""
    for part in place[:-1]:
        field = model.model_fields.get(str(part)) if model is not None else None
        kind = None if field is None else field.annotation
        model = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    return [] if model is None else list(model.model_fields)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # A number of too many digits, or lists in lists in lists.
        return f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]} ..."


@functools.cache
def _installed(group: str) -> dict[str, metadata.EntryPoint]:
    """Entries that installed packages add, by name; searching for them takes milliseconds."""
    return {point.name: point for point in metadata.entry_points(group=group)}


class Registry(Generic[EntryT]):
    """The entries of one extension point.

    Parameters
    ----------
    package : str
        Dotted name of the package whose modules are the entries.
    kind : str
        What an entry is called in messages, e.g. ``"backbone"``.
    """

    def __init__(self, package: str, kind: str) -> None:
        self.package = package
        self.kind = kind

    def _own_names(self) -> list[str]:
        path = importlib.import_module(self.package).__path__
        return [m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_")]

    def names(self) -> list[str]:
        """Names of the entries, without importing them."""
        return sorted({*self._own_names(), *_installed(self.package)})

    def get(self, name: str) -> type[EntryT]:
        """Class of the entry `name`; one of this package comes before one that was installed.

        Raises
        ------
        ConfigError
            If there is no entry of that name, or the package that brings it cannot be imported.
        """
        if name in self._own_names():
            module = importlib.import_module(f"{self.package}.{name}")
            return cast(type[EntryT], module.ENTRY)
        point = _installed(self.package).get(name)
        if point is None:
            names = self.names()
            raise ConfigError(
                f"unknown {self.kind} {name!r}{did_you_mean(name, names)}; known: "
                f"{', '.join(names)}"
            )
        try:
            entry: Any = point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{self.kind} {name!r}: {point.value} cannot be imported ({error}); install the "
                "package that brings it again, or uninstall it"
            ) from None
        # It is known by the name that its package gave it, wherever its class stands.
        entry.name = name
        return cast(type[EntryT], entry)

    def params(self, name: str, given: dict[str, Any]) -> Any:
        """Parameters of entry `name`: the values `given`, its defaults for the rest.

        Raises
        ------
        ConfigError
            If there is no such entry, or it has no such parameter or refuses the value.
        """
        entry: Any = self.get(name)
        try:
            return entry.Params.model_validate(given)
        except ValidationError as error:
            raise ConfigError(
                f"parameters of {self.kind} {name!r}: "
                f"{describe_validation_error(error, model=entry.Params)}"
            ) from None

    def create(self, name: str, given: dict[str, Any]) -> EntryT:
        """Entry `name` made with the parameters `given`."""
        entry: Any = self.get(name)
        return cast(EntryT, entry(self.params(name, given)))
