"""What verbs leave behind, to be compared and to be read as their users would."""

import csv
import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from small_store import small_config

from preprocess.store.store import Store
from tagger.base.files import TEMPORARY_PREFIX
from tagger.bundle.read import Bundle

_TIMES = {"seconds", "patches_per_second"}
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")
_DURATION = re.compile(rb'"(seconds|patches_per_second)": [0-9.e-]+')
# Of the code, which somebody may be working at.
_COMMIT = re.compile(rb'"commit": "[0-9a-z-]+"')
_CHECKSUM = re.compile(rb'"checksum": "[0-9a-f]+"')
_CARD = re.compile(rb'"MODEL_CARD.md": "[0-9a-f]{64}"')


def training_config(folder: Path) -> Path:
    config = small_config(
        folder,
        "train.epochs=3",
        # After every step.
        "train.checkpoint_minutes=0.00001",
        "train.average_decay=0.9",
        "train.mixup_alpha=0.2",
        "model.clip_head.name=linear",
        "stream.shard=true",
        "stream.steps_per_epoch=8",
    )
    config.save(folder / "config.yaml")
    return folder / "config.yaml"


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def outcome(folder: Path) -> dict[str, str]:
    """Digest of every file, without the times and durations of which it tells."""
    found = {}
    for name, path in files_below(folder):
        # Each process has its own; locks are empty.
        if "tensorboard/" in name or name.endswith((".lock", "log")):
            continue
        content = path.read_bytes()
        if path.suffix in {".json", ".md", ".html"}:
            for pattern in (_TIME, _DURATION, _COMMIT, _CARD):
                content = pattern.sub(b"", content)
        if path.name == "progress.json":
            content = _CHECKSUM.sub(b"", content)
        if path.name == "metrics.csv":
            rows = list(csv.DictReader(io.StringIO(content.decode())))
            kept = [[v for k, v in row.items() if k not in _TIMES] for row in rows]
            content = json.dumps(kept).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def require_whole(folder: Path) -> None:
    """Read everything that a killed process has left under a final name, as its users would."""
    for name, path in files_below(folder):
        if TEMPORARY_PREFIX in name or "tensorboard/" in name:
            continue
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                assert [arrays[key].shape for key in arrays.files]
        elif path.suffix == ".h5":
            import h5py

            with h5py.File(path) as file:
                file.visititems(lambda _, item: item[()] if hasattr(item, "dtype") else None)
        elif path.suffix == ".csv":
            rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
            assert len({len(row) for row in rows}) == 1
        elif path.suffix == ".html":
            assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    for manifest in folder.rglob("manifest.jsonl"):
        store = Store(manifest.parent)
        for row in range(len(store)):
            store.read(row)
    for bundle in folder.rglob("bundle"):
        if Bundle.is_at(bundle):
            Bundle(bundle).verify()
    for seal in folder.rglob("checkpoints/[0-9]*/progress.json"):
        state = {path.name for path in seal.parent.iterdir()}
        assert {"variables.index", "variables.data-00000-of-00001"} <= state


def restored(start: Path, work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(start, work)
