"""Tags in the form that audio classifiers of Hugging Face's pipelines answer in."""

import json
from typing import TYPE_CHECKING

from tagger.tagging.records import Record
from tagger.tagging.writers._objects import ListWriter

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction


class HuggingFaceWriter(ListWriter):
    """A list of ``{"label", "score"}`` for each file, and a list of these lists around them.

    They come in the order of the files; of one that failed the list is empty.
    """

    suffix = ".json"

    def write(  # noqa: D102 (the contract documents it)
        self, record: Record, prediction: "Prediction | None" = None
    ) -> None:
        tags = [{"label": row.label, "score": round(row.score, 6)} for row in record.rows]
        self.put_item(json.dumps(tags))


ENTRY = HuggingFaceWriter
