"""Multi-label music tagging: train on your own labels, tag any audio.

>>> from tagger import Tagger
>>> Tagger.load("runs/scenes").predict("song.mp3").top(3)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Tagger", "__version__"]

if TYPE_CHECKING:
    from tagger.predict import Tagger


def __getattr__(name: str) -> Any:
    # Tagger needs TensorFlow, which takes seconds to import: only who asks for it waits.
    if name == "Tagger":
        from tagger.predict import Tagger

        return Tagger
    raise AttributeError(f"module 'tagger' has no attribute {name!r}")
