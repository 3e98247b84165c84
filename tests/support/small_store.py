"""Small stores of synthetic patches, for tests that need no audio."""

from pathlib import Path

import numpy as np

from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.signal.features import FRONT_ENDS
from preprocess.store.store import Store, StoredClip, StoreSpec, StoreWriter, write_clip
from tagger.config import Config, load_config

__all__ = ["make_store", "small_config"]


def make_store(
    root: Path,
    *,
    n_clips: int = 40,
    n_windows: int = 6,
    n_tags: int = 3,
    seed: int = 0,
    dtype: str = "float32",
    one_tag: bool = False,
) -> Store:
    """A store whose tags can be heard: tag t raises the bands 20 t to 20 t + 19.

    The first value of each window tells which clip and window it is: clip + window / 100.
    """
    rng = np.random.default_rng(seed)
    front_end = FRONT_ENDS.create("vggish", {})
    spec = StoreSpec.of(front_end, dtype)
    tags = tuple(f"tag {number}" for number in range(n_tags))
    labels = (rng.random((n_clips, n_tags)) < 0.5).astype(np.uint8)
    # Every part of the split by folder has each tag and its absence.
    labels[0::4], labels[1::4] = 1, 0
    if one_tag:
        labels = np.eye(n_tags, dtype=np.uint8)[np.arange(n_clips) % n_tags]
    folders = ["0", "1", "2", "3", "c", "c", "d", "d"]
    clips = [
        ClipRecord(str(number), f"{folders[number // 4 % 8]}/{number}.mp3")
        for number in range(n_clips)
    ]
    writer = StoreWriter(root, spec, tags=tags)
    for number, clip in enumerate(clips):
        patches = rng.normal(-4, 0.3, (n_windows, 96, 64)).astype(np.float32)
        for tag in np.flatnonzero(labels[number]):
            patches[:, :, 20 * tag : 20 * tag + 20] += 3
        patches[:, 0, 0] = number + np.arange(n_windows) / 100
        written = write_clip(
            root, clip, windows={"log_mel": patches}, label=labels[number], dtype=dtype
        )
        writer.add(StoredClip(clip, source_bytes=1, source_mtime_ns=1, **written))
    writer.close(ClipIndex(tags, clips, labels))
    return Store(root)


def small_config(folder: Path, *overrides: str) -> Config:
    """A tiny network on the store in `folder`/store."""
    return load_config(
        None,
        [
            f"store.root={folder / 'store'}",
            f"run.root={folder / 'run'}",
            "model.backbone.name=tiny",
            "model.head.params.units=16",
            "stream.batch_size=8",
            "train.epochs=2",
            *overrides,
        ],
    )
