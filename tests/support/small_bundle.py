"""Small bundles with fresh weights, for tests that need no training."""

import json
from pathlib import Path

import numpy as np

from preprocess.signal.features import FRONT_ENDS
from tagger.bundle.parity import ParityWindows
from tagger.bundle.read import DESCRIPTION, Bundle
from tagger.bundle.write import Source, write_bundle
from tagger.config import load_config
from tagger.network.keras import keras
from tagger.network.model import build_model

TAGS = ("tag 0", "tag 1", "tag 2")
THRESHOLDS = [0.25, None, 0.75]
NARROW = ("model.backbone.name=tiny", "model.head.params.units=8")


def windows(n_windows: int = 4) -> ParityWindows:
    rng = np.random.default_rng(0)
    log_mel = rng.normal(-3, 1, (n_windows, 96, 64)).astype(np.float32)
    return ParityWindows({"log_mel": log_mel}, "random windows")


def small_model(*overrides: str, seed: int = 0):
    """A narrow network on VGGish's front end, and its config."""
    keras.utils.set_random_seed(seed)
    config = load_config(None, [*NARROW, *overrides])
    return build_model(config, FRONT_ENDS.create("vggish", {}), TAGS), config


def make_bundle(root: Path, *overrides: str, seed: int = 0) -> Bundle:
    model, config = small_model(*overrides, seed=seed)
    source = Source(
        name="small",
        config=config,
        tags=TAGS,
        thresholds=THRESHOLDS,
        metrics={"validation": {"epoch": 3.0, "pr_auc_macro": 0.5}},
        card={"Model": "a small one"},
    )
    return write_bundle(root, model, source=source, windows=windows())


def rewrite(root: Path, change) -> None:
    """Apply `change` to what bundle.json holds."""
    content = json.loads((root / DESCRIPTION).read_text())
    change(content)
    (root / DESCRIPTION).write_text(json.dumps(content))


def files_of(root: Path) -> dict[str, bytes]:
    """Content of every file by name."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
