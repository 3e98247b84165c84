"""A fitted classifier -> ONNX, compared with scikit-learn on the rows that it was fitted to.

What makes the two agree: features go in as float64, and scaler, principal components, linear
estimators and distances are computed with it on both sides. For trees the prepared features are
rounded to float32 in the pipeline itself; rounded values then meet the same thresholds. The kernels
of the RBF machine alone are computed with float32 by onnxruntime, which costs some 1e-6. Of scores
the sixth decimal is the last, so that half of the trees are half of the trees on both sides.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ModelError
from tagger.classifiers.fitting import FittedClassifier
from tagger.classifiers.onnx_scorer import DECIMALS, INPUT, OPSETS, OUTPUT, OnnxScorer

LARGEST_DIFFERENCE = 1e-5
# Heads of more cannot be read.
_MOST_BYTES = 200 << 20


@dataclass(frozen=True)
class ClassifierParity:
    """How well ONNX repeats scikit-learn.

    Parameters
    ----------
    largest : float
        Largest difference between two probabilities.
    n_changed : int
        Rows for which another label, or another set of tags at a threshold of 0.5, is decided.
    n_rows : int
        Rows that were compared.
    """

    largest: float
    n_changed: int
    n_rows: int

    def __str__(self) -> str:
        return (
            f"ONNX and scikit-learn differ by at most {self.largest:.1e}, with "
            f"{self.n_changed} of {self.n_rows} decisions changed"
        )


def onnx_of(
    fitted: FittedClassifier, features: npt.NDArray[np.floating], *, one_label: bool
) -> tuple[bytes, ClassifierParity]:
    """Turn a classifier into ONNX.

    Parameters
    ----------
    fitted : FittedClassifier
        The classifier.
    features : np.ndarray [shape=(n_rows, n_features)]
        Rows on which both are compared.
    one_label : bool
        Of each row the label with the highest score is decided; otherwise all from 0.5 on.

    Returns
    -------
    content : bytes
        An ONNX model: features [n, n_features] in float64 -> scores [n, n_labels] in float32.
    parity : ClassifierParity

    Raises
    ------
    ModelError
        If the two differ by more than 1e-5 or decide otherwise, or the model is too large.
    """
    content = _converted(fitted, features.shape[1])
    if len(content) > _MOST_BYTES:
        raise ModelError(
            f"the classifier takes {len(content) >> 20} MB; give it fewer trees or clips, or set "
            "its pca"
        )
    scorer = OnnxScorer(content, n_features=features.shape[1], n_labels=len(fitted.constant))
    ours, theirs = scorer(features), fitted.scores(features)
    parity = ClassifierParity(
        largest=float(np.abs(ours - theirs).max(initial=0)),
        n_changed=_n_changed(ours, theirs, one_label=one_label),
        n_rows=len(features),
    )
    if not parity.largest <= LARGEST_DIFFERENCE or parity.n_changed:
        raise ModelError(
            f"{parity}; clips that are alike may carry different labels: remove them, or choose "
            "another classifier"
        )
    return content, parity


def _n_changed(
    ours: npt.NDArray[np.floating], theirs: npt.NDArray[np.floating], *, one_label: bool
) -> int:
    theirs = np.round(theirs, DECIMALS).astype(np.float32)
    if one_label:
        return int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum())
    return int(((ours >= 0.5) != (theirs >= 0.5)).any(axis=1).sum())


def _converted(fitted: FittedClassifier, n_features: int) -> bytes:
    """Model of scores of all labels, in their order."""
    from onnx import TensorProto, helper, numpy_helper
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType

    _know_xgboost()
    with warnings.catch_warnings():
        # skl2onnx looks at attributes that scikit-learn is about to drop.
        warnings.simplefilter("ignore", FutureWarning)
        model = to_onnx(
            fitted.pipeline,
            initial_types=[(INPUT, DoubleTensorType([None, n_features]))],
            options={"zipmap": False},
            target_opset=dict(OPSETS),
        )
    graph: Any = model.graph
    probabilities = graph.output[-1]
    n_given = probabilities.type.tensor_type.shape.dim[1].dim_value or len(fitted.learned)
    # Of a single tag its absence comes first.
    place = np.zeros((max(n_given, len(fitted.learned)), len(fitted.constant)), dtype=np.float32)
    place[np.arange(-len(fitted.learned), 0), fitted.learned] = 1
    graph.initializer.extend(
        [
            numpy_helper.from_array(place, "place"),
            numpy_helper.from_array(fitted.constant.astype(np.float32), "constant"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Cast", [probabilities.name], ["learned"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["learned", "place"], ["placed"]),
            helper.make_node("Add", ["placed", "constant"], [OUTPUT]),
        ]
    )
    shape = [None, len(fitted.constant)]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape))
    content: bytes = model.SerializeToString()
    return content


def _know_xgboost() -> None:
    """Tell skl2onnx how XGBoost's classifier is converted."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
    from xgboost import XGBClassifier

    update_registered_converter(
        XGBClassifier,
        "XGBoostXGBClassifier",
        calculate_linear_classifier_output_shapes,
        _convert_xgboost,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )


def _convert_xgboost(scope: Any, operator: Any, container: Any) -> None:
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost

    convert_xgboost(scope, operator, container)
    if operator.raw_operator.objective == "binary:logistic":
        # Trees start from a probability of 0.5. Where the first one has a single leaf of 0,
        # onnxmltools adds this 0.5 to what is no probability yet.
        (node,) = container.nodes[-1:]
        kept = [attribute for attribute in node.attribute if attribute.name != "base_values"]
        del node.attribute[:]
        node.attribute.extend(kept)
