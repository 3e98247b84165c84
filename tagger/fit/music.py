"""What somebody hands in to learn from -> data set and task."""

from pathlib import Path
from typing import Any

import numpy as np

from preprocess.clips.datasets import DATASETS
from tagger.base.errors import ConfigError
from tagger.base.log import notice
from tagger.base.suggest import did_you_mean
from tagger.classifiers.kinds import CLASSIFIERS
from tagger.config import Config
from tagger.scoring.clip_heads import CLIP_HEADS

# Tables by which a folder is known for another data set than one of folders.
_TABLES = {"annotations_final.csv": "magnatagatune", "clips.csv": "tag_csv"}


def data_of(music: Path) -> dict[str, Any]:
    """Find the settings of the section ``data`` for a folder or a CSV file.

    Parameters
    ----------
    music : Path
        A folder of folders named by label; a CSV file with the columns ``path`` and ``tags``; or a
        folder with such a file or with MagnaTagATune's tables.

    Returns
    -------
    dict of str to value
        By dotted key.

    Raises
    ------
    ConfigError
        If it is neither a folder nor a CSV file.
    """
    if music.is_file():
        if music.suffix.lower() != ".csv":
            raise ConfigError(
                f"{music}: give a folder of folders named by label, or a .csv file with the "
                "columns path and tags"
            )
        return {
            "data.name": "tag_csv",
            "data.params.file": music.name,
            "data.root": str(music.parent),
        }
    if not music.is_dir():
        raise ConfigError(f"{music}: no such folder or file; give one that holds your clips")
    name = next((name for table, name in _TABLES.items() if (music / table).exists()), "folders")
    return {"data.name": name, "data.root": str(music)}


def head_of(name: str) -> dict[str, str]:
    """Find the settings of the section ``model.clip_head`` for the name of a head or a classifier.

    Parameters
    ----------
    name : str
        ``"linear"``, a classifier of `tagger.classifiers`, or another clip head.

    Returns
    -------
    dict of str to value
        By dotted key.

    Raises
    ------
    ConfigError
        If there is neither.
    """
    if name == "linear":
        # With the embeddings that the pretrained model has.
        return {"model.clip_head.name": "none"}
    if name in CLASSIFIERS.names():
        return {"model.clip_head.name": "classifier", "model.clip_head.params.classifier": name}
    if name not in CLIP_HEADS.names():
        known = ["linear", *CLASSIFIERS.names()]
        hint = did_you_mean(name, known)
        raise ConfigError(f"unknown head {name!r}{hint}; known: {', '.join(known)}")
    return {"model.clip_head.name": name}


def task_of(config: Config) -> str:
    """Name the task that labels ask for: one label per clip, or several tags.

    Raises
    ------
    ConfigError
        If the labels cannot be read.
    """
    index = DATASETS.create(config.data.name, config.data.params).index(config.data.root)
    alone = bool((index.labels.sum(axis=1, dtype=np.int64) == 1).all())
    name = "single_label" if alone else "multilabel"
    what = "each clip has one label" if alone else "clips have several tags or none"
    other = "multilabel" if alone else "single_label"
    notice(f"task: {name}, as {what} (--task {other} for the other)")
    return name
