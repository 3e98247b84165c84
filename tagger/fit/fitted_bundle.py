"""The bundle of a pretrained model, with a clip head that was fitted to other labels."""

import shutil
from dataclasses import replace
from pathlib import Path

from tagger.base.files import atomic_folder
from tagger.bundle.read import Bundle
from tagger.bundle.write import Source, describe_source, finish_bundle, write_source


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
        describe_source(source, outputs=base.outputs, aggregate=base.aggregate, alpha=base.alpha),
        n_tags=len(source.tags),
    )
    weights = base.weights()
    with atomic_folder(root) as folder:
        for path in (weights, base.verified(export.file)):
            shutil.copyfile(path, folder / path.name)
        write_source(folder, source)
        finish_bundle(folder, description, [export], tags=source.tags, metrics=source.metrics)
    return Bundle(root)
