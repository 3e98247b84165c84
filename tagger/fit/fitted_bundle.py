"""The bundle of a pretrained model, with a clip head that was fitted to other labels."""

import datetime
import shutil
from dataclasses import replace
from pathlib import Path

from tagger.base.files import atomic_folder, write_json
from tagger.base.version import VERSION
from tagger.bundle.read import (
    CALIBRATION,
    CLIP_HEAD,
    CONFIG,
    METRICS,
    THRESHOLDS,
    VOCABULARY,
    WEIGHTS,
    Bundle,
)
from tagger.bundle.write import Source, finish_bundle
from tagger.network.task import TASKS
from tagger.scoring.clip_heads import save_clip_head


def write_fitted_bundle(root: Path, base: Bundle, *, source: Source) -> Bundle:
    """Write a bundle whose network is that of another one.

    Parameters
    ----------
    root : Path
        Its folder; a bundle that is there is replaced, in one step.
    base : Bundle
        What the clip head was fitted on.
    source : Source
        Labels, clip head and the rest.

    Returns
    -------
    Bundle

    Raises
    ------
    ModelError
        If `base` is damaged, or has no LiteRT model.
    """
    assert source.clip_head is not None
    export = base.export("litert")
    description = replace(
        base.description,
        name=source.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        tagger_version=VERSION,
        card=dict(source.card),
        decides_one=TASKS.get(source.config.task.name).decides_one,
        n_tags=len(source.tags),
    )
    with atomic_folder(root) as folder:
        for name in (WEIGHTS, export.file):
            shutil.copyfile(base.verified(name), folder / name)
        source.config.save(folder / CONFIG)
        write_json(folder / VOCABULARY, {"tags": source.tags, "members": source.members})
        write_json(folder / THRESHOLDS, {"thresholds": source.thresholds})
        write_json(folder / METRICS, source.metrics)
        if source.calibration is not None:
            write_json(folder / CALIBRATION, source.calibration.to_json())
        save_clip_head(source.clip_head, folder / CLIP_HEAD)
        finish_bundle(folder, description, [export], tags=source.tags, metrics=source.metrics)
    return Bundle(root)
