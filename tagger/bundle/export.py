"""Trained runs and named models -> bundles, and further formats into them."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from preprocess.clips.vocabulary import Vocabulary
from tagger.base.errors import ConfigError, ModelError
from tagger.base.files import (
    sha256_of_file,
)
from tagger.bundle.find import find_bundle
from tagger.bundle.models import GS_PREFIX
from tagger.bundle.parity import (
    printable,
)
from tagger.bundle.read import (
    CLIP_HEAD,
    CONFIG,
    WEIGHTS,
    Bundle,
)
from tagger.bundle.write import (
    DEFAULT_FORMAT,
    DEFAULT_QUANTIZE,
    Source,
    add_export,
    check_choice,
    parity_windows,
    write_bundle,
)
from tagger.config import Config, load_config
from tagger.runs.folder import RunFolder
from tagger.scoring.clip_heads import ClipHead

if TYPE_CHECKING:
    from tagger.train.data import PreparedData

# Of a run at an address.
_NOT_NEEDED = ("checkpoints", "tensorboard", "evaluation")


def export_run(
    root: Path | RunFolder,
    *,
    data: "PreparedData | None" = None,
    clips: Sequence[Path] = (),
) -> list[str]:
    """Bundle of a run's best weights, made anew if they are others than it holds.

    Parameters
    ----------
    root : Path or RunFolder
        The run folder, local or at an address; or the run, opened and brought up to date.
    data : PreparedData, optional
        Its data, where they are at hand.
    clips : sequence of Path
        Audio files to check the exported model with; default validation clips of the run.

    Returns
    -------
    list of str
        What was made, a line each; nothing if the bundle was up to date.

    Raises
    ------
    ModelError
        If there is no such run, it has no weights yet, or the exported model is wrong.
    """
    from tagger.network.model import build_model

    if not isinstance(root, RunFolder):
        run = RunFolder.at(root)
        run.pull(leave=_NOT_NEEDED)
        run.warn_of_vm()
        lines = export_run(run, data=data, clips=clips)
        run.push()
        return lines
    run = root
    run.require()
    config = run.load_config()
    front_end = config.make_front_end()
    run.require_front_end(front_end)
    if not run.best_weights.exists():
        raise ModelError(f"{run.address}: has no weights yet; let an epoch of its training end")
    if _is_up_to_date(run):
        return []
    vocabulary = run.load_vocabulary()
    model = build_model(config, front_end, vocabulary.tags)
    model.load_weights(run.best_weights)
    windows = parity_windows(front_end, clips=clips, run=run, data=data)
    source = _source_of(run, config, vocabulary, sizes=model.output_sizes)
    bundle = write_bundle(run.bundle, model, source=source, windows=windows)
    return [f"bundle: {run.address / run.bundle.name} (version {bundle.version})"] + [
        f"  {export.describe()}" for export in bundle.exports
    ]


def _is_up_to_date(run: RunFolder) -> bool:
    """Whether a run has a bundle of its best weights, and it is whole."""
    if not Bundle.is_at(run.bundle):
        return False
    try:
        existing = Bundle(run.bundle)
        same_head = existing.checksums.get(CLIP_HEAD) == _checksum(run.clip_head)
        same_weights = existing.checksums[WEIGHTS] == sha256_of_file(run.best_weights)
        if not (same_head and same_weights and _same_decisions(existing, run)):
            return False
        existing.verify()
    except (ModelError, KeyError):
        # Damaged, or of another schema: it is made anew.
        return False
    return True


def _source_of(
    run: RunFolder, config: Config, vocabulary: Vocabulary, *, sizes: Mapping[str, int]
) -> Source:
    """All that a bundle has of a run besides the network."""
    thresholds = run.load_thresholds()
    calibration = run.load_calibration(n_tags=len(vocabulary))
    card = {
        "Model": f"{config.model.backbone.name} backbone, {config.model.head.name} head",
        "Training data": f"{config.data.name}, split {config.data.split}",
    }
    if thresholds is not None:
        card["Thresholds"] = "fitted on the validation clips, tag by tag"
    clip_head = run.load_clip_head(sizes=sizes, n_tags=len(vocabulary))
    if clip_head is not None:
        card["Clip scores"] = (
            f"by the clip head {clip_head.name} of {', '.join(clip_head.outputs)} "
            "(clip_head.npz); the exported networks score windows"
        )
    if calibration is not None:
        card["Calibration"] = f"{calibration.method}, fitted on the validation clips, tag by tag"
    return Source(
        name=printable(run.address.resolve().name),
        config=config,
        tags=vocabulary.tags,
        members=vocabulary.members,
        thresholds=thresholds,
        calibration=calibration,
        clip_head=clip_head,
        metrics=_metrics_of(run, config, clip_head),
        card=card,
    )


def _checksum(path: Path) -> str | None:
    return sha256_of_file(path) if path.exists() else None


def _metrics_of(
    run: RunFolder, config: Config, clip_head: ClipHead | None
) -> dict[str, dict[str, float]]:
    """Figures of a run's validation clips, as its bundle holds them."""
    by_windows = best_row(run, config)
    if clip_head is None:
        return {"validation": by_windows}
    from tagger.network.task import TASKS

    try:
        with np.load(run.validation_scores, allow_pickle=False) as kept:  # noqa: TID251
            labels, scores = kept["gt"], kept["est"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{run.validation_scores}: missing or damaged ({error}); delete {run.clip_head} and "
            "train with --resume, which makes both anew"
        ) from None
    metrics = TASKS.create(config.task.name, config.task.params).metrics(labels, scores)
    of_clips = {f"validation_{name}": value for name, value in metrics.items()}
    return {
        "validation": {name: value for name, value in of_clips.items() if np.isfinite(value)},
        "validation without clip head": by_windows,
    }


def _same_decisions(bundle: Bundle, run: RunFolder) -> bool:
    """Whether a bundle has the thresholds and the calibration of its run."""
    n_tags = len(bundle.tags())
    thresholds = run.load_thresholds()
    return bundle.thresholds() == (
        [None] * n_tags if thresholds is None else thresholds
    ) and bundle.calibration() == run.load_calibration(n_tags=n_tags)


def export_model(
    model: str, *, format_: str, quantize: str = "none", clips: Sequence[Path] = ()
) -> list[str]:
    """Export a training run, bundle or registered model; the verb ``export``.

    Parameters
    ----------
    model : str
        Folder, URI or name.
    format_ : str
        Name of an export format.
    quantize : str
        What is done to the weights.
    clips : sequence of Path
        Audio files to check it with.

    Returns
    -------
    list of str
        What was made, a line each.

    Raises
    ------
    ModelError
        If there is no such model, or the exported one differs from Keras by more than its limit.
    """
    check_choice(format_, quantize)
    folder = RunFolder.at(model)
    folder.pull(leave=_NOT_NEEDED)
    run = folder if folder.exists() else None
    if run is None and model.startswith(GS_PREFIX):
        raise ConfigError(
            f"{model}: an export would be added to the cached copy and lost with the next one; "
            "copy the bundle to a folder (gcloud storage cp -r) and export that"
        )
    lines = []
    if run is not None:
        run.warn_of_vm()
        # One that was fitted has its bundle from the first, with the network of another one.
        lines = [] if run.is_fitted else export_run(run, clips=clips)
        if lines and (format_, quantize) == (DEFAULT_FORMAT, DEFAULT_QUANTIZE):
            run.push()
            return lines
    bundle = find_bundle(model if run is None else run.root)
    front_end = load_config(bundle.verified(CONFIG)).make_front_end()
    trained = None if run is None or run.is_fitted else run
    windows = parity_windows(front_end, clips=clips, run=trained)
    export = add_export(bundle, format_=format_, quantize=quantize, windows=windows)
    place = bundle.root
    if run is not None:
        run.push()
        place = run.address / run.bundle.name
    return [*lines, f"{place / export.file}", f"  {export.describe()}"]


def best_row(run: RunFolder, config: Config) -> dict[str, float]:
    """Metrics of a run's best epoch; empty before the first has ended."""
    from tagger.network.task import TASKS
    from tagger.runs.folder import read_history

    history = read_history(run)
    if not history:
        return {}
    monitor = f"validation_{config.train.monitor}"
    sign = 1 if TASKS.get(config.task.name).monitors[config.train.monitor] else -1
    values = [sign * row.get(monitor, np.nan) for row in history]
    # The first of the best, as training chose; where none could be computed, the last.
    best = int(np.nanargmax(values)) if not np.isnan(values).all() else len(values) - 1
    wanted = ("epoch", "validation_")
    return {
        key: value
        for key, value in history[best].items()
        if key.startswith(wanted) and np.isfinite(value)
    }
