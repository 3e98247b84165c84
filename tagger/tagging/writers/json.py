"""Tags as one JSON document: a list with an object per file."""

from typing import TYPE_CHECKING

from tagger.tagging.records import Record
from tagger.tagging.writers import TextWriter
from tagger.tagging.writers._objects import json_text

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction


class JsonWriter(TextWriter):
    """The objects of `json_text` in a list, each written as soon as its file is done."""

    suffix = ".json"
    _separator = "["

    def write(  # noqa: D102 (the contract documents it)
        self, record: Record, prediction: "Prediction | None" = None
    ) -> None:
        self.put(f"{self._separator}\n{json_text(record, self.encoding)}")
        self._separator = ","

    def end(self) -> None:  # noqa: D102
        self.put("[]\n" if self._separator == "[" else "\n]\n")


ENTRY = JsonWriter
