"""The verb ``info``: what a config, a run, a bundle or a store consists of."""

from pathlib import Path
from typing import Any

from preprocess.store.store import MANIFEST, Store
from tagger.base.addresses import is_remote
from tagger.bundle.find import describe_bundle, find_bundle
from tagger.bundle.read import DESCRIPTION, Bundle
from tagger.cloud.locations import location
from tagger.config import Config
from tagger.runs.folder import RunFolder, versions

_MAX_TAGS_SHOWN = 12
# MagnaTagATune's, for a network described without any data.
_DEFAULT_N_TAGS = 188
# Of a run at an address.
# Its bundle first, which a fitted one is described by.
_NOT_NEEDED = ("bundle", "checkpoints", "evaluation", "tensorboard")


def _tags_line(tags: tuple[str, ...]) -> str:
    more = f", ... ({len(tags)} in all)" if len(tags) > _MAX_TAGS_SHOWN else ""
    return f"tags: {', '.join(tags[:_MAX_TAGS_SHOWN])}{more}"


def describe_store(root: Path) -> list[str]:
    """Lines about a patch store.

    Raises
    ------
    StoreError
        If there is none.
    """
    store = Store(location(root))
    spec = store.spec
    shapes = ", ".join(f"{name} {shape}" for name, shape in spec.input_shapes.items())
    padded = sum(clip.padded for clip in store.clips)
    return [
        f"store: {root}",
        f"clips: {len(store)} ({padded} padded), windows: {int(store.n_windows.sum())}",
        f"windows: {shapes}, {spec.dtype}",
        f"front end: {spec.front_end['name']} {spec.front_end['params']} ({spec.front_end_hash})",
        _tags_line(store.tags),
    ]


def describe_model(model: Any) -> list[str]:
    """Lines about a network: a row per layer with weights."""
    rows = [f"{'layer':24} {'output':>20} {'parameters':>12}  trains"]
    for layer in model.layers:
        shape = tuple(getattr(layer, "output_shape", None) or ("",))[1:]
        n_parameters = sum(int(weight.shape.num_elements()) for weight in layer.weights)
        rows.append(
            f"{layer.name:24} {shape!s:>20} {n_parameters:12,d}  "
            f"{'yes' if layer.trainable_weights else 'no'}"
        )
    backbone = model.embedding_model.count_params()
    total = sum(int(weight.shape.num_elements()) for weight in model.weights.values())
    trainable = sum(int(weight.shape.num_elements()) for weight in model.trainable_variables)
    rows.append(
        f"parameters: {total:,d} in all, {backbone:,d} in the backbone, {trainable:,d} trained"
    )
    return rows


def describe_run(root: Path) -> list[str]:
    """Lines about a training run.

    Raises
    ------
    ModelError
        If there is none, or it is of another version.
    """
    from tagger.runs.folder import read_history

    run = RunFolder.at(root)
    run.pull(leave=_NOT_NEEDED)
    if run.is_fitted:
        run.pull(leave=_NOT_NEEDED[1:])
        return [f"run: {run.address}", *describe_bundle(find_bundle(run.root))]
    description = run.require()
    config = run.load_config()
    vocabulary = run.load_vocabulary()
    lines = [
        f"run: {run.address}",
        f"clips: {description['n_clips']}, store: {config.store.root}",
        f"trained on: {description['device']['kind']} ({description['device']['description']}), "
        f"{description['precision']}",
        "versions: " + ", ".join(f"{k} {v}" for k, v in description["versions"].items()),
        _tags_line(vocabulary.tags),
    ]
    history = read_history(run)
    if history:
        monitor = f"validation_{config.train.monitor}"
        lines.append(f"epochs: {len(history)}, last {monitor}: {history[-1][monitor]:.4f}")
    return lines


def describe(config: Config, path: Path | None) -> list[str]:
    """Lines about a run, bundle or store at `path`, or about the network that `config` describes.

    Parameters
    ----------
    config : Config
        Described if there is no `path`. Weights that it names are loaded, and the published smoke
        test runs where the backbone has one.
    path : Path, optional
        A run folder, a bundle or a store.
    """
    path = None if path is None else location(path)
    if path is not None and (path / MANIFEST).exists():
        return describe_store(path)
    if path is not None and is_remote(path) and (path / DESCRIPTION).exists():
        from tagger.bundle.fetch import fetch_bundle

        return describe_bundle(fetch_bundle(str(path)))
    if path is not None and not is_remote(path) and Bundle.is_at(path):
        return describe_bundle(Bundle(path))

    lines = [] if path is None else describe_run(path)
    if path is not None and RunFolder.at(path).is_fitted:
        return lines

    from tagger.bundle.find_weights import load_backbone_weights
    from tagger.network.devices import choose_precision, cpu_flags, find_device
    from tagger.network.model import build_model

    if path is not None:
        run = RunFolder.at(path)
        config, tags = run.load_config(), run.load_vocabulary().tags
    else:
        n_tags = config.data.tags if isinstance(config.data.tags, int) else _DEFAULT_N_TAGS
        tags = tuple(f"tag {number}" for number in range(n_tags))
        if isinstance(config.data.tags, list):
            tags = tuple(config.data.tags)
        lines = ["versions: " + ", ".join(f"{k} {v}" for k, v in versions().items())]
    device = find_device()
    precision = choose_precision(config.train.precision, device, cpu_flags())
    lines.append(f"device: {device.kind} ({device.description}), would train in {precision}")
    model = build_model(config, config.make_front_end(), tags)
    lines += describe_model(model)
    if path is None and config.model.backbone.weights != "none":
        lines += load_backbone_weights(model, config.model.backbone.weights)
    return lines
