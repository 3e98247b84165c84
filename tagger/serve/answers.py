"""What the service answers: forms of predictions that people know, and their models for OpenAPI."""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from tagger.tagging.pipeline import ClipOutputs
from tagger.tagging.prediction import Prediction
from tagger.tagging.tagger import Tagger

_DIGITS = 4


class Tag(BaseModel):
    """A tag and its score, from 0 to 1."""

    label: str
    score: float


class Heard(BaseModel):
    """What is said of a file whatever was asked."""

    model: str
    version: str
    file: Annotated[str, Field(description="as the client calls it")]
    seconds: Annotated[float, Field(description="length of the audio")]
    missing: Annotated[float, Field(description="share of it that is cut off or damaged")]
    decode_ms: Annotated[float, Field(description="decoding and front end")]
    compute_ms: Annotated[float, Field(description="the model")]


class Tags(Heard):
    """Tags of a file, highest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "musicnn-mtt",
                "version": "cd3e5e7742e9",
                "file": "song.mp3",
                "seconds": 29.1,
                "missing": 0.0,
                "decode_ms": 26.7,
                "compute_ms": 248.5,
                "tags": [{"label": "guitar", "score": 0.4883}, {"label": "slow", "score": 0.2311}],
            }
        }
    )

    tags: list[Tag]


class Segments(Tags):
    """Tags of a file, and scores over time."""

    decides_one: Annotated[bool, Field(description="one label per clip")]
    labels: Annotated[list[str], Field(description="in the order of thresholds and taggram")]
    thresholds: Annotated[
        list[float | None] | None, Field(description="from which score each applies")
    ]
    times: Annotated[list[float], Field(description="start of each window in seconds")]
    window_seconds: float
    taggram: Annotated[list[list[float]], Field(description="scores of each window")]


class Embeddings(Heard):
    """What the network sees of each window before it decides on tags."""

    layer: str
    times: list[float]
    window_seconds: float
    values: list[list[float]]


class OneMessage(BaseModel):
    """The answer of the musicnn report: the label, or the tags that apply."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"duration": 1.94, "message": "classical", "status": "success"}
        }
    )

    duration: Annotated[float, Field(description="seconds of work")]
    message: str
    status: str


class ModelInfo(BaseModel):
    """A model that is loaded."""

    name: str
    version: str
    tags: int
    embeddings: list[str]
    decides_one: bool
    window_seconds: float | None


class Problem(BaseModel):
    """What was wrong, and what to do about it, in one line."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"error": "song.txt: not decodable audio; convert it to wav, flac or mp3"}
        }
    )

    error: str


def heard(tagger: Tagger, found: ClipOutputs, name: str) -> dict[str, object]:
    """Fields of `Heard`."""
    return {
        "model": tagger.model.name,
        "version": tagger.model.version,
        "file": name,
        "seconds": round(found.seconds, 3),
        "missing": round(found.missing, _DIGITS),
        "decode_ms": round(1000 * found.read_seconds, 2),
        "compute_ms": round(1000 * found.compute_seconds, 2),
    }


def tags_of(
    prediction: Prediction, *, top_k: int | None, threshold: float | str | None
) -> list[dict[str, object]]:
    """Tags that are wanted, highest first; ``"auto"`` stands for the model's own thresholds."""
    ranked = prediction.top()
    if threshold == "auto":
        least = _thresholds(prediction)
        ranked = [tag for tag in ranked if tag["score"] >= least[tag["label"]]]
    elif isinstance(threshold, float):
        ranked = [tag for tag in ranked if tag["score"] >= threshold]
    return [
        {"label": tag["label"], "score": round(tag["score"], _DIGITS)} for tag in ranked[:top_k]
    ]


def _thresholds(prediction: Prediction) -> dict[str, float]:
    values = prediction.thresholds
    if values is None:
        return dict.fromkeys(prediction.tags, 0.5)
    # A tag without a threshold of its own never applies.
    least = np.where(np.isnan(values), np.inf, values)
    return dict(zip(prediction.tags, least.tolist(), strict=True))


def over_time(prediction: Prediction) -> dict[str, object]:
    """Fields of `Segments` beside those of `Tags`."""
    return {
        "decides_one": prediction.decides_one,
        "labels": list(prediction.tags),
        "thresholds": thresholds_of(prediction.thresholds),
        "times": rounded(prediction.times),
        "window_seconds": prediction.window_seconds,
        "taggram": rounded(prediction.taggram),
    }


def thresholds_of(values: npt.NDArray[np.float32] | None) -> list[float | None] | None:
    """Thresholds with None for tags that have none of their own."""
    if values is None:
        return None
    return [None if np.isnan(value) else round(float(value), _DIGITS) for value in values]


def rounded(values: npt.NDArray[np.floating]) -> list[object]:
    """Values as lists of numbers that are short to write."""
    found: list[object] = np.round(values.astype(np.float64), _DIGITS).tolist()
    return found


def message_of(prediction: Prediction) -> str:
    """Label of a single-label model; else the tags that apply, or the best where none does."""
    if prediction.decides_one:
        return prediction.label[0]
    tags = tags_of(prediction, top_k=None, threshold="auto") or tags_of(
        prediction, top_k=1, threshold=None
    )
    return ", ".join(str(tag["label"]) for tag in tags)
