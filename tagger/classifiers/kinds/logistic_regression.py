"""Logistic regression: one of several labels, or one tag against the rest."""

from collections.abc import Mapping, Sequence
from typing import Any

from tagger.classifiers.kinds import Choices, Classifier, ClassifierParams


class LogisticRegressionParams(ClassifierParams):
    """Parameters of the logistic regression; `c` is the inverse of its penalty."""

    c: Choices = (0.001, 0.01, 0.1, 1.0)


class LogisticRegression(Classifier):
    """scikit-learn's, with a squared penalty."""

    Params = LogisticRegressionParams
    params: LogisticRegressionParams

    def estimator(self) -> Any:  # noqa: D102 (the contract documents it)
        from sklearn import linear_model

        return linear_model.LogisticRegression(max_iter=1000)

    def grid(self, n_rows: int) -> Mapping[str, Sequence[Any]]:  # noqa: D102
        del n_rows
        return {"C": self.params.c}


ENTRY = LogisticRegression
