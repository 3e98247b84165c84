"""A classical classifier on a clip's embeddings: fitted by scikit-learn, run by onnxruntime."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from tagger.base.errors import ConfigError
from tagger.base.registry import Params
from tagger.classifiers.kinds import CLASSIFIERS
from tagger.classifiers.onnx_scorer import OnnxScorer
from tagger.scoring.clip_heads import ClipHead, Labels
from tagger.scoring.clip_heads._statistics import N_STATISTICS, means, statistics
from tagger.scoring.scorer import Floats


class ClassifierHeadParams(Params):
    """Which classifier, and what it looks at."""

    classifier: Annotated[str, Field(description="one of tagger/classifiers/kinds")] = (
        "logistic_regression"
    )
    classifier_params: Annotated[dict[str, Any], Field(default_factory=dict)]
    over: Annotated[
        Literal["statistics", "mean", "windows", "vote"],
        Field(
            description="statistics: of the clip's embeddings over time; mean: that one alone; "
            "windows: each window by itself, and the mean of their probabilities; vote: the share "
            "of the windows"
        ),
    ] = "statistics"
    layers: Annotated[
        tuple[str, ...] | None,
        Field(min_length=1, description="names of the embeddings; null: all"),
    ] = None
    link: Annotated[
        Literal["sigmoid", "softmax"] | None,
        Field(description="softmax where tags exclude one another; null: as the task says"),
    ] = None

    @model_validator(mode="after")
    def _fill_in(self) -> "ClassifierHeadParams":
        try:
            params = CLASSIFIERS.params(self.classifier, self.classifier_params)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        # Frozen for those who use it; the defaults are part of making it.
        object.__setattr__(self, "classifier_params", dict(params.model_dump()))
        return self


class ClassifierHead(ClipHead):
    """A classifier of `tagger.classifiers`, kept as an ONNX model.

    It chooses its parameters on folds within the clips that it is fitted to.

    Attributes
    ----------
    content : bytes
        The ONNX model.
    found : str
        Which parameters were chosen, and how well ONNX repeats scikit-learn; for people.
    """

    Params = ClassifierHeadParams
    params: ClassifierHeadParams
    content: bytes
    found: str
    _scorer: OnnxScorer

    @classmethod
    def filled_in(  # noqa: D102 (the contract documents it)
        cls, params: Mapping[str, Any], *, embeddings: Sequence[str], decides_one: bool
    ) -> dict[str, Any]:
        filled = dict(params)
        filled["layers"] = filled.get("layers") or tuple(embeddings)
        filled["link"] = filled.get("link") or ("softmax" if decides_one else "sigmoid")
        return filled

    @property
    def outputs(self) -> tuple[str, ...]:  # noqa: D102
        return self.params.layers or ()

    @property
    def _one_label(self) -> bool:
        return self.params.link == "softmax"

    @property
    def _by_window(self) -> bool:
        return self.params.over in ("windows", "vote")

    def features(self, outputs: Mapping[str, npt.NDArray[np.floating]]) -> Floats:
        """Statistics or mean over time; or each window's values [shape=(n_windows, n_features)]."""
        if self.params.over == "statistics":
            return statistics(outputs, self.outputs)
        if self.params.over == "mean":
            return means(outputs, self.outputs)
        layers = [outputs[layer] for layer in self.outputs]
        return np.concatenate(layers, axis=1).astype(np.float32, copy=False)

    def together(self, of_clips: Sequence[Floats]) -> Floats:  # noqa: D102
        if not self._by_window:
            return super().together(of_clips)
        clips: npt.NDArray[Any] = np.empty(len(of_clips), dtype=object)
        for place, windows in enumerate(of_clips):
            clips[place] = windows
        return clips

    def scores(self, features: Floats) -> Floats:  # noqa: D102
        if not self._by_window:
            return self._scorer(features)
        ends = np.cumsum([len(windows) for windows in features])
        of_windows = self._of_windows(np.concatenate(list(features)))
        return np.stack([own.mean(axis=0) for own in np.split(of_windows, ends[:-1])])

    def _of_windows(self, windows: Floats) -> Floats:
        """Score each window: a probability, or its vote."""
        scores = self._scorer(windows)
        if self.params.over == "windows":
            return scores
        if self._one_label:
            best = scores.argmax(axis=1)[:, np.newaxis]
            return (np.arange(scores.shape[1]) == best).astype(np.float32)
        return (scores >= 0.5).astype(np.float32)

    def over_time(
        self, outputs: Mapping[str, npt.NDArray[np.floating]], *, hop_seconds: float
    ) -> Floats:
        """As of `ClipHead.over_time`; of windows that are scored one by one, their own scores."""
        if not self._by_window:
            return super().over_time(outputs, hop_seconds=hop_seconds)
        return self._of_windows(self.features(outputs))

    def fit(
        self,
        features: Floats,
        labels: Labels,
        *,
        validation: tuple[Floats, Labels],
        groups: Sequence[str] = (),
    ) -> str:
        """Fit to the training clips; folds of these choose, not the validation clips."""
        del validation
        (head,) = self.fits(features, labels, groups=groups)
        self.content, self.found, self._scorer = head.content, head.found, head._scorer
        return self.describe()

    def fits(
        self, features: Floats, labels: Labels, *, groups: Sequence[str] = ()
    ) -> Iterator["ClassifierHead"]:
        """As of `ClipHead.fits`: one, with the parameters that folds have chosen."""
        from tagger.classifiers.fitting import fit_classifier
        from tagger.classifiers.onnx_file import onnx_of

        of_rows = list(groups) or [str(number) for number in range(len(labels))]
        rows = features
        if self._by_window:
            clip_of = np.repeat(np.arange(len(features)), [len(windows) for windows in features])
            rows, labels = np.concatenate(list(features)), labels[clip_of]
            of_rows = [of_rows[clip] for clip in clip_of]
        classifier = CLASSIFIERS.create(self.params.classifier, self.params.classifier_params)
        fitted = fit_classifier(classifier, rows, labels, groups=of_rows, one_label=self._one_label)
        content, parity = onnx_of(fitted, rows, one_label=self._one_label)
        head = ClassifierHead(self.params)
        head.found = f"{classifier.name} with {fitted.found}; {parity}"
        head._take(content, n_features=rows.shape[1], n_tags=labels.shape[1])
        yield head

    def describe(self) -> str:  # noqa: D102
        return self.found

    def arrays(self) -> dict[str, npt.NDArray[Any]]:  # noqa: D102
        content = np.frombuffer(self.content, dtype=np.uint8)
        return {"onnx": content, "found": np.array(self.found)}

    def restore(  # noqa: D102
        self, arrays: Mapping[str, npt.NDArray[Any]], *, sizes: Mapping[str, int], n_tags: int
    ) -> None:
        content = arrays["onnx"]
        if content.dtype != np.uint8:
            raise ValueError("the ONNX model is no bytes")
        self.found = str(arrays["found"])
        n_features = sum(sizes[layer] for layer in self.outputs)
        if self.params.over == "statistics":
            n_features *= N_STATISTICS
        self._take(content.tobytes(), n_features=n_features, n_tags=n_tags)

    def _take(self, content: bytes, *, n_features: int, n_tags: int) -> None:
        self._scorer = OnnxScorer(content, n_features=n_features, n_labels=n_tags)
        self.content = content


ENTRY = ClassifierHead
