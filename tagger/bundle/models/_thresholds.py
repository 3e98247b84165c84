"""Thresholds of the published models: data of this package, and how they were come by.

Those of MagnaTagATune's tags have the highest F1 on the 4,332 test clips of Won et al. (2020), by
the scores of a published musicnn that was trained on the same labels. ``python -m
tagger.bundle.models._thresholds SCORES.npz TAGS.txt`` writes them anew.

Nobody's labels are at hand for the tags of the Million Song Dataset. The threshold with the highest
F1 of a calibrated scorer is half of that F1 (Lipton, Elkan & Naryanaswamy 2014). On the clips above
the mean F1 is 1.10 times the mean PR-AUC; by the PR-AUC that the authors publish (0.289 and 0.282)
it would be 0.32 here, and half of it 0.16: one threshold for all tags.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tagger.base.files import write_json

FILE = Path(__file__).parent / "networks" / "magnatagatune_thresholds.json"
MSD_THRESHOLD = 0.16
_DIGITS = 4


def magnatagatune_thresholds(tags: Sequence[str]) -> list[float | None]:
    """Threshold of each of MagnaTagATune's fifty most frequent tags."""
    known = json.loads(FILE.read_text(encoding="utf-8"))["thresholds"]
    return [known[tag] for tag in tags]


def fit_thresholds(path: Path, tags: Sequence[str]) -> dict[str, float]:
    """Fit a threshold to each tag of a score archive, the one with the highest F1.

    Parameters
    ----------
    path : Path
        Archive with ``est`` and ``gt``.
    tags : sequence of str
        Names of its columns.

    Returns
    -------
    dict of str to float
        By tag.
    """
    from tagger.metrics.figures import best_f1_thresholds
    from tagger.metrics.score_files import read_scores

    archive = read_scores(path)
    labels, scores = (
        np.asarray(array) for array in (archive.columns.labels, archive.columns.scores)
    )
    found = best_f1_thresholds(labels.astype(np.uint8), scores.astype(np.float32))
    return {
        tag: round(value, _DIGITS)
        for tag, value in zip(tags, found, strict=True)
        if value is not None
    }


def main() -> None:
    """Write the file of thresholds."""
    scores, names = map(Path, sys.argv[1:])
    thresholds = fit_thresholds(scores, names.read_text(encoding="utf-8").split("\n")[:50])
    source = (
        "highest F1 on the 4,332 test clips of Won et al. 2020, by a published musicnn's scores"
    )
    write_json(FILE, {"source": source, "thresholds": thresholds})


if __name__ == "__main__":
    main()
