"""Tags as CSV: a row per file and tag."""

import csv
from typing import TYPE_CHECKING

from tagger.writers import Writer

if TYPE_CHECKING:
    from tagger.predict import Prediction


class CsvWriter(Writer):
    """Columns path, rank, tag, score."""

    def begin(self) -> None:  # noqa: D102 (the contract documents it)
        csv.writer(self.stream, lineterminator="\n").writerow(["path", "rank", "tag", "score"])

    def write(self, prediction: "Prediction") -> None:  # noqa: D102
        rows = csv.writer(self.stream, lineterminator="\n")
        for rank, (tag, score) in enumerate(self.top(prediction), start=1):
            rows.writerow([prediction.path, rank, tag, f"{score:.6f}"])


ENTRY = CsvWriter
