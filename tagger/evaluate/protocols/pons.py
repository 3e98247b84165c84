"""Pons & Serra, "musicnn: pre-trained convolutional neural networks for music tagging" (2019)."""

from typing import ClassVar

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import split_parts
from tagger.evaluate.protocols import Protocol, Published, Selection
from tagger.evaluate.protocols._magnatagatune import N_TOP, top_tags


class Pons(Protocol):
    """Folders 0-b, c and d-f; every clip but the three corrupt ones, and 50 tags."""

    summary: ClassVar[str] = "Pons 2019: 50 tags, every clip that can be read, split by folder"
    published: ClassVar[tuple[Published, ...]] = (
        Published("musicnn", 0.9067, 0.3831),
        Published("VGG", 0.9030, 0.3823),
    )
    test_shape: ClassVar[tuple[int, int]] = (5329, N_TOP)

    def select(self, index: ClipIndex, own: Selection) -> Selection:  # noqa: D102
        del own
        return Selection(split_parts(index, "pons2019"), top_tags(index, self.name))


ENTRY = Pons
