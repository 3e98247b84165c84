"""Tags as one JSON document: a list with an object per file."""

from typing import TYPE_CHECKING

from tagger.tagging.records import Record
from tagger.tagging.writers._objects import ListWriter, json_text

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction


class JsonWriter(ListWriter):
    """The objects of `json_text` in a list, each written as soon as its file is done."""

    suffix = ".json"

    def write(  # noqa: D102 (the contract documents it)
        self, record: Record, prediction: "Prediction | None" = None
    ) -> None:
        self.put_item(json_text(record, self.encoding))


ENTRY = JsonWriter
