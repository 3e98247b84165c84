"""Kinds of classifiers; each is a module of its own, bound to the name ``ENTRY``."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from tagger.base.registry import Entry, Params, Registry

# Values of one parameter that folds choose from, the most careful first.
Choices = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
# Fewer where the folds have fewer rows.
Components = Annotated[
    int | None,
    Field(ge=1, description="principal components of the scaled features; null: none"),
]


class ClassifierParams(Params):
    """What all classifiers have in common."""

    pca: Components = None


class Classifier(Entry):
    """Contract of a classifier.

    A subclass sits in a module of its own in this package, bound to the name ``ENTRY``.

    Attributes
    ----------
    is_margin : bool
        Whether it gives distances from a border in place of probabilities. A sigmoid, fitted to
        the distances of clips of other folds, then makes the probabilities (Platt 1999), one label
        against the rest.
    is_float32 : bool
        Whether it computes with float32, as trees do.
    """

    Params = ClassifierParams
    params: ClassifierParams
    is_margin: ClassVar[bool] = False
    is_float32: ClassVar[bool] = False

    @abstractmethod
    def estimator(self) -> Any:
        """Make the estimator, in the way of scikit-learn; draws have a fixed seed."""

    @abstractmethod
    def grid(self, n_rows: int) -> Mapping[str, Sequence[Any]]:
        """Parameters of the estimator that folds choose from, the most careful value first.

        Parameters
        ----------
        n_rows : int
            Rows of the smallest part that it is fitted to.
        """


CLASSIFIERS: Registry[Classifier] = Registry("tagger.classifiers.kinds", "classifier")
