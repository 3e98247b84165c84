"""The labels of the nearest training clips."""

from collections.abc import Mapping, Sequence
from typing import Any

from tagger.classifiers.kinds import Classifier, ClassifierParams, Components, Counts


class NearestNeighboursParams(ClassifierParams):
    """Parameters of the nearest neighbours; `k` is how many of them vote."""

    # Each clip that it was fitted to is in the file.
    pca: Components = 128
    k: Counts = (15, 9, 5, 3, 1)


class NearestNeighbours(Classifier):
    """scikit-learn's, by Euclidean distance; all that are looked at weigh the same."""

    Params = NearestNeighboursParams
    params: NearestNeighboursParams

    def estimator(self) -> Any:  # noqa: D102 (the contract documents it)
        from sklearn import neighbors

        return neighbors.KNeighborsClassifier()

    def grid(self, n_rows: int) -> Mapping[str, Sequence[Any]]:  # noqa: D102
        return {"n_neighbors": sorted({min(k, n_rows) for k in self.params.k}, reverse=True)}


ENTRY = NearestNeighbours
