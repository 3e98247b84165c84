"""Tags as JAMS (Humphrey et al., ISMIR 2014): the annotation format of MIR, a file for each input.

The schema is that of JAMS 0.3 (https://jams.readthedocs.io), the namespace ``tag_open``.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tagger.base.files import write_json
from tagger.tagging.records import Record
from tagger.tagging.writers import FileWriter, encodable, span

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction

_VERSION = "0.3.5"


class JamsWriter(FileWriter):
    """One annotation: an observation per tag of the file or of a segment, with its score."""

    suffix = ".jams"

    def write_file(  # noqa: D102 (the contract documents it)
        self, path: Path, record: Record, prediction: "Prediction | None"
    ) -> None:
        observations = []
        for row in record.rows:
            start, end = span(record, row)
            observations.append(
                {
                    "time": round(start, 6),
                    "duration": round(end - start, 6),
                    "value": encodable(row.label),
                    "confidence": round(row.score, 6),
                }
            )
        about = {
            "annotation_tools": f"tagger {self.header.tagger_version}",
            "annotation_rules": f"{self.header.model} {self.header.model_version}",
            "data_source": "program",
            "version": self.header.time,
            "corpus": "",
            "validation": "",
            "curator": {"name": "", "email": ""},
            "annotator": {},
        }
        annotation = {
            "namespace": "tag_open",
            "annotation_metadata": about,
            "data": observations,
            "sandbox": {},
            "time": 0.0,
            "duration": round(record.seconds, 6),
        }
        file = {
            "title": encodable(Path(record.path).stem),
            "artist": "",
            "release": "",
            "duration": round(record.seconds, 6),
            "identifiers": {},
            "jams_version": _VERSION,
        }
        content = {
            "annotations": [annotation],
            "file_metadata": file,
            "sandbox": {"path": encodable(record.path)},
        }
        write_json(path, content)


ENTRY = JamsWriter
