"""Multi-label tagging: every tag is a yes-or-no question of its own."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from tagger.base.registry import Params
from tagger.metrics.calibration import Calibration, Method
from tagger.metrics.columns import Columns
from tagger.metrics.decisions import Decisions, fit_tag_decisions
from tagger.metrics.figures import binary_cross_entropy, multilabel_metrics
from tagger.metrics.measured import Measured
from tagger.network.task import Task


class MultilabelParams(Params):
    """Parameters of multi-label tagging."""

    activation: Annotated[
        Literal["sigmoid", "softmax"], Field(description="softmax only to repeat the report")
    ] = "sigmoid"
    positive_weight: Annotated[
        float, Field(gt=0, description="of the loss of tags that a clip carries")
    ] = 1.0
    focus_positive: Annotated[
        float, Field(ge=0, description="exponent that makes what is right already count less")
    ] = 0.0
    focus_negative: Annotated[
        float, Field(ge=0, description="the same for tags that a clip does not carry")
    ] = 0.0
    negative_margin: Annotated[
        float, Field(ge=0, lt=1, description="score up to which a missing tag costs nothing")
    ] = 0.0
    negative_label: Annotated[
        float, Field(ge=0, lt=0.5, description="what a missing tag counts as: it may be unasked")
    ] = 0.0

    @model_validator(mode="after")
    def _smooths_the_plain_loss_only(self) -> "MultilabelParams":
        others = (
            self.positive_weight != 1,
            self.focus_positive,
            self.focus_negative,
            self.negative_margin,
        )
        # A score of negative_label would no longer be what costs least.
        if self.negative_label and any(others):
            raise ValueError(
                f"negative_label={self.negative_label} is for the plain loss; set it to 0, or "
                "positive_weight to 1 and focus_positive, focus_negative and negative_margin to 0"
            )
        return self


class Multilabel(Task):
    """Sigmoid outputs and binary cross-entropy; ROC-AUC and PR-AUC."""

    Params = MultilabelParams
    params: MultilabelParams
    monitors: ClassVar[dict[str, bool]] = {
        "pr_auc_macro": True,
        "roc_auc_macro": True,
        "pr_auc_micro": True,
        "roc_auc_micro": True,
        "loss": False,
    }

    def scores(self, logits: Any) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.network.keras import keras

        # In float32 whatever the precision of the layers before: bfloat16 has 3 digits.
        return keras.layers.Activation(self.params.activation, dtype="float32", name="scores")(
            logits
        )

    def loss(self, labels: Any, scores: Any) -> Any:  # noqa: D102
        from tagger.network.losses import multilabel_loss

        params = self.params
        return multilabel_loss(
            labels,
            scores,
            positive_weight=params.positive_weight,
            focus_positive=params.focus_positive,
            focus_negative=params.focus_negative,
            negative_margin=params.negative_margin,
            negative_label=params.negative_label,
        )

    def metrics(  # noqa: D102
        self, labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float32]
    ) -> dict[str, float]:
        summary = multilabel_metrics(labels, scores).summary
        figures = {key: summary[key] for key in self.monitors if key != "loss"}
        return {"loss": binary_cross_entropy(labels, scores), **figures}

    def decisions(  # noqa: D102
        self,
        labels: npt.NDArray[np.uint8],
        scores: npt.NDArray[np.float32],
        *,
        method: Method | Literal["none"],
        precision: float | None,
    ) -> Decisions:
        return fit_tag_decisions(labels, scores, method=method, precision=precision)

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
        from tagger.evaluate.measure import measure

        return measure(
            columns,
            thresholds=thresholds,
            calibration=calibration,
            artists=artists,
            n_draws=n_draws,
            seed=seed,
        )

    def warnings(self) -> list[str]:  # noqa: D102
        if self.params.activation != "softmax":
            return []
        return [
            "task.params.activation=softmax makes the scores of a clip sum to 1, so that its tags "
            "compete: a clip with five tags cannot score all of them high; use sigmoid unless you "
            "repeat the report"
        ]


ENTRY = Multilabel
