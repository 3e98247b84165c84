"""Clips and what is known of their windows: heard by a model, kept in a store, or in a table."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.clips.datasets import DATASETS
from preprocess.clips.datasets.feature_table import feature_values
from preprocess.clips.index import ClipIndex
from preprocess.signal.features import FrontEnd
from preprocess.store.store import Store
from tagger.base.errors import ConfigError, ModelError
from tagger.base.log import failed
from tagger.bundle.find import find_bundle
from tagger.bundle.light_model import LightModel
from tagger.config import Config, FitConfig
from tagger.fit.embeddings import features_of_clips
from tagger.scoring.scorer import Floats, Outputs
from tagger.tagging.tagger import Tagger

# Name of what a table or a store has, in place of the embeddings of a model.
VALUES = "values"

# Of a window: seconds are no exact multiples of hops.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Clips:
    """Clips that can be used.

    Parameters
    ----------
    index : ClipIndex
        The clips.
    outputs : sequence of dict of str to np.ndarray [shape=(n_windows, n_dimensions)]
        Of each clip's windows, by name.
    names : tuple of str
        Of the outputs.
    """

    index: ClipIndex
    outputs: Sequence[Outputs]
    names: tuple[str, ...]


def read_clips(config: Config) -> Clips:
    """Clips of a config, and what its section ``fit`` takes their features from.

    Raises
    ------
    ConfigError
        If data or table are not there, or do not fit.
    ModelError
        If no clip can be read.
    StoreError
        If there is no store, or it was made by another front end.
    """
    fit = config.fit or FitConfig()
    if config.data.name == "feature_table":
        found = _of_table(config, by_segment=fit.rows == "segments")
    elif fit.model == "none":
        found = _of_store(config)
    else:
        return _of_model(config, fit)
    if fit.middle_seconds is not None:
        raise ConfigError(
            "fit.middle_seconds: only a model knows how long its windows are; set "
            "fit.middle_windows to a number of them"
        )
    return replace(found, outputs=[middle(one, fit.middle_windows) for one in found.outputs])


def middle_windows(fit: FitConfig, front_end: FrontEnd) -> int | None:
    """Windows in the middle of a clip that a config wants; None for all.

    Parameters
    ----------
    fit : FitConfig
        Its ``middle_windows`` or ``middle_seconds`` count.
    front_end : FrontEnd
        Of the model that hears them.

    Raises
    ------
    ConfigError
        If a window of the front end is a whole clip.
    """
    if fit.middle_seconds is None:
        return fit.middle_windows
    length, hop = front_end.window_seconds, front_end.hop_seconds
    if length is None or hop is None:
        raise ConfigError(
            "fit.middle_seconds: the front end of this model makes one window of a whole clip; "
            "leave it out"
        )
    return 1 + max(0, math.floor((fit.middle_seconds - length) / hop + _ROUNDING))


def _of_table(config: Config, *, by_segment: bool) -> Clips:
    read = feature_values(config.data.root, config.data.params)
    rows_of: dict[str, list[int]] = {}
    for row, clip in enumerate(read.index.clips):
        rows_of.setdefault(clip.id if by_segment else clip.track, []).append(row)
    groups = list(rows_of.values())
    firsts = [rows[0] for rows in groups]
    index = read.index.subset(firsts)
    if not by_segment:
        clips = [replace(clip, id=clip.track, path=clip.track) for clip in index.clips]
        index = ClipIndex(index.tags, clips, index.labels, index.source)
    outputs = [{VALUES: read.values[rows]} for rows in groups]
    return Clips(index, outputs, (VALUES,))


def _of_store(config: Config) -> Clips:
    store = Store(config.store.root)
    store.require_front_end(config.make_front_end(), user="the config")
    (name, shape), *others = store.spec.input_shapes.items()
    if others or len(shape) != 1:
        raise ConfigError(
            f"{store.root}: holds no rows of values; use a front end such as librosa, or name a "
            "pretrained model in fit.model"
        )
    outputs = [
        {VALUES: store.read(row)[name].astype(np.float32)} for row in range(len(store.clips))
    ]
    return Clips(store.index, outputs, (VALUES,))


def _of_model(config: Config, fit: FitConfig) -> Clips:
    index = DATASETS.create(config.data.name, config.data.params).index(config.data.root)
    tagger = Tagger(LightModel(find_bundle(fit.model)), most_missing=config.data.most_missing)
    names = tuple(tagger.embeddings)
    n_windows = middle_windows(fit, tagger.front_end)
    found = heard(
        tagger,
        index,
        config.data.root,
        outputs=names,
        make=lambda outputs: middle(outputs, n_windows),
    )
    return Clips(found.index, found.made, names)


@dataclass(frozen=True)
class Heard:
    """Clips that a model has heard.

    Parameters
    ----------
    index : ClipIndex
        The clips that can be read.
    made : list
        Of each of these, what was made of the model's outputs.
    unused : dict of str to str
        The other clips: path -> reason.
    """

    index: ClipIndex
    made: list[Any]
    unused: dict[str, str]


def heard(
    tagger: Tagger,
    index: ClipIndex,
    root: Path,
    *,
    outputs: Sequence[str],
    make: Callable[[Mapping[str, Floats]], Any],
) -> Heard:
    """Let a model hear clips; each one that cannot be read is told.

    Parameters
    ----------
    tagger : Tagger
        The model.
    index : ClipIndex
        The clips.
    root : Path
        Folder that their paths start from.
    outputs, make
        As of `features_of_clips`.

    Raises
    ------
    ModelError
        If no clip can be read.
    """
    paths = [root / clip.path for clip in index.clips]
    made, failures = features_of_clips(tagger, paths, outputs=outputs, make=make)
    unused = {index.clips[place].path: str(error) for place, error in failures.items()}
    for message in unused.values():
        failed(message)
    rows = [row for row, one in enumerate(made) if one is not None]
    if not rows:
        raise ModelError(f"{root}: no clip can be read; see above")
    return Heard(index.subset(rows), [made[row] for row in rows], unused)


def heard_one(tagger: Tagger, path: Path, *, outputs: Sequence[str]) -> Outputs:
    """Ask what a model says of one clip, kept or computed.

    Raises
    ------
    TaggerError
        If it cannot be read.
    """
    (found,), failures = features_of_clips(tagger, [path], outputs=outputs, make=dict)
    if found is None:
        raise failures[0]
    return found


def middle(outputs: Mapping[str, Floats], n_windows: int | None) -> Outputs:
    """Take some windows in the middle of a clip; all where there are no more."""

    def cut(array: Floats) -> Floats:
        if n_windows is None:
            return array
        start = max(0, (len(array) - n_windows) // 2)
        return array[start : start + n_windows]

    return {name: cut(array) for name, array in outputs.items()}
