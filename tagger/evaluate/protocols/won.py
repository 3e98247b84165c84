"""Won, Ferraro, Bogdanov & Serra, "Evaluation of CNN-based automatic music tagging" (2020)."""

from typing import ClassVar

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import split_parts
from tagger.evaluate.protocols import Protocol, Published, Selection
from tagger.evaluate.protocols._magnatagatune import N_TOP, top_tags


class Won(Protocol):
    """Folders 0-b, c and d-f; clips with at least one of the 50 tags, without corrupt ones."""

    summary: ClassVar[str] = "Won 2020: 50 tags, clips with at least one of them, split by folder"
    published: ClassVar[tuple[Published, ...]] = (
        Published("musicnn", 0.9109, 0.4509),
        Published("short-chunk CNN + Res", 0.9129, 0.4614),
    )
    test_shape: ClassVar[tuple[int, int]] = (4332, N_TOP)

    def select(self, index: ClipIndex, own: Selection) -> Selection:  # noqa: D102
        del own
        return Selection(split_parts(index, "won2020"), top_tags(index, self.name))


ENTRY = Won
