"""Weights by a path, a model or a name, and into the backbone with them."""

from pathlib import Path
from typing import Any

from tagger.base.errors import ModelError
from tagger.bundle.find import find_bundle, is_model_folder
from tagger.bundle.models import registered_models
from tagger.bundle.models.vggish import CHECKPOINT
from tagger.cloud.download import RemoteFile, cached_download
from tagger.network.weights import CHECKPOINT_SUFFIXES

# Weights that can be named instead of given as a path.
REGISTERED: dict[str, RemoteFile] = {"vggish": CHECKPOINT}


def resolve_weights(name: str) -> Path:
    """Path of a weight file given by its path, by a model, or by a name.

    Parameters
    ----------
    name : str
        A file; the folder of a training run or of a bundle; a name of `REGISTERED`, which is
        downloaded at need; or that of a registered model, which is pulled at need.

    Raises
    ------
    ModelError
        If there is neither such a file nor such a model or name, or it cannot be had.
    """
    if name in REGISTERED:
        return cached_download(REGISTERED[name])
    path = Path(name)
    if path.is_file() or any(Path(f"{path}{suffix}").is_file() for suffix in CHECKPOINT_SUFFIXES):
        return path
    models = registered_models()
    if is_model_folder(path) or name in models:
        return find_bundle(name).weights()
    raise ModelError(
        f"{name}: no such weight file, no model's folder and no registered name "
        f"({', '.join(dict.fromkeys((*REGISTERED, *models)))}); check model.backbone.weights"
    )


def load_backbone_weights(model: Any, name: str) -> list[str]:
    """Load weights given by path or registered name into the backbone of a `TaggerModel`.

    Returns
    -------
    list of str
        What was loaded, and how the published smoke test ended, a line each.
    """
    named = model.backbone.load_named(model.embedding_model, name)
    if named is not None:
        return [f"{len(named)} tensors of {name} loaded"]
    path = resolve_weights(name)
    used = model.backbone.load_weights(model.embedding_model, path)
    lines = [f"{len(used)} tensors loaded from {path}"]
    test = model.backbone.smoke_test(model.embedding_model)
    if test is not None:
        lines.append(f"published smoke test: {test}")
    return lines
