"""Models that can be named: their published weights are fetched and converted at first use.

Each module of this package is a source of models; it binds a tuple of them to ``ENTRIES``.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from tagger.base.cache import cache_folder
from tagger.base.errors import ModelError
from tagger.bundle.read import Bundle

# Tags music without any training of one's own.
DEFAULT_MODEL = "musicnn-mtt"
GS_PREFIX = "gs://"


@dataclass(frozen=True)
class RegisteredModel(ABC):
    """A model that can be named.

    Parameters
    ----------
    name : str
        What it is called.
    summary : str
        One line.
    n_tags : int
        Zero for a model of embeddings alone.
    good_for : str
        What one would take it for.
    megabytes : float
        Of its bundle.
    source : str
        Where it comes from.
    licence : str
        Of its weights: a short name.
    rights : str
        Who holds them.
    published : dict of str to float
        Figures that its authors give.
    """

    name: str
    summary: str
    n_tags: int
    good_for: str
    megabytes: float
    source: str
    licence: str
    rights: str
    published: dict[str, float] = field(default_factory=dict)

    @property
    def gives(self) -> str:
        """What it gives, for people."""
        return f"{self.n_tags} tags" if self.n_tags else "embeddings"

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of its scores."""
        return ()

    def card(self) -> dict[str, str]:
        """Lines of the model card: title -> text."""
        return {
            "Model": self.summary,
            "Good for": self.good_for,
            "Source": self.source,
            "Licence": f"{self.licence}, {self.rights}",
        }

    @abstractmethod
    def pull(self, root: Path, *, source: str = "") -> Bundle:
        """Fetch the weights, convert them and write a bundle.

        Parameters
        ----------
        root : Path
            Folder of the bundle.
        source : str
            File, folder or address (https) to take the published file from, in place of where it
            is published.

        Raises
        ------
        ModelError
            If they cannot be had, have another checksum or do not fit.
        """


def registered_models() -> dict[str, RegisteredModel]:
    """All registered models by name."""
    models: dict[str, RegisteredModel] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        if not module.name.startswith("_"):
            entries = importlib.import_module(f"{__name__}.{module.name}").ENTRIES
            models |= {entry.name: entry for entry in entries}
    return models


def registered_model(name: str) -> RegisteredModel:
    """Find the registered model of a name.

    Raises
    ------
    ModelError
        If there is none.
    """
    models = registered_models()
    if name not in models:
        raise ModelError(f"{name}: no registered model; choose one of {', '.join(models)}")
    return models[name]


def pulled_bundle(name: str) -> Path:
    """Folder in which the bundle of a registered model is kept, or will be."""
    return cache_folder() / "models" / name


def pull(name: str, *, source: str = "", again: bool = False) -> Bundle:
    """Bundle of a registered model, pulled if it is not there yet.

    Parameters
    ----------
    name : str
        Of the model.
    source : str
        As of `RegisteredModel.pull`.
    again : bool
        Pull it even if it is there.

    Raises
    ------
    ModelError
        If there is no such model or it cannot be had.
    """
    model = registered_model(name)
    root = pulled_bundle(name)
    if not again and Bundle.is_at(root):
        return Bundle(root)
    return model.pull(root, source=source)
