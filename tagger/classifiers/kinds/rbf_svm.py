"""Support vector machine with Gaussian kernels."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tagger.classifiers.kinds import Choices, Classifier, ClassifierParams, Components


class RBFSVMParams(ClassifierParams):
    """Parameters of the support vector machine; `c` is the inverse of its penalty."""

    # Kernels of thousands of features make large files, and onnxruntime computes them with float32.
    pca: Components = 128
    c: Choices = (0.3, 1.0, 3.0, 10.0)


class RBFSVM(Classifier):
    """scikit-learn's, by libsvm; kernels as wide as the features ask for (``gamma="scale"``)."""

    Params = RBFSVMParams
    params: RBFSVMParams
    is_margin: ClassVar[bool] = True

    def estimator(self) -> Any:  # noqa: D102 (the contract documents it)
        from sklearn import svm

        return svm.SVC(kernel="rbf")

    def grid(self, n_rows: int) -> Mapping[str, Sequence[Any]]:  # noqa: D102
        del n_rows
        return {"C": self.params.c}


ENTRY = RBFSVM
