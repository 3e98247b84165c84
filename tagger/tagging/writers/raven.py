"""Tags as selection tables of Raven, the sound analysis program of bird watchers' laboratories."""

from pathlib import Path
from typing import TYPE_CHECKING

from tagger.base.files import write_text
from tagger.tagging.records import Record
from tagger.tagging.writers import FileWriter, encodable, span

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction

_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Tag",
    "Score",
)
# Raven wants a band: what music has.
_BAND = ("0.0", "20000.0")


class RavenWriter(FileWriter):
    """A row per tag and segment, with tabs between the columns that Raven asks for."""

    suffix = ".selections.txt"
    default_segments = "merged"

    def write_file(  # noqa: D102 (the contract documents it)
        self, path: Path, record: Record, prediction: "Prediction | None"
    ) -> None:
        lines = ["\t".join(_COLUMNS)]
        for number, row in enumerate(record.rows, start=1):
            start, end = span(record, row)
            label = " ".join(encodable(row.label).replace("\t", " ").splitlines())
            cells = (str(number), "Spectrogram 1", "1", f"{start:.6f}", f"{end:.6f}", *_BAND)
            lines.append("\t".join((*cells, label, f"{row.score:.6f}")))
        write_text(path, "\n".join(lines) + "\n")


ENTRY = RavenWriter
