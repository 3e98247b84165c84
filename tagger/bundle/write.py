"""A trained network -> a model bundle, checked against Keras."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from preprocess.signal.features import FRONT_ENDS, FrontEnd
from preprocess.store.store import Store
from tagger.base.errors import ConfigError, ModelError, StoreError
from tagger.base.files import (
    atomic_folder,
    remove_temporary_files,
    temporary_folder,
    write_bytes,
    write_json,
    write_text,
)
from tagger.base.version import VERSION
from tagger.bundle.essentia import essentia_metadata
from tagger.bundle.exporters import EXPORTERS, LIMITS
from tagger.bundle.parity import (
    ParityWindows,
    embedding_difference,
    largest_difference,
    windows_of_demo,
    windows_of_files,
    windows_of_store,
)
from tagger.bundle.read import (
    CALIBRATION,
    CLIP_HEAD,
    CONFIG,
    DESCRIPTION,
    ESSENTIA,
    METRICS,
    MODEL_CARD,
    THRESHOLDS,
    VOCABULARY,
    WEIGHT_ARRAYS,
    WEIGHTS,
    Aggregate,
    Bundle,
    Description,
    Export,
    seal,
)
from tagger.config import Config, load_config
from tagger.metrics.calibration import Calibration
from tagger.network.task import TASKS
from tagger.runs.folder import RunFolder
from tagger.scoring.clip_heads import ClipHead, save_clip_head
from tagger.scoring.scorer import SCORES

if TYPE_CHECKING:
    from tagger.network.model import TaggerModel
    from tagger.scoring.scorer import Outputs
    from tagger.train.data import PreparedData

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
        What makes clip scores, where it is not the pooling of the network.
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
    alpha = model.alpha
    description = describe_source(
        source,
        outputs={name: int(array.shape[-1]) for name, array in model.output_model.output.items()},
        aggregate=model.aggregate,
        alpha=None if alpha is None else [float(value) for value in alpha],
    )
    with atomic_folder(root) as folder:
        model.save_weights(folder / WEIGHTS)
        write_source(folder, source)
        export = _export(
            folder, model, format_=DEFAULT_FORMAT, quantize=DEFAULT_QUANTIZE, windows=windows
        )
        finish_bundle(folder, description, [export], tags=source.tags, metrics=source.metrics)
    return Bundle(root)


def write_converted_bundle(
    root: Path,
    content: bytes,
    weights: Mapping[str, npt.NDArray[np.floating]],
    *,
    source: Source,
    outputs: dict[str, int],
    answers: npt.NDArray[np.float32],
) -> Bundle:
    """Write a bundle of a LiteRT model that was made without Keras.

    Parameters
    ----------
    root : Path
        Its folder; a bundle that is there is replaced, in one step.
    content : bytes
        The LiteRT file.
    weights : mapping of str to np.ndarray
        Of our network, by name.
    source : Source
        The rest.
    outputs : dict of str to int
        Length of each output.
    answers : np.ndarray [shape=(n_windows, n_tags), dtype=float32]
        Scores of Keras, of the windows of `windows_of_demo`.

    Raises
    ------
    ModelError
        If the model's scores differ from those of Keras by more than its limit.
    """
    windows = windows_of_demo(source.config.make_front_end())
    aggregate = source.config.model.aggregate
    description = describe_source(source, outputs=outputs, aggregate=aggregate, alpha=None)
    exporter = EXPORTERS.get(DEFAULT_FORMAT)()
    with atomic_folder(root) as folder:
        np.savez(folder / WEIGHT_ARRAYS, **weights)  # type: ignore[arg-type]
        write_source(folder, source)
        name = exporter.file_name(DEFAULT_QUANTIZE)
        write_bytes(folder / name, content)
        given = exporter.run(folder / name, windows.windows)
        difference = largest_difference({SCORES: answers}, {SCORES: given[SCORES]})
        limit = LIMITS[DEFAULT_QUANTIZE]
        if not difference <= limit:
            raise ModelError(
                f"{source.name}: the converted model's scores differ from Keras by up to "
                f"{difference:.2g}, more than {limit:g}; report this processor and system"
            )
        export = Export(
            file=name,
            format=DEFAULT_FORMAT,
            quantize=DEFAULT_QUANTIZE,
            max_difference=difference,
            limit=limit,
            n_windows=len(windows),
            clips=windows.source,
        )
        finish_bundle(folder, description, [export], tags=source.tags, metrics=source.metrics)
    return Bundle(root)


def describe_source(
    source: Source, *, outputs: dict[str, int], aggregate: Aggregate, alpha: list[float] | None
) -> Description:
    """Put together what ``bundle.json`` says of a model, besides exports and checksums."""
    front_end = source.config.make_front_end()
    return Description(
        name=source.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        tagger_version=VERSION,
        front_end=front_end.spec(),
        front_end_hash=front_end.spec_hash(),
        input_shapes={name: list(shape) for name, shape in front_end.input_shapes.items()},
        outputs=outputs,
        aggregate=aggregate,
        alpha=alpha,
        card=dict(source.card),
        decides_one=TASKS.get(source.config.task.name).decides_one,
    )


def write_source(folder: Path, source: Source) -> None:
    """Write the files of a bundle that do not depend on the network."""
    source.config.save(folder / CONFIG)
    members = source.members or tuple((tag,) for tag in source.tags)
    write_json(folder / VOCABULARY, {"tags": source.tags, "members": members})
    write_json(folder / THRESHOLDS, {"thresholds": source.thresholds})
    if source.calibration is not None:
        write_json(folder / CALIBRATION, source.calibration.to_json())
    if source.clip_head is not None:
        save_clip_head(source.clip_head, folder / CLIP_HEAD)
    write_json(folder / METRICS, source.metrics)


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
    check_choice(format_, quantize)
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
        finish_bundle(
            folder,
            bundle.description,
            [*others, export],
            tags=bundle.tags(),
            metrics=bundle.metrics(),
            kept=kept,
        )
        for name in (export.file, MODEL_CARD, ESSENTIA, DESCRIPTION):
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
    from tagger.network.model import build_model

    config = load_config(bundle.verified(CONFIG))
    front_end = config.make_front_end()
    bundle.require_front_end(front_end)
    # A clip head with tags of its own leaves those of the network as they were.
    names = bundle.tags()
    if bundle.description.n_tags is not None:
        names = tuple(map(str, range(bundle.outputs.get(SCORES, 0))))
    model = build_model(config, front_end, names)
    model.load_weights(bundle.weights())
    return model


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


def finish_bundle(
    folder: Path,
    description: Description,
    exports: list[Export],
    *,
    tags: Sequence[str],
    metrics: dict[str, Any],
    kept: Mapping[str, str] | None = None,
) -> None:
    """Write the model card and ``bundle.json``, which comes last and makes the bundle.

    Parameters
    ----------
    folder : Path
        Where the other files are.
    description, exports, kept
        As of `tagger.bundle.read.seal`.
    tags : sequence of str
        Names of the scores.
    metrics : dict
        What is known of its quality.
    """
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
    rate = FRONT_ENDS.create(
        description.front_end["name"], description.front_end["params"]
    ).sample_rate
    about = essentia_metadata(description, exports, tags=tags, metrics=metrics, sample_rate=rate)
    write_json(folder / ESSENTIA, about)
    seal(folder, description, exports, kept=kept)


def _figure(value: float) -> str:
    return f"{value:g}" if float(value).is_integer() else f"{value:.4f}"


def check_choice(format_: str, quantize: str) -> None:
    """Refuse a precision that a format has not."""
    possible = EXPORTERS.get(format_).quantizations
    if quantize not in possible:
        raise ConfigError(
            f"--quantize {quantize}: {format_} has {', '.join(possible)}; choose one of them"
        )
