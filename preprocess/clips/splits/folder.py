"""By the first folder of a clip's path, as MagnaTagATune is split by all who use it."""

from typing import Annotated

import numpy as np
from pydantic import Field

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import DTYPE, Parts, Split
from tagger.base.errors import ConfigError
from tagger.base.registry import Params

# Clips of MagnaTagATune whose mp3 files are empty; published protocols leave them out.
CORRUPT_CLIP_IDS = frozenset({"35644", "55753", "57881"})


class FolderParams(Params):
    """Folders of each part, one letter each."""

    train: Annotated[str, Field(description="folders that train")] = "0123456789ab"
    validation: Annotated[str, Field(description="folders that choose")] = "c"
    test: Annotated[str, Field(description="folders that test")] = "def"


class FolderSplit(Split):
    """Folders 0-b train, c validates, d-f test."""

    Params = FolderParams
    params: FolderParams

    def parts(self, index: ClipIndex, *, seed: int, fold: int) -> Parts:  # noqa: D102 (in Split)
        del seed, fold
        part_of_folder = (
            dict.fromkeys(self.params.train, "train")
            | dict.fromkeys(self.params.validation, "validation")
            | dict.fromkeys(self.params.test, "test")
        )
        unknown = sorted({clip.folder for clip in index.clips} - set(part_of_folder))
        if unknown:
            raise ConfigError(
                f"split 'folder' needs clips in folders 0..f, but {index.source} has "
                f"{', '.join(repr(folder) for folder in unknown[:5])}; "
                "use another data.split, e.g. random or column"
            )
        return np.array([part_of_folder[clip.folder] for clip in index.clips], dtype=DTYPE)


def without_corrupt_clips(index: ClipIndex) -> Parts:
    """Parts by folder, of every clip of MagnaTagATune but the corrupt ones."""
    parts = FolderSplit(FolderParams()).parts(index, seed=0, fold=0)
    parts[[clip.id in CORRUPT_CLIP_IDS for clip in index.clips]] = ""
    return parts


ENTRY = FolderSplit
