"""One label for each clip, e.g. its genre: of all labels the one that fits best."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tagger.metrics.calibration import Calibration, Method
from tagger.metrics.columns import Columns
from tagger.metrics.decisions import Decisions, fit_unknown_threshold
from tagger.metrics.measured import Measured
from tagger.metrics.single_label import single_label_figures
from tagger.network.task import Task


class SingleLabel(Task):
    """Softmax outputs and categorical cross-entropy; accuracy and what goes with it."""

    monitors: ClassVar[dict[str, bool]] = {
        "accuracy": True,
        "balanced_accuracy": True,
        "f1_macro": True,
        "roc_auc_macro": True,
        "pr_auc_macro": True,
        "loss": False,
    }
    decides_one: ClassVar[bool] = True

    def scores(self, logits: Any) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.network.keras import keras

        # In float32 whatever the precision of the layers before: bfloat16 has 3 digits.
        return keras.layers.Activation("softmax", dtype="float32", name="scores")(logits)

    def loss(self, labels: Any, scores: Any) -> Any:  # noqa: D102
        from tagger.network.losses import categorical_cross_entropy

        return categorical_cross_entropy(labels, scores)

    def metrics(  # noqa: D102
        self, labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float32]
    ) -> dict[str, float]:
        summary = single_label_figures(labels, scores).summary
        figures = {key: summary[key] for key in self.monitors if key != "loss"}
        return {"loss": summary["log_loss"], **figures}

    def decisions(  # noqa: D102
        self,
        labels: npt.NDArray[np.uint8],
        scores: npt.NDArray[np.float32],
        *,
        method: Method | Literal["none"],
        precision: float | None,
    ) -> Decisions:
        return fit_unknown_threshold(labels, scores, method=method, precision=precision)

    def measure(  # noqa: D102
        self,
        columns: Columns,
        *,
        thresholds: npt.NDArray[np.float64] | None,
        calibration: Calibration | None,
        artists: Sequence[str],
        n_draws: int,
        seed: int,
    ) -> Measured:
        # The report is far from what training needs.
        from tagger.evaluate.measure_label import measure_labels

        del calibration
        return measure_labels(
            columns, thresholds=thresholds, artists=artists, n_draws=n_draws, seed=seed
        )


ENTRY = SingleLabel
