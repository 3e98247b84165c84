"""Tags as tasks of Label Studio with predictions, to be corrected there by people.

The form is that of Label Studio's import (https://labelstud.io/guide/predictions): a labelling
interface with ``<Audio name="audio" value="$audio"/>`` and, for whole files, ``<Choices name="tags"
toName="audio" choice="multiple">``, or for segments ``<Labels name="tags" toName="audio">``.
"""

import json
from typing import TYPE_CHECKING, Any

from tagger.tagging.records import Record
from tagger.tagging.writers import encodable, span
from tagger.tagging.writers._objects import ListWriter

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction


class LabelStudioWriter(ListWriter):
    """One JSON list with a task for each file that was tagged."""

    suffix = ".json"

    def write(  # noqa: D102 (the contract documents it)
        self, record: Record, prediction: "Prediction | None" = None
    ) -> None:
        if record.error is not None:
            return
        whole = self.header.segments == "none"
        results = _choices(record) if whole else _labels(record)
        scores = [row.score for row in record.rows]
        task = {
            "data": {"audio": encodable(record.path)},
            "predictions": [
                {
                    "model_version": f"{self.header.model} {self.header.model_version}",
                    "score": round(max(scores, default=0.0), 6),
                    "result": results,
                }
            ],
        }
        self.put_item(json.dumps(task))


def _result(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"from_name": "tags", "to_name": "audio", "type": kind, "value": value}


def _choices(record: Record) -> list[dict[str, Any]]:
    if not record.rows:
        return []
    return [_result("choices", {"choices": [row.label for row in record.rows]})]


def _labels(record: Record) -> list[dict[str, Any]]:
    results = []
    for number, row in enumerate(record.rows):
        start, end = span(record, row)
        value = {"start": round(start, 6), "end": round(end, 6), "labels": [row.label]}
        results.append(
            _result("labels", value) | {"id": f"segment-{number}", "score": round(row.score, 6)}
        )
    return results


ENTRY = LabelStudioWriter
