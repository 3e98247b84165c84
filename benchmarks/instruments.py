"""How well a model that was trained elsewhere hears the instruments of a data set.

    python benchmarks/instruments.py MODEL CONFIG [--set data.root=FOLDER] [--part test]

Scores the clips of a part of the data set's own split. Over the tags that both the model and the
data set know and that name an instrument or a voice, prints ROC-AUC and PR-AUC per tag and macro,
and how often a clip's true tags rank above its others (ROC-AUC within a clip, mean over clips).
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from preprocess.clips.datasets import DATASETS
from tagger import Tagger
from tagger.config import load_config
from tagger.metrics.figures import multilabel_metrics

# Instruments and voices among MagnaTagATune's 50 most frequent tags; the rest are genres, tempi,
# moods and negations.
INSTRUMENTS = (
    "guitar;strings;drums;piano;violin;vocal;synth;female;male;singing;vocals;harpsichord;flute;"
    "woman;sitar;man;choir;voice;harp;cello;choral;male vocal;female vocal;male voice;female voice"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--part", default="test")
    arguments = parser.parse_args()

    config = load_config(arguments.config, arguments.overrides)
    index = DATASETS.create(config.data.name, config.data.params).index(config.data.root)
    parts = config.parts_of(index)
    rows = np.flatnonzero(parts == arguments.part)
    tagger = Tagger.load(arguments.model)
    paths = [config.data.root / index.clips[row].path for row in rows]
    scores = np.stack([prediction.scores for prediction in tagger.predict_many(paths)])
    tags = [tag for tag in INSTRUMENTS.split(";") if tag in tagger.tags and tag in index.tags]
    scores = scores[:, [tagger.tags.index(tag) for tag in tags]]
    labels = index.labels[rows][:, [index.tags.index(tag) for tag in tags]]

    metrics = multilabel_metrics(labels, scores)
    for number in np.argsort(-np.nan_to_num(metrics.roc_auc, nan=-1)):
        if metrics.n_positive[number]:
            print(
                f"{tags[number]:14} ROC-AUC {metrics.roc_auc[number]:.4f}, "
                f"PR-AUC {metrics.pr_auc[number]:.4f}, {metrics.n_positive[number]} clips"
            )
    summary = metrics.summary
    print(
        f"{tagger.model.name}, {len(rows)} clips, {summary['n_tags_scored']} of {len(tags)} tags "
        f"scored: macro ROC-AUC {summary['roc_auc_macro']:.4f}, PR-AUC "
        f"{summary['pr_auc_macro']:.4f}, positive rate {summary['positive_rate']:.4f}"
    )
    occurring = labels[:, metrics.n_positive > 0]
    mixed = (occurring.any(axis=1)) & (~occurring.all(axis=1))
    within = [
        roc_auc_score(truth, row)
        for truth, row in zip(
            occurring[mixed], scores[:, metrics.n_positive > 0][mixed], strict=True
        )
    ]
    print(f"within a clip: ROC-AUC {np.mean(within):.4f}, mean over {len(within)} clips")


if __name__ == "__main__":
    main()
