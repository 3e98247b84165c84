"""Run a classifier that is kept as ONNX."""

from typing import Final

import numpy as np
import numpy.typing as npt

from tagger.untrusted.onnx import check_onnx

INPUT, OUTPUT = "features", "scores"
# Newest operators that are written, and that are read.
OPSETS: Final = {"": 18, "ai.onnx.ml": 3}
# Scores have so many.
DECIMALS = 6
# Those of scaler, components, one against the rest and sigmoid; and of each kind.
_OPERATORS = frozenset(
    """
    Abs Add ArgMax ArrayFeatureExtractor Cast Clip Concat Div Equal Exp Flatten Identity
    LpNormalization MatMul Mul ReduceSum ReduceSumSquare Reshape Scan Sigmoid Sign Slice Softmax
    Sqrt Sub Sum SVMClassifier TopK Transpose TreeEnsembleClassifier
    """.split()  # noqa: SIM905
)
_ROWS_AT_ONCE = 4096
# By which a sum of float32 may leave 0 to 1.
_TOLERANCE = 1e-4


class OnnxScorer:
    """A classifier that onnxruntime runs, on one thread.

    Parameters
    ----------
    content : bytes
        The ONNX model, which may come from anybody.
    n_features : int
        Values of a row.
    n_labels : int
        Labels that it gives scores of.

    Raises
    ------
    ValueError
        If it is damaged, has other inputs or labels, or asks for what a classifier does not need.
        The reason is one line.
    """

    def __init__(self, content: bytes, *, n_features: int, n_labels: int) -> None:
        check_onnx(content, operators=_OPERATORS, opsets=OPSETS)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # What is wrong is said by the errors.
        options.log_severity_level = 4
        try:
            # A second try, as onnxruntime would, cannot help and is printed.
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:
            # onnxruntime's own have no common base.
            raise ValueError(f"onnxruntime refuses it: {_line(error)}") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [(i.name, i.type) for i in inputs] != [(INPUT, "tensor(double)")] or [
            (o.name, o.type) for o in outputs
        ] != [(OUTPUT, "tensor(float)")]:
            raise ValueError("its inputs and outputs are not those of a classifier")
        given = (inputs[0].shape[1:], outputs[0].shape[1:])
        if given != ([n_features], [n_labels]):
            raise ValueError(
                f"it makes {given[1]} labels of {given[0]} features, not [{n_labels}] of "
                f"[{n_features}]"
            )
        self._n_labels = n_labels
        # What is wrong inside shows at the first run.
        self(np.zeros((2, n_features), dtype=np.float32))

    def __call__(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Scores [shape=(n_rows, n_labels)] of features [shape=(n_rows, n_features)].

        Raises
        ------
        ValueError
            If what it computes is none, which no model that was written here does.
        """
        parts = []
        for first in range(0, len(features), _ROWS_AT_ONCE):
            rows = features[first : first + _ROWS_AT_ONCE].astype(np.float64)
            try:
                (scores,) = self._session.run([OUTPUT], {INPUT: rows})
            except Exception as error:
                raise ValueError(f"onnxruntime cannot run it: {_line(error)}") from None
            likely = (scores > -_TOLERANCE) & (scores < 1 + _TOLERANCE)
            if scores.shape != (len(rows), self._n_labels) or not likely.all():
                raise ValueError("its scores are no probabilities of each label")
            parts.append(np.round(np.clip(scores, 0, 1), DECIMALS))
        found: npt.NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
        return found


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
