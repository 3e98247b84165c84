"""A prediction of random scores over time, for tests of what shows predictions."""

import numpy as np

from tagger.tagging.prediction import Prediction


def make_prediction(path="a.mp3", *, tags, scores, n_windows=4, hop=0.96, **more):
    rng = np.random.default_rng(0)
    fields = {
        "path": path,
        "tags": tuple(tags),
        "scores": np.array(scores, np.float32),
        "taggram": rng.random((n_windows, len(tags)), dtype=np.float32),
        "times": hop * np.arange(n_windows),
        "window_seconds": 0.975,
        "seconds": hop * (n_windows - 1) + 0.975,
    }
    return Prediction(**fields | more)
