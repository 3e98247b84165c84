"""The verb ``export``: a trained network -> a model bundle, checked against Keras."""

import datetime
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocess.features import FrontEnd
from preprocess.store import Store
from tagger import __version__
from tagger.bundle import (
    CALIBRATION,
    CLIP_HEAD,
    CONFIG,
    DESCRIPTION,
    METRICS,
    MODEL_CARD,
    THRESHOLDS,
    VOCABULARY,
    WEIGHTS,
    Bundle,
    Description,
    Export,
    seal,
)
from tagger.calibration import Calibration
from tagger.clip_head import ClipHead
from tagger.config import Config, load_config
from tagger.errors import ConfigError, ModelError, StoreError
from tagger.exporters import EXPORTERS, LIMITS
from tagger.files import (
    atomic_folder,
    remove_temporary_files,
    sha256_of_file,
    temporary_folder,
    write_json,
    write_text,
)
from tagger.models import GS_PREFIX, find_bundle
from tagger.parity import (
    ParityWindows,
    embedding_difference,
    largest_difference,
    printable,
    windows_of_demo,
    windows_of_files,
    windows_of_store,
)
from tagger.run_folder import RunFolder

if TYPE_CHECKING:
    from tagger.data import PreparedData
    from tagger.model import TaggerModel
    from tagger.runtime import Outputs

# Of a run at an address.
_NOT_NEEDED = ("checkpoints", "tensorboard", "evaluation")
# What prediction runs on; every bundle has it.
DEFAULT_FORMAT, DEFAULT_QUANTIZE = "litert", "none"


@dataclass(frozen=True)
class Source:
    """What a bundle is made of.

    Parameters
    ----------
    name : str
        Of the model, for people.
    config : Config
        Effective config.
    tags : tuple of str
        Names of the scores; none for a model of embeddings alone.
    members : tuple of tuple of str
        Label columns that each tag stands for.
    thresholds : list of float or None, optional
        Score from which each tag applies.
    calibration : Calibration, optional
        What is done to clip scores before they are compared with thresholds.
    clip_head : ClipHead, optional
        What makes clip scores of embeddings.
    metrics : dict
        What is known of its quality.
    card : dict of str to str
        Lines of the model card: title -> text.
    """

    name: str
    config: Config
    tags: tuple[str, ...]
    members: tuple[tuple[str, ...], ...] = ()
    thresholds: list[float | None] | None = None
    calibration: Calibration | None = None
    clip_head: ClipHead | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    card: dict[str, str] = field(default_factory=dict)


def write_bundle(
    root: Path, model: "TaggerModel", *, source: Source, windows: ParityWindows
) -> Bundle:
    """Write a bundle with a LiteRT model.

    Parameters
    ----------
    root : Path
        Its folder; a bundle that is there is replaced, in one step.
    model : TaggerModel
        The network, in float32, with its weights.
    source : Source
        The rest.
    windows : ParityWindows
        What the exported model is checked with.

    Returns
    -------
    Bundle

    Raises
    ------
    ModelError
        If the exported model differs from Keras by more than its limit.
    """
    front_end = source.config.make_front_end()
    alpha = model.alpha
    description = Description(
        name=source.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        tagger_version=__version__,
        front_end=front_end.spec(),
        front_end_hash=front_end.spec_hash(),
        input_shapes={name: list(shape) for name, shape in front_end.input_shapes.items()},
        outputs={name: int(output.shape[-1]) for name, output in model.output_model.output.items()},
        aggregate=model.aggregate,
        alpha=None if alpha is None else [float(value) for value in alpha],
        card=dict(source.card),
    )
    with atomic_folder(root) as folder:
        model.save_weights(folder / WEIGHTS)
        source.config.save(folder / CONFIG)
        members = source.members or tuple((tag,) for tag in source.tags)
        write_json(folder / VOCABULARY, {"tags": source.tags, "members": members})
        write_json(folder / THRESHOLDS, {"thresholds": source.thresholds})
        if source.calibration is not None:
            write_json(folder / CALIBRATION, source.calibration.to_json())
        if source.clip_head is not None:
            source.clip_head.save(folder / CLIP_HEAD)
        write_json(folder / METRICS, source.metrics)
        export = _export(
            folder, model, format_=DEFAULT_FORMAT, quantize=DEFAULT_QUANTIZE, windows=windows
        )
        _finish(folder, description, [export], tags=source.tags, metrics=source.metrics)
    return Bundle(root)


def add_export(
    bundle: Bundle, *, format_: str, quantize: str = "none", windows: ParityWindows
) -> Export:
    """Add an exported model to a bundle, or make one anew.

    Raises
    ------
    ModelError
        If the bundle is damaged, the format cannot express the network, or the exported model
        differs from Keras by more than its limit; the bundle is as it was then.
    """
    _check_choice(format_, quantize)
    root = bundle.root
    bundle = Bundle(root)
    bundle.verify()
    model = load_model(bundle)
    # All that can fail happens beside the bundle's own files; then they are renamed.
    remove_temporary_files(root)
    with temporary_folder(root) as temporary:
        folder = temporary / "new"
        folder.mkdir()
        export = _export(folder, model, format_=format_, quantize=quantize, windows=windows)
        # Read again, as another export may have been added meanwhile.
        bundle = Bundle(root)
        kept = {
            name: checksum
            for name, checksum in bundle.checksums.items()
            if PurePosixPath(name).parts[0] != export.file
        }
        others = [e for e in bundle.exports if e.file != export.file]
        _finish(
            folder,
            bundle.description,
            [*others, export],
            tags=bundle.tags(),
            metrics=bundle.metrics(),
            kept=kept,
        )
        for name in (export.file, MODEL_CARD, DESCRIPTION):
            if (root / name).is_dir():
                (root / name).replace(Path(temporary) / "old")
            (folder / name).replace(root / name)
    return export


def load_model(bundle: Bundle) -> "TaggerModel":
    """Keras network of a bundle, with its weights.

    Raises
    ------
    ModelError
        If a file of it is damaged, or this release makes other windows than it was trained on.
    """
    from tagger.model import build_model

    config = load_config(bundle.verified(CONFIG))
    front_end = config.make_front_end()
    bundle.require_front_end(front_end)
    model = build_model(config, front_end, bundle.tags())
    model.load_weights(bundle.verified(WEIGHTS))
    return model


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
    from tagger.model import build_model

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
    if Bundle.is_at(run.bundle):
        try:
            existing = Bundle(run.bundle)
            same_head = existing.checksums.get(CLIP_HEAD) == _checksum(run.clip_head)
            if (
                same_head
                and existing.checksums[WEIGHTS] == sha256_of_file(run.best_weights)
                and _same_decisions(existing, run)
            ):
                existing.verify()
                return []
        except (ModelError, KeyError):
            # Damaged, or of another schema: it is made anew.
            pass
    vocabulary = run.load_vocabulary()
    model = build_model(config, front_end, vocabulary.tags)
    model.load_weights(run.best_weights)
    windows = parity_windows(front_end, clips=clips, run=run, data=data)
    thresholds = run.load_thresholds()
    calibration = run.load_calibration(n_tags=len(vocabulary))
    card = {
        "Model": f"{config.model.backbone.name} backbone, {config.model.head.name} head",
        "Training data": f"{config.data.name}, split {config.data.split}",
    }
    if thresholds is not None:
        card["Thresholds"] = "fitted on the validation clips, tag by tag"
    clip_head = run.load_clip_head(sizes=model.embedding_sizes, n_tags=len(vocabulary))
    if clip_head is not None:
        card["Clip scores"] = (
            f"of mean, maximum and deviation over time of {', '.join(clip_head.layers)} "
            "(clip_head.npz); the exported networks score windows"
        )
    if calibration is not None:
        card["Calibration"] = f"{calibration.method}, fitted on the validation clips, tag by tag"
    source = Source(
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
    bundle = write_bundle(run.bundle, model, source=source, windows=windows)
    return [f"bundle: {run.address / run.bundle.name} (version {bundle.version})"] + [
        f"  {export.describe()}" for export in bundle.exports
    ]


def _checksum(path: Path) -> str | None:
    return sha256_of_file(path) if path.exists() else None


def _metrics_of(
    run: RunFolder, config: Config, clip_head: ClipHead | None
) -> dict[str, dict[str, float]]:
    """Figures of a run's validation clips, as its bundle holds them."""
    by_windows = best_row(run, config)
    if clip_head is None:
        return {"validation": by_windows}
    from tagger.tasks import TASKS

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
    _check_choice(format_, quantize)
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
        lines = export_run(run, clips=clips)
        if lines and (format_, quantize) == (DEFAULT_FORMAT, DEFAULT_QUANTIZE):
            run.push()
            return lines
    bundle = find_bundle(model if run is None else run.root)
    front_end = load_config(bundle.verified(CONFIG)).make_front_end()
    windows = parity_windows(front_end, clips=clips, run=run)
    export = add_export(bundle, format_=format_, quantize=quantize, windows=windows)
    place = bundle.root
    if run is not None:
        run.push()
        place = run.address / run.bundle.name
    return [*lines, f"{place / export.file}", f"  {export.describe()}"]


def best_row(run: RunFolder, config: Config) -> dict[str, float]:
    """Metrics of a run's best epoch; empty before the first has ended."""
    from tagger.evaluate import read_history
    from tagger.tasks import TASKS

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


def parity_windows(
    front_end: FrontEnd,
    *,
    clips: Sequence[Path] = (),
    run: RunFolder | None = None,
    data: "PreparedData | None" = None,
) -> ParityWindows:
    """Windows to check an exported model with: the given files, else validation clips of the run.

    Where there is neither, or the run's store has gone, clips are synthesised.
    """
    if clips:
        return windows_of_files(clips, front_end)
    if data is not None:
        return windows_of_store(data.store, data.rows("validation"))
    if run is not None:
        try:
            store = Store(run.load_config().store.root)
            store.require_front_end(front_end, user="the run")
            parts = run.load_parts(store.index)
            rows = [int(row) for row in np.flatnonzero(parts == "validation")]
            if rows:
                return windows_of_store(store, rows)
        except (StoreError, ConfigError):
            pass
    return windows_of_demo(front_end)


def _check_choice(format_: str, quantize: str) -> None:
    possible = EXPORTERS.get(format_).quantizations
    if quantize not in possible:
        raise ConfigError(
            f"--quantize {quantize}: {format_} has {', '.join(possible)}; choose one of them"
        )


def _ask_keras(model: "TaggerModel", windows: ParityWindows) -> "Outputs":
    outputs = model.output_model(windows.windows, training=False)
    return {name: value.numpy() for name, value in outputs.items()}


def _export(
    folder: Path,
    model: "TaggerModel",
    *,
    format_: str,
    quantize: str,
    windows: ParityWindows,
) -> Export:
    """Export into `folder`, which is to be thrown away if the answers are wrong."""
    exporter = EXPORTERS.get(format_)()
    name = exporter.file_name(quantize)
    limit = LIMITS[quantize]
    exporter.write(model, folder / name, quantize)
    answers = exporter.run(folder / name, windows.windows)
    expected = _ask_keras(model, windows)
    difference = largest_difference(expected, answers)
    if not difference <= limit:
        raise ModelError(
            f"{name}: the exported model's scores differ from Keras by up to {difference:.2g} on "
            f"{windows.source}, more than {limit:g}; "
            + ("use --quantize none" if quantize != "none" else "use another --format")
        )
    share = embedding_difference(expected, answers)
    # Of quantized weights nobody can say how much of it is too much: scores decide alone.
    if quantize == "none" and not share <= limit:
        raise ModelError(
            f"{name}: the exported model's embeddings differ from Keras by up to {share:.2g} of "
            f"their largest value on {windows.source}, more than {limit:g}; use another --format"
        )
    return Export(
        file=name,
        format=format_,
        quantize=quantize,
        max_difference=difference,
        limit=limit,
        n_windows=len(windows),
        clips=windows.source,
    )


def _finish(
    folder: Path,
    description: Description,
    exports: list[Export],
    *,
    tags: Sequence[str],
    metrics: dict[str, Any],
    kept: Mapping[str, str] | None = None,
) -> None:
    lines = [f"# {description.name}", ""]
    lines += [f"{title}: {text}\n" for title, text in description.card.items()]
    lines += [
        f"Input: {description.front_end['name']} front end, windows of "
        + ", ".join(f"{name} {tuple(size)}" for name, size in description.input_shapes.items())
        + ".\n",
        "Outputs per window: "
        + ", ".join(f"{name} ({size})" for name, size in description.outputs.items())
        + f". Clip scores: {description.aggregate} over windows.\n",
    ]
    if tags:
        lines.append(f"Tags ({len(tags)}): {', '.join(tags)}.\n")
    for title, figures in metrics.items():
        lines += [f"## Metrics: {title}", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {_figure(value)} |" for name, value in figures.items()]
        lines.append("")
    lines += ["## Exports", "", *(f"- {export.describe()}" for export in exports), ""]
    lines.append(f"Made {description.created} by tagger {description.tagger_version}.")
    write_text(folder / MODEL_CARD, "\n".join(lines) + "\n")
    seal(folder, description, exports, kept=kept)


def _figure(value: float) -> str:
    return f"{value:g}" if float(value).is_integer() else f"{value:.4f}"
