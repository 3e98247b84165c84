"""What about the labels of a data set makes figures mean little."""

import unicodedata
from collections import defaultdict

import numpy as np

from preprocess.clips.index import ClipIndex

FEW_CLIPS = 100
FEW_OF_A_TAG = 10
_SHOWN = 5
# What people put between tags.
_SEPARATORS = ",;|"


def label_warnings(index: ClipIndex) -> list[str]:
    """Say what a user should know about labels before believing figures, a line each.

    Parameters
    ----------
    index : ClipIndex
        The clips.
    """
    lines = []
    n_clips = len(index)
    counts = index.labels.sum(axis=0, dtype=np.int64)
    if n_clips < FEW_CLIPS:
        lines.append(f"{n_clips} clips: figures are rough with fewer than {FEW_CLIPS}")
    few = [tag for tag, count in zip(index.tags, counts, strict=True) if count < FEW_OF_A_TAG]
    if few:
        lines.append(f"fewer than {FEW_OF_A_TAG} clips carry {_some(few)}")
    always = [tag for tag, count in zip(index.tags, counts, strict=True) if count == n_clips]
    if always:
        lines.append(f"every clip carries {_some(always)}: there is nothing to tell apart")
    joined = [tag for tag in index.tags if any(mark in tag for mark in _SEPARATORS)]
    if len(joined) * 2 > len(index.tags):
        lines.append(
            f"{_some(joined)} look like several tags each; say what stands between two with "
            "data.params.tag_separator"
        )
    for names in alike(index.tags):
        lines.append(
            f"{', '.join(repr(name) for name in names)} differ only in case, blanks, hyphens or "
            "Unicode form; merge them with data.synonyms or rename them if they are the same"
        )
    return lines


def alike(names: tuple[str, ...]) -> list[list[str]]:
    """Names that are the same but for case, blanks, hyphens and Unicode form, together."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        plain = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        groups[plain.replace("-", "").replace("_", "")].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more
