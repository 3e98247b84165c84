"""Gradient boosting of trees, by XGBoost."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from tagger.classifiers.kinds import Classifier, ClassifierParams, Counts


class XGBoostParams(ClassifierParams):
    """Parameters of XGBoost; folds choose the depth of the trees."""

    trees: Annotated[int, Field(ge=1)] = 50
    learning_rate: Annotated[float, Field(gt=0)] = 0.2
    depth: Counts = (2, 4)
    column_share: Annotated[
        float, Field(gt=0, le=1, description="of the features that each tree sees")
    ] = 0.2


class XGBoost(Classifier):
    """XGBoost's; each tree sees four fifths of the clips, and a share of the features."""

    Params = XGBoostParams
    params: XGBoostParams
    is_float32: ClassVar[bool] = True

    def estimator(self) -> Any:  # noqa: D102 (the contract documents it)
        # The package, not this module: imports are absolute.
        import xgboost

        return xgboost.XGBClassifier(
            n_estimators=self.params.trees,
            learning_rate=self.params.learning_rate,
            subsample=0.8,
            colsample_bytree=self.params.column_share,
            # Of some hundred clips and thousands of features more of them take six times as long.
            max_bin=32,
            # What the conversion to ONNX relies on.
            base_score=0.5,
            n_jobs=1,
            random_state=0,
        )

    def grid(self, n_rows: int) -> Mapping[str, Sequence[Any]]:  # noqa: D102
        del n_rows
        return {"max_depth": self.params.depth}


ENTRY = XGBoost
