"""What the model itself was made with: its own split and its own tags."""

from typing import ClassVar

from preprocess.clips.index import ClipIndex
from tagger.evaluate.protocols import Protocol, Selection


class Own(Protocol):
    """The model's own split and tags; comparable with models of the same config alone."""

    summary: ClassVar[str] = "the model's own split and tags"

    def select(self, index: ClipIndex, own: Selection) -> Selection:  # noqa: D102
        del index
        return own


ENTRY = Own
