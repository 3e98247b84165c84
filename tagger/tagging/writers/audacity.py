"""Tags as Audacity's labels: a text file for each input, for File > Import > Labels."""

from pathlib import Path
from typing import TYPE_CHECKING

from tagger.base.files import write_text
from tagger.tagging.records import Record
from tagger.tagging.writers import FileWriter, encodable, span

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction


class AudacityWriter(FileWriter):
    """A line per tag: start and end in seconds and the tag, with tabs between them."""

    suffix = ".txt"
    default_segments = "merged"

    def write_file(  # noqa: D102 (the contract documents it)
        self, path: Path, record: Record, prediction: "Prediction | None"
    ) -> None:
        lines = []
        for row in record.rows:
            start, end = span(record, row)
            # Tabs and the ends of lines, of which Unicode has several, part the fields.
            label = " ".join(row.label.replace("\t", " ").splitlines())
            lines.append(f"{start:.6f}\t{end:.6f}\t{encodable(label)}\n")
        write_text(path, "".join(lines))


ENTRY = AudacityWriter
