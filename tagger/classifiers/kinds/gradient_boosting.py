"""Gradient boosting of small trees, by scikit-learn."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from tagger.classifiers.kinds import Classifier, ClassifierParams, Counts


class GradientBoostingParams(ClassifierParams):
    """Parameters of gradient boosting; folds choose the depth of the trees."""

    trees: Annotated[int, Field(ge=1)] = 100
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    depth: Counts = (1, 3)


class GradientBoosting(Classifier):
    """scikit-learn's; each split looks at the root of the number of features, as in a forest."""

    Params = GradientBoostingParams
    params: GradientBoostingParams
    is_float32: ClassVar[bool] = True

    def estimator(self) -> Any:  # noqa: D102 (the contract documents it)
        from sklearn import ensemble

        return ensemble.GradientBoostingClassifier(
            n_estimators=self.params.trees,
            learning_rate=self.params.learning_rate,
            max_features="sqrt",
            subsample=0.8,
            random_state=0,
        )

    def grid(self, n_rows: int) -> Mapping[str, Sequence[Any]]:  # noqa: D102
        del n_rows
        return {"max_depth": self.params.depth}


ENTRY = GradientBoosting
