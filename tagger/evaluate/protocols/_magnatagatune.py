"""What the protocols of MagnaTagATune have in common."""

from preprocess.clips.index import ClipIndex
from preprocess.clips.vocabulary import Vocabulary, most_frequent_tags
from tagger.base.errors import ConfigError

N_TOP = 50
# Equally frequent tags come in the order of the columns, but for these two: published results have
# them in this order.
_TIE = ("metal", "female voice")


def top_tags(index: ClipIndex, protocol: str) -> Vocabulary:
    """Choose the 50 tags that most clips carry, in the order of published results.

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
    names = most_frequent_tags(index, N_TOP)
    if set(_TIE) <= set(names):
        places = sorted(names.index(name) for name in _TIE)
        counts = [int(index.labels[:, index.tags.index(name)].sum()) for name in _TIE]
        if counts[0] == counts[1]:
            for place, name in zip(places, _TIE, strict=True):
                names[place] = name
    return Vocabulary(tuple(names), tuple((name,) for name in names))
