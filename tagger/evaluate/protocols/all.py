"""All tags of the data, on every clip that can be read."""

from typing import ClassVar

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import split_parts
from preprocess.clips.vocabulary import resolve_vocabulary
from tagger.evaluate.protocols import Protocol, Selection


class All(Protocol):
    """Folders 0-b, c and d-f; every clip but corrupt ones, and every tag of the data."""

    summary: ClassVar[str] = "every tag, every clip that can be read, split by folder"

    def select(self, index: ClipIndex, own: Selection) -> Selection:  # noqa: D102
        del own
        return Selection(split_parts(index, "pons2019"), resolve_vocabulary(index, "all"))


ENTRY = All
