"""Splits: which clips train, which choose, which test."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from preprocess.clips.index import ClipIndex
from preprocess.clips.vocabulary import most_frequent_tags
from tagger.base.errors import ConfigError
from tagger.base.files import content_hash

PARTS = ("train", "validation", "test")
# A clip in no part takes no part.
Parts = npt.NDArray[np.str_]

TRAIN_FOLDERS = frozenset("0123456789ab")
VALIDATION_FOLDERS = frozenset("c")
TEST_FOLDERS = frozenset("def")

# Clips of MagnaTagATune whose mp3 files are empty; published protocols leave them out.
CORRUPT_CLIP_IDS = frozenset({"35644", "55753", "57881"})

# Won et al. 2020 keep clips with at least one of these many most frequent tags.
_WON_TAGS = 50

# Shares of the artist-disjoint split: those of the folders 0-b, c and d-f.
_ARTIST_SHARES = (12 / 16, 1 / 16, 3 / 16)
# The report trains on three quarters. A tenth of those chooses the epoch, as choosing by the test
# quarter would flatter it.
_REPORT_TRAIN_SHARE = 0.75
_REPORT_VALIDATION_SHARE_OF_TRAIN = 0.1


def _by_folder(index: ClipIndex, seed: int) -> Parts:
    del seed
    part_of_folder = (
        dict.fromkeys(TRAIN_FOLDERS, "train")
        | dict.fromkeys(VALIDATION_FOLDERS, "validation")
        | dict.fromkeys(TEST_FOLDERS, "test")
    )
    unknown = sorted({clip.folder for clip in index.clips} - set(part_of_folder))
    if unknown:
        raise ConfigError(
            f"split 'folder' needs clips in folders 0..f, but {index.source} has "
            f"{', '.join(repr(folder) for folder in unknown[:5])}; "
            "use another data.split, e.g. report or column"
        )
    # With a type of its own: of no clips at all NumPy would make numbers.
    return np.array([part_of_folder[clip.folder] for clip in index.clips], dtype="<U10")


def _pons_2019(index: ClipIndex, seed: int) -> Parts:
    """By folder, every clip but the corrupt ones (Pons & Serra, musicnn, 2019)."""
    parts = _by_folder(index, seed)
    parts[[clip.id in CORRUPT_CLIP_IDS for clip in index.clips]] = ""
    return parts


def _won_2020(index: ClipIndex, seed: int) -> Parts:
    """By folder, clips with a top-50 tag only (Won et al., SMC 2020)."""
    parts = _pons_2019(index, seed)
    top = [index.tags.index(tag) for tag in most_frequent_tags(index, _WON_TAGS)]
    parts[~index.labels[:, top].any(axis=1)] = ""
    return parts


def _report(index: ClipIndex, seed: int) -> Parts:
    """Clips at random, 3/4 for training and 1/4 for testing, as in the report."""
    order = np.random.default_rng(seed).permutation(len(index))
    n_train = round(_REPORT_TRAIN_SHARE * len(index))
    n_validation = round(_REPORT_VALIDATION_SHARE_OF_TRAIN * n_train)
    parts = np.full(len(index), "test", dtype="<U10")
    parts[order[:n_train]] = "train"
    parts[order[:n_validation]] = "validation"
    return parts


def _artist_disjoint(index: ClipIndex, seed: int) -> Parts:
    """No artist in two parts; clips without an artist go by track."""
    if not any(clip.artist for clip in index.clips):
        raise ConfigError(
            f"split 'artist' needs artists, but {index.source} has none; give clip_info_final.csv "
            "(or the column artist), or use another data.split"
        )
    groups: dict[str, list[int]] = {}
    for row, clip in enumerate(index.clips):
        key = f"artist:{clip.artist}" if clip.artist else f"track:{clip.track or clip.id}"
        groups.setdefault(key, []).append(row)
    # In the order of a hash, each artist goes to the part that lacks most: the shares come out
    # right, and the order of the rows does not matter.
    order = sorted(groups, key=lambda key: content_hash(f"{seed}:{key}".encode()))
    wanted = np.array(_ARTIST_SHARES) * len(index)
    filled = np.zeros(len(PARTS))
    parts = np.full(len(index), "", dtype="<U10")
    for key in order:
        part = int(np.argmax((wanted - filled) / wanted))
        parts[groups[key]] = PARTS[part]
        filled[part] += len(groups[key])
    return parts


def _column(index: ClipIndex, seed: int) -> Parts:
    """Follow the data set's own column; clips without a part are left out."""
    del seed
    parts = np.array([clip.part for clip in index.clips], dtype="<U10")
    if not (parts != "").any():
        raise ConfigError(
            f"split 'column' needs the column part in {index.source}; "
            "add it or use another data.split, e.g. report"
        )
    return parts


SPLITS: dict[str, Callable[[ClipIndex, int], Parts]] = {
    "folder": _by_folder,
    "won2020": _won_2020,
    "pons2019": _pons_2019,
    "report": _report,
    "artist": _artist_disjoint,
    "column": _column,
}


def split_parts(index: ClipIndex, name: str, *, seed: int = 0) -> Parts:
    """Part of every clip.

    Parameters
    ----------
    index : ClipIndex
        The clips.
    name : str
        One of `SPLITS`: ``folder`` (0-b train, c validation, d-f test), ``won2020``, ``pons2019``,
        ``report`` (3/4 and 1/4 at random), ``artist`` (no artist in two parts), ``column`` (what
        the data set's own file says).
    seed : int
        For the splits that draw.

    Returns
    -------
    np.ndarray [shape=(n_clips,), dtype=str]
        ``"train"``, ``"validation"``, ``"test"`` or, for a clip left out, ``""``.

    Raises
    ------
    ConfigError
        If there is no such split, or the clips lack what it goes by.
    """
    if name not in SPLITS:
        raise ConfigError(f"unknown data.split {name!r}; known: {', '.join(SPLITS)}")
    return SPLITS[name](index, seed)
