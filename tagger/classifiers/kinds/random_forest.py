"""Random forest: the mean of many trees, each of other clips and features."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from tagger.classifiers.kinds import Classifier, ClassifierParams, Counts


class RandomForestParams(ClassifierParams):
    """Parameters of the forest; folds choose how many clips a leaf holds at least."""

    trees: Annotated[int, Field(ge=1)] = 100
    leaf: Counts = (5, 1)


class RandomForest(Classifier):
    """scikit-learn's."""

    Params = RandomForestParams
    params: RandomForestParams
    is_float32: ClassVar[bool] = True

    def estimator(self) -> Any:  # noqa: D102 (the contract documents it)
        from sklearn import ensemble

        return ensemble.RandomForestClassifier(n_estimators=self.params.trees, random_state=0)

    def grid(self, n_rows: int) -> Mapping[str, Sequence[Any]]:  # noqa: D102
        del n_rows
        return {"min_samples_leaf": self.params.leaf}


ENTRY = RandomForest
