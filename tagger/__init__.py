"""Multi-label music tagging: train on your own labels, tag any audio.

>>> import tagger
>>> tagger.top_tags("song.mp3", n=3)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from tagger.base.version import VERSION

__all__ = ["Embedding", "Prediction", "Tagger", "__version__", "top_tags"]

__version__ = VERSION

if TYPE_CHECKING:
    from tagger.tagging.tagger import Embedding, Prediction, Tagger, top_tags


def __getattr__(name: str) -> Any:
    # NumPy and the rest take a tenth of a second to import: only who asks for them waits.
    if name in __all__:
        from tagger.tagging import tagger as module

        return getattr(module, name)
    raise AttributeError(f"module 'tagger' has no attribute {name!r}")
