"""Music tagging: tag any audio, with published models or with your own labels.

>>> import tagger
>>> tagger.top_tags("song.mp3", n=3)  # doctest: +SKIP
[('guitar', 0.488), ('slow', 0.231), ('sitar', 0.155)]
>>> model = tagger.Tagger.load("musicnn-mtt")  # doctest: +SKIP
>>> prediction = model("song.mp3")  # doctest: +SKIP
>>> prediction["guitar"], prediction.taggram.shape  # doctest: +SKIP
(0.488, (9, 50))

`EmbeddingTransformer` puts embeddings into pipelines of scikit-learn.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tagger.base.version import VERSION

__all__ = [
    "Embedding",
    "EmbeddingTransformer",
    "Prediction",
    "Tagger",
    "__version__",
    "top_tags",
]

__version__ = VERSION

if TYPE_CHECKING:
    from tagger.tagging.tagger import Embedding, Prediction, Tagger
    from tagger.tagging.top_tags import top_tags
    from tagger.tagging.transformer import EmbeddingTransformer


def __getattr__(name: str) -> Any:
    # NumPy and the rest take a tenth of a second to import: only who asks for them waits.
    if name in __all__:
        # scikit-learn takes a second more.
        where = {"EmbeddingTransformer": "transformer", "top_tags": "top_tags"}
        module = importlib.import_module(f"tagger.tagging.{where.get(name, 'tagger')}")
        return getattr(module, name)
    raise AttributeError(f"module 'tagger' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
