"""Taggrams as pictures: a file for each input."""

from pathlib import Path
from typing import TYPE_CHECKING

from tagger.tagging.records import Record
from tagger.tagging.writers import FileWriter

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction


class PngWriter(FileWriter):
    """The tags with the highest scores over time."""

    suffix = ".png"
    binary = True
    needs_prediction = True

    def begin(self) -> None:  # noqa: D102 (the contract documents it)
        # Where it is not installed, that is told now and not after the first file is tagged.
        import matplotlib  # noqa: F401

    def write_file(  # noqa: D102
        self, path: Path, record: Record, prediction: "Prediction | None"
    ) -> None:
        from tagger.tagging.taggram import plot_taggram

        assert prediction is not None
        plot_taggram(prediction, path)


ENTRY = PngWriter
