"""What the protocols of MagnaTagATune have in common."""

import numpy as np

from preprocess.index import ClipIndex
from preprocess.vocabulary import Vocabulary
from tagger.errors import ConfigError

N_TOP = 50


def top_tags(index: ClipIndex, protocol: str) -> Vocabulary:
    """Choose the 50 tags that most clips carry, in the order of published results.

    These sort the columns by their frequency and turn the result around, so that of two tags that
    are equally frequent the later column comes first ('metal' before 'female voice').

    Raises
    ------
    ConfigError
        If the data have fewer tags.
    """
    if len(index.tags) < N_TOP:
        raise ConfigError(
            f"protocol {protocol!r} needs {N_TOP} tags, but {index.source} has {len(index.tags)}; "
            "set data.root to MagnaTagATune, or use the protocol 'own'"
        )
    counts = index.labels.sum(axis=0, dtype=np.int64)
    order = np.argsort(counts, kind="stable")[::-1][:N_TOP]
    names = tuple(index.tags[column] for column in order)
    return Vocabulary(names, tuple((name,) for name in names))
