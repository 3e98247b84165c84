"""Patches per second out of the stream of training batches, labels included.

    python benchmarks/stream.py [--n-clips 2000] [--write]

From a synthetic store of 30 patches a clip, float16, 188 tags, with the 20 open clips and batches
of 32 of the default config. Compared with: single patches from pickles through pescador and
tf.data, which is the plain way, and random batches out of a memory map, which nothing that reads
patches can beat. Cold means that the file was dropped from the page cache before; the host of a
virtual machine may still have it.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.signal.features import FRONT_ENDS
from preprocess.store.shards import Shard, open_shard
from preprocess.store.store import Store, StoredClip, StoreSpec, StoreWriter, write_clip
from tagger.config import StreamConfig
from tagger.train.stream import TrainingStream

sys.path.insert(0, str(Path(__file__).parent))
from prediction import machine, show_table

N_TAGS, N_WINDOWS = 188, 30
START, END = "<!-- stream: start -->\n", "<!-- stream: end -->\n"


def synthetic_store(root: Path, n_clips: int) -> Store:
    """Clips of noise: what is in a patch takes no part in how fast it is read."""
    front_end = FRONT_ENDS.create("vggish", {})
    spec = StoreSpec.of(front_end, "float16")
    rng = np.random.default_rng(0)
    labels = (rng.random((n_clips, N_TAGS)) < 0.02).astype(np.uint8)
    clips = [ClipRecord(str(number), f"{number % 16:x}/{number}.mp3") for number in range(n_clips)]
    writer = StoreWriter(root, spec, tags=tuple(f"tag {number}" for number in range(N_TAGS)))
    for number, clip in enumerate(clips):
        windows = {"log_mel": rng.normal(size=(N_WINDOWS, 96, 64)).astype(np.float32)}
        written = write_clip(root, clip, windows=windows, label=labels[number], dtype="float16")
        writer.add(StoredClip(clip, source_bytes=1, source_mtime_ns=1, **written))
    writer.close(ClipIndex(writer.tags, clips, labels))
    return Store(root)


def rate(
    batches: Iterator[object], batch_size: int, seconds: float, most: float = float("inf")
) -> float:
    """Patches per second over some time or at most so many batches, after one that is left out."""
    next(batches)
    n_batches, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds and n_batches < most:
        next(batches)
        n_batches += 1
    return n_batches * batch_size / (time.perf_counter() - started)


def random_batches(shard: Shard, batch_size: int) -> Iterator[object]:
    array, rng = shard.memory_map("log_mel"), np.random.default_rng(0)
    while True:
        yield array[rng.integers(0, len(array), batch_size)]


def forget(shard: Shard) -> None:
    """Drop the shard's file from the page cache."""
    descriptor = os.open(shard.path("log_mel"), os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def distinct_clips(store: Store, stream: TrainingStream, n_batches: int = 200) -> float:
    """Mean number of clips in a batch."""
    shard = open_shard(store)
    batches = stream._batches(0, stream._opener_of(shard))
    return float(np.mean([len(np.unique(next(batches)["clip"])) for _ in range(n_batches)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-clips", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        store = synthetic_store(Path(temporary) / "store", arguments.n_clips)
        shard = open_shard(store)

        def stream(**settings: object) -> TrainingStream:
            config = StreamConfig.model_validate(settings)
            labels = store.index.labels
            return TrainingStream(store, range(len(store)), labels=labels, config=config, seed=0)

        size = StreamConfig().batch_size
        rows: list[tuple[str, float, float | None]] = []
        plain = stream()
        fast = {mix: stream(shard=True, mix_batches=mix) for mix in (1, 16)}
        mixing = {mix: distinct_clips(store, fast[mix]) for mix in fast}
        # First, as pages that are mapped cannot be dropped; one pass, as the next one is not cold.
        one_pass = arguments.n_clips * StreamConfig().patches_per_clip // size - 2 * 16
        forget(shard)
        cold = rate(fast[16].prefetched(), size, arguments.seconds, one_pass)
        reference = rate(plain.prefetched(), size, arguments.seconds)
        rows.append(("pickles, patch by patch, through tf.data", reference, mixing[1]))
        rows.append(
            ("pickles, without tf.data", rate(plain.batches(), size, arguments.seconds), mixing[1])
        )
        for mix, streamed in fast.items():
            label = "shard" if mix == 1 else f"shard, {mix} batches mixed"
            speed = rate(streamed.prefetched(), size, arguments.seconds)
            rows.append((f"{label}, through tf.data", speed, mixing[mix]))
        rows.append(("the same, cold, first pass", cold, mixing[16]))
        bare = rate(random_batches(shard, size), size, arguments.seconds)
        rows.append(("random batches of a memory map, float16, no labels", bare, None))
    lines = [
        f"{machine()}.",
        "",
        f"{arguments.n_clips} clips, 20 open, batches of {size}.",
        "",
        "| source | patches per second | ratio | clips in a batch |",
        "|---|---|---|---|",
    ]
    for name, speed, clips in rows:
        shown = "" if clips is None else f"{clips:.1f}"
        lines.append(f"| {name} | {speed:,.0f} | {speed / reference:.1f} | {shown} |")
    table = "\n".join(lines) + "\n"
    show_table(table, START, END, write=arguments.write)


if __name__ == "__main__":
    main()
