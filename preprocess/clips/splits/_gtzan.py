"""What published splits of GTZAN have in common: they go by the names of clips."""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from preprocess.clips.gtzan_clips import PUBLISHED, UNREADABLE, clip_name
from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import DTYPE, Parts
from tagger.base.errors import ConfigError
from tagger.base.registry import Params


class GtzanSplitParams(Params):
    """Parameters that published splits of GTZAN share."""

    incomplete: Annotated[
        bool, Field(description="go without clips of the split that the data lack")
    ] = False


def parts_by_name(
    index: ClipIndex, published: Mapping[str, str], *, split: str, incomplete: bool
) -> Parts:
    """Parts of clips, or of segments of clips, that are named as in GTZAN.

    Parameters
    ----------
    index : ClipIndex
        Its ids tell which clips they are (`clip_name`).
    published : mapping of str to str
        Part by name of the clip; others are left out.
    split : str
        Its name, for messages.
    incomplete : bool
        Whether the data may lack clips that are published. `UNREADABLE` may always be missing.

    Returns
    -------
    np.ndarray [shape=(n_clips,), dtype=str]

    Raises
    ------
    ConfigError
        If the data lack clips that the split names.
    """
    names = [clip_name(clip.id) for clip in index.clips]
    missing = sorted(set(published) - set(names) - {UNREADABLE})
    if not set(published) & set(names):
        raise ConfigError(
            f"{index.source}: has no clip that split {split!r} ({PUBLISHED}) names, e.g. "
            f"{missing[0]!r}; use it with GTZAN alone, or use k_fold"
        )
    if missing and not incomplete:
        raise ConfigError(
            f"{index.source}: lacks {len(missing)} of the {len(published)} clips that split "
            f"{split!r} ({PUBLISHED}) names, e.g. {missing[0]!r}; add them, or set "
            "data.split_params.incomplete to true and go without"
        )
    return np.array([published.get(name, "") for name in names], dtype=DTYPE)
