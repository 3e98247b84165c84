"""Linear support vector machine."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tagger.classifiers.kinds import Choices, Classifier, ClassifierParams


class LinearSVMParams(ClassifierParams):
    """Parameters of the linear support vector machine; `c` is the inverse of its penalty."""

    c: Choices = (0.0001, 0.001, 0.01, 0.1)


class LinearSVM(Classifier):
    """scikit-learn's, by liblinear."""

    Params = LinearSVMParams
    params: LinearSVMParams
    is_margin: ClassVar[bool] = True

    def estimator(self) -> Any:  # noqa: D102 (the contract documents it)
        from sklearn import svm

        return svm.LinearSVC(max_iter=5000, random_state=0)

    def grid(self, n_rows: int) -> Mapping[str, Sequence[Any]]:  # noqa: D102
        del n_rows
        return {"C": self.params.c}


ENTRY = LinearSVM
