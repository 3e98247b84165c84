"""As the data set's own column says; clips without a part are left out."""

import numpy as np

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import DTYPE, Parts, Split
from tagger.base.errors import ConfigError


class ColumnSplit(Split):
    """The column ``part`` of the annotations."""

    def parts(self, index: ClipIndex, *, seed: int, fold: int) -> Parts:  # noqa: D102 (in Split)
        del seed, fold
        parts = np.array([clip.part for clip in index.clips], dtype=DTYPE)
        if not (parts != "").any():
            raise ConfigError(
                f"split 'column' needs the column part in {index.source}; "
                "add it or use another data.split, e.g. random"
            )
        return parts


ENTRY = ColumnSplit
