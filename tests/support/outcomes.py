"""What verbs leave behind, to be compared and to be read as their users would."""

import csv
import hashlib
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from killable import Launcher
from small_store import make_store, small_config

from preprocess.store.manifest import MANIFEST
from preprocess.store.store import Store
from tagger.base.files import TEMPORARY_PREFIX, json_hash
from tagger.bundle.read import Bundle

_TIMES = {"seconds", "patches_per_second"}
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")
_DURATION = re.compile(rb'"(seconds|patches_per_second)": [0-9.e-]+')
# Of the code, which somebody may be working at.
_COMMIT = re.compile(rb'"commit": "[0-9a-z-]+"')
_CHECKSUM = re.compile(rb'"checksum": "[0-9a-f]+"')
_CARD = re.compile(rb'"MODEL_CARD.md": "[0-9a-f]{64}"')


class Training:
    """A store and a run that was trained on it, laid out as often as wanted in one folder.

    What verbs write tells of the folder in which they work. In the same one they write the same.

    Parameters
    ----------
    parent : Path
        Empty folder.
    launcher : Launcher
        Trains.
    long : bool
        Whether there shall be more steps, and so more moments between them.
    """

    def __init__(self, parent: Path, launcher: Launcher, *, long: bool = False) -> None:
        self.folder, self.kept = parent / "training", parent / "kept"
        make_store(self.folder / "store", n_clips=48 if long else 32)
        config = small_config(
            self.folder,
            f"train.epochs={3 if long else 2}",
            f"stream.steps_per_epoch={8 if long else 4}",
            # After every step.
            "train.checkpoint_minutes=0.00001",
            "train.average_decay=0.9",
            "train.mixup_alpha=0.2",
            "model.clip_head.name=linear",
            "stream.shard=true",
        )
        config.save(self.folder / "config.yaml")
        self.command = ["train", "--config", str(self.folder / "config.yaml"), "--resume"]
        self.ended = launcher.run(*self.command)
        assert self.ended.code == 0, launcher.log.read_text()[-2000:]
        shutil.copytree(self.folder, self.kept)
        self.outcome = outcome(self.folder)

    def lay_out(self, *without: str) -> None:
        """Have everything in the folder as training has left it, but for what is named."""
        empty(self.folder)
        shutil.copytree(self.kept, self.folder, dirs_exist_ok=True)
        for name in without:
            shutil.rmtree(self.folder / name)

    def lay_out_untrained(self) -> None:
        """Have the folder as it was before training."""
        self.lay_out("run", "store/shard")


def empty(folder: Path) -> None:
    """Remove what is in a folder, which may be a disk of its own."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


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


def require_whole(folder: Path) -> Counter[str]:
    """Read everything that a killed process has left under a final name, as its users would.

    A store without a manifest is not finished, and promises nothing; nor does a state without its
    progress, or one that two newer ones have replaced, which may be half removed.

    Returns
    -------
    Counter of str
        How many ``"store"``, ``"bundle"`` and ``"state"`` there were to be read.
    """
    found: Counter[str] = Counter()
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
    for manifest in folder.rglob(MANIFEST):
        store = Store(manifest.parent)
        for row in range(len(store)):
            store.read(row)
        found["store"] += 1
    for bundle in folder.rglob("bundle"):
        if Bundle.is_at(bundle):
            Bundle(bundle).verify()
            found["bundle"] += 1
    for states in folder.rglob("checkpoints"):
        for seal in sorted(states.glob("[0-9]*/progress.json"))[-2:]:
            _require_whole_state(seal.parent)
            found["state"] += 1
    return found


def _require_whole_state(state: Path) -> None:
    import tensorflow as tf

    progress = json.loads((state / "progress.json").read_text(encoding="utf-8"))
    assert progress.pop("checksum") == json_hash(progress), f"{state}: another progress"
    variables = tf.train.load_checkpoint(str(state / "variables"))
    for name in variables.get_variable_to_shape_map():
        variables.get_tensor(name)


def restored(start: Path, work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(start, work)
