"""What storing patches as float16 does to the scores of a trained run.

    python benchmarks/float16_scores.py RUN --data-root CLIPS [--n-clips 120]

Slices the first clips of the run's test part anew, scores the patches as float32 and rounded to
float16, and prints the differences and both macro ROC-AUC.
"""

import argparse
from pathlib import Path

import numpy as np

from preprocess.signal.windows import windows_of_file
from preprocess.store.store import Store
from tagger.bundle.read import Bundle
from tagger.bundle.write import load_model
from tagger.metrics.figures import multilabel_metrics
from tagger.runs.folder import RunFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--store-root", type=Path)
    parser.add_argument("--n-clips", type=int, default=120)
    arguments = parser.parse_args()

    run = RunFolder(arguments.run)
    model = load_model(Bundle(run.bundle))
    front_end = run.load_config().make_front_end()
    store = Store(arguments.store_root or run.load_config().store.root)
    rows = np.flatnonzero(run.load_parts(store.index) == "test")[: arguments.n_clips]
    labels = run.load_vocabulary().labels(store.index.labels[rows], store.tags)
    clip_scores: dict[str, list[np.ndarray]] = {"float32": [], "float16": []}
    worst_window = 0.0
    for row in rows:
        path = arguments.data_root / store.clips[row].record.path
        windows, _ = windows_of_file(path, front_end)
        window_scores = {
            dtype: model.score_windows(
                {name: array.astype(dtype) for name, array in windows.items()}
            )
            for dtype in clip_scores
        }
        difference = np.abs(window_scores["float32"] - window_scores["float16"]).max()
        worst_window = max(worst_window, float(difference))
        for dtype, scores in window_scores.items():
            clip_scores[dtype].append(model.clip_head({"scores": scores}))
    exact, rounded = (np.stack(clip_scores[dtype]) for dtype in ("float32", "float16"))
    print(f"clips: {len(rows)}")
    print(f"largest difference of a window's score: {worst_window:.2e}")
    print(f"largest difference of a clip's score: {np.abs(exact - rounded).max():.2e}")
    for dtype, scores in (("float32", exact), ("float16", rounded)):
        summary = multilabel_metrics(labels, scores).summary
        print(
            f"{dtype}: ROC-AUC {summary['roc_auc_macro']:.6f}, PR-AUC {summary['pr_auc_macro']:.6f}"
        )


if __name__ == "__main__":
    main()
