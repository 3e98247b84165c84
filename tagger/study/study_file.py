"""The file that describes a study: variants of a config, and published figures beside them."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tagger.base.errors import ConfigError
from tagger.base.registry import describe_validation_error
from tagger.base.shipped import given_or_shipped, shipped_names
from tagger.base.suggest import did_you_mean
from tagger.config import Config, load_config, override, with_overrides
from tagger.untrusted import yaml as safe_yaml

_NAME = r"^[A-Za-z0-9][A-Za-z0-9.,_ -]*$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Published(_Part):
    """A figure that somebody has published.

    Parameters
    ----------
    value : float
        The figure, e.g. 0.772.
    source : str
        Who, and where.
    metric : str
        What it is of.
    """

    value: float
    source: str
    metric: str = "accuracy"


class Variant(_Part):
    """One way to learn, among those that a study compares.

    Parameters
    ----------
    name : str
        What it is called; also the name of its folder.
    set : dict
        What it changes of the study's config, by dotted key.
    published : list of Published
        Figures to hold it against.
    vote_of : tuple of str
        In place of a fit: the probabilities of these variants together.
    vote_by : str
        ``"mean"`` of them; ``"weights"``: a mean whose weights make the labels of the training
        clips most likely; ``"stacking"``: a logistic regression on all of them. The last two
        learn from scores that folds of the training clips give, and of validation clips, for one
        label per clip.
    train : bool, optional
        Whether a network is trained, in place of a clip head that is fitted; default as the study.
    note : str
        A sentence for the page.
    """

    name: Annotated[str, Field(pattern=_NAME, max_length=80)]
    set: dict[str, Any] = {}
    published: tuple[Published, ...] = ()
    vote_of: tuple[str, ...] = ()
    vote_by: Literal["mean", "weights", "stacking"] = "mean"
    train: bool | None = None
    note: str = ""


class Plot(_Part):
    """A picture of the data.

    Parameters
    ----------
    kind : str
        ``"box"``: one column by label; ``"pca"`` and ``"tsne"``: all columns in two dimensions, in
        colour by label; ``"taggram"``: the values of some clips over time.
    column : str
        Of a box plot.
    clips : tuple of str
        Of taggrams.
    names : tuple of str
        Of the columns in taggrams, where the table has none.
    """

    kind: Literal["box", "pca", "tsne", "taggram"]
    column: str = ""
    clips: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


class Study(_Part):
    """A study.

    Parameters
    ----------
    title, about : str
        Of the page, and a paragraph on what it compares.
    config : str
        Config file that all variants start from, relative to the study's file; empty for none.
    set : dict
        What all variants change of it, by dotted key.
    train : bool
        Whether variants train networks.
    variants : tuple of Variant
        What is compared.
    compared_by : str
        Metric of which differences are tested and that sorts the table.
    plots : tuple of Plot
        Pictures of the data.
    """

    title: str
    about: str = ""
    config: str = ""
    set: dict[str, Any] = {}
    train: bool = False
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    compared_by: Literal["accuracy", "pr_auc_macro", "roc_auc_macro"] = "accuracy"
    plots: tuple[Plot, ...] = ()

    def trains(self, variant: Variant) -> bool:
        """Whether a network is trained for a variant."""
        return self.train if variant.train is None else variant.train

    @model_validator(mode="after")
    def _names_are_known(self) -> "Study":
        names = [variant.name for variant in self.variants]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two variants are called {name!r}; rename one")
        for variant in self.variants:
            unknown = set(variant.vote_of) - set(names) | ({variant.name} & set(variant.vote_of))
            if unknown:
                raise ValueError(f"vote_of of {variant.name!r}: no other variant {min(unknown)!r}")
        return self


def read_study(path: Path) -> Study:
    """Read the file of a study, or the shipped one of a name.

    Raises
    ------
    ConfigError
        If it is missing, or not such a file.
    """
    path = given_or_shipped(path, "studies")
    try:
        content = safe_yaml.loads(path.read_text(encoding="utf-8"))
        return Study.model_validate(content)
    except FileNotFoundError:
        hint = did_you_mean(path.stem, shipped_names("studies"))
        raise ConfigError(f"{path}: no such file{hint}; give the file of a study") from None
    except ValidationError as error:
        raise ConfigError(
            f"{path}: {describe_validation_error(error, model=Study)}; fix it"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a study ({error}); fix it") from None


def config_of(study: Study, variant: Variant, *, path: Path, overrides: list[str]) -> Config:
    """Config of a variant.

    Parameters
    ----------
    study, variant : Study, Variant
        What is described.
    path : Path
        The study's file.
    overrides : list of str
        ``section.key=value``, for all variants.

    Raises
    ------
    ConfigError
        If a key is unknown or a value out of range.
    """
    folder = given_or_shipped(path, "studies").parent
    base = load_config(folder / study.config if study.config else None)
    try:
        # At once: what one variant fills in is not handed to the next.
        config = with_overrides(base, {**study.set, **variant.set})
    except ConfigError as error:
        raise ConfigError(f"{path}: variant {variant.name!r}: {error}") from None
    return with_overrides(config, dict(map(override, overrides)))
