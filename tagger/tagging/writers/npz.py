"""Taggrams as NumPy archives: all scores over time, a file for each input."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tagger.base.files import atomic_write
from tagger.tagging.records import Record
from tagger.tagging.writers import FileWriter

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction


class NpzWriter(FileWriter):
    """Arrays ``taggram`` [n_windows, n_tags], ``times``, ``tags``, ``scores``, ``window_seconds``.

    They hold all tags and windows, whatever is selected.
    """

    suffix = ".npz"
    binary = True
    needs_prediction = True

    def write_file(  # noqa: D102 (the contract documents it)
        self, path: Path, record: Record, prediction: "Prediction | None"
    ) -> None:
        assert prediction is not None
        with atomic_write(path) as file:
            np.savez(
                file,
                taggram=np.asarray(prediction.taggram, np.float32),
                times=np.asarray(prediction.times, np.float64),
                # Of the type str, which needs no pickle.
                tags=np.array(prediction.tags, np.str_),
                scores=np.asarray(prediction.scores, np.float32),
                window_seconds=np.float64(prediction.window_seconds),
            )


ENTRY = NpzWriter
