"""Tags as JSON Lines: one object per file, as soon as the file is done."""

from typing import TYPE_CHECKING

from tagger.tagging.records import Record
from tagger.tagging.writers import TextWriter
from tagger.tagging.writers._objects import json_text

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction


class JsonLinesWriter(TextWriter):
    """The object of `json_text` per line."""

    suffix = ".jsonl"

    def write(  # noqa: D102 (the contract documents it)
        self, record: Record, prediction: "Prediction | None" = None
    ) -> None:
        self.put(json_text(record, self.encoding) + "\n")


ENTRY = JsonLinesWriter
