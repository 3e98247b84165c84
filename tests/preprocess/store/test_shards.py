"""Promises of the shard: the bytes of the pickles, found again or built anew."""

import json
import os
import subprocess
import sys
import time
from itertools import islice

import numpy as np
import pytest
from small_store import make_store, small_config

from preprocess.store import shards
from preprocess.store.shards import DESCRIPTION, Shard, open_shard
from preprocess.store.store import Store
from tagger.base.errors import StoreError
from tagger.config import StreamConfig
from tagger.train.loop import train
from tagger.train.stream import TrainingStream

N_CLIPS = 40


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store", n_clips=N_CLIPS)


def stream(store, **settings):
    labels = store.index.labels
    return TrainingStream(
        store, range(len(store)), labels=labels, config=StreamConfig(**settings), seed=3
    )


def batches_of(streamed, start, n):
    return [
        (np.array(batch.inputs["log_mel"]), np.array(batch.labels))
        for batch in islice(streamed(start), n)
    ]


def test_a_shard_holds_the_windows_of_every_clip_in_order(store):
    shard = open_shard(store)
    array = shard.memory_map("log_mel")
    for row in range(len(store)):
        windows = store.read(row)["log_mel"]
        first = shard.starts[row]
        np.testing.assert_array_equal(array[first : first + len(windows)], windows)
    assert len(array) == store.n_windows.sum()


def test_a_shard_that_is_current_is_not_built_again(store, monkeypatch):
    open_shard(store)
    monkeypatch.setattr(shards, "_write_arrays", None)
    assert open_shard(Store(store.root)).is_current()


@pytest.mark.parametrize("damage", ["cut", "no description", "other clips", "garbage", "nested"])
def test_a_shard_that_is_not_whole_or_of_other_clips_is_built_anew(store, damage):
    shard = open_shard(store)
    path = shard.path("log_mel")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "no description":
        (shard.root / DESCRIPTION).unlink()
    elif damage == "nested":
        (shard.root / DESCRIPTION).write_text("[" * 100_000)
    elif damage == "garbage":
        (shard.root / DESCRIPTION).write_text("{")
    else:
        content = json.loads((shard.root / DESCRIPTION).read_text())
        (shard.root / DESCRIPTION).write_text(json.dumps({**content, "content": "others"}))
    assert not Shard(store).is_current()
    assert open_shard(store).is_current()
    np.testing.assert_array_equal(Shard(store).memory_map("log_mel")[:6], store.read(0)["log_mel"])


def test_a_shard_with_a_flipped_bit_is_named_and_built_anew(store, monkeypatch, capfd):
    shard = open_shard(store)
    path = shard.path("log_mel")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    # Another process than the one that built it.
    monkeypatch.setattr(shards, "_checked", set())
    assert open_shard(store).damaged() == []
    warning = f"warning: {path}: differs from its checksum; the shard is built anew"
    assert warning in capfd.readouterr().err
    np.testing.assert_array_equal(Shard(store).memory_map("log_mel")[:6], store.read(0)["log_mel"])


def test_a_damaged_pickle_is_named_and_leaves_no_shard(store):
    path = store.root / store.clips[7].file
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(StoreError, match=path.name):
        open_shard(store)
    assert not Shard(store).is_current()
    assert not list((store.root / "shard").glob("*.bin"))


def test_a_shard_that_cannot_be_written_is_one_line(store):
    (store.root / "shard").write_text("in the way")
    with pytest.raises(StoreError, match=r"shard cannot be written .*stream\.shard=false"):
        open_shard(store)


BUILD = """
import sys, time
from pathlib import Path
from preprocess.store.shards import open_shard
from preprocess.store.store import Store

class SlowStore(Store):
    def read(self, row):
        print("read", flush=True)
        time.sleep(0.03)
        return super().read(row)

open_shard(SlowStore(Path(sys.argv[1])))
print("done")
"""


def test_of_two_processes_at_once_one_builds_the_shard_and_the_other_waits(store):
    def start():
        return subprocess.Popen(
            [sys.executable, "-c", BUILD, str(store.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ,
        )

    processes = [start()]
    deadline = time.monotonic() + 60
    # The second comes when the first has written half a file.
    while not list((store.root / "shard").glob(".tmp-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    processes.append(start())
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sorted(out.split().count("read") for out, _ in said) == [0, N_CLIPS]
    assert Shard(store).is_current()


@pytest.mark.parametrize("start", [0, 3, 11, 40])
@pytest.mark.parametrize("mix", [1, 4])
@pytest.mark.parametrize("bag", [1, 2])
def test_pickles_and_shard_stream_the_same_batches(store, start, mix, bag):
    settings = {"batch_size": 8, "n_active": 5, "mix_batches": mix, "patches_per_bag": bag}
    pickles = stream(store, **settings)
    shard = stream(store, shard=True, **settings)
    wanted = batches_of(pickles.batches, start, 12)
    for streamed in (shard.batches, shard.prefetched, pickles.prefetched):
        for (inputs, labels), (other_inputs, other_labels) in zip(
            wanted, batches_of(streamed, start, 12), strict=True
        ):
            np.testing.assert_array_equal(inputs, other_inputs)
            np.testing.assert_array_equal(labels, other_labels)


def test_float16_shards_stream_as_float32(tmp_path):
    store = make_store(tmp_path / "store", n_clips=8, dtype="float16")
    batch = next(stream(store, shard=True, batch_size=4).prefetched())
    assert batch.inputs["log_mel"].dtype.name == "float32"
    expected = next(stream(store, batch_size=4).batches())
    np.testing.assert_array_equal(batch.inputs["log_mel"], expected.inputs["log_mel"])


def clips_and_windows(batches):
    """(clip, window) of each example of batches, read off the marks in the patches."""
    marks = np.stack([inputs[:, 0, 0, 0] for inputs, _ in batches])
    return np.floor(marks + 1e-3).astype(int), np.round(marks % 1 * 100).astype(int)


def test_mixed_batches_hold_more_clips_than_the_open_ones_give(tmp_path):
    store = make_store(tmp_path / "store", n_clips=200)
    distinct = {}
    for mix in (1, 16):
        streamed = stream(store, shard=True, mix_batches=mix)
        clips, _ = clips_and_windows(batches_of(streamed.batches, 0, 48))
        distinct[mix] = np.mean([len(set(batch)) for batch in clips])
    # 20 open clips give 17 in a batch of 32; 512 draws of 64 clips, 8 each, give 25.
    assert 16 < distinct[1] < 18.5
    assert 24 < distinct[16] < 27


def test_mixed_batches_show_every_clip_and_window_equally_often(store):
    streamed = stream(store, shard=True, mix_batches=4, batch_size=8, patches_per_clip=6)
    # 8 passes of 40 clips, 6 draws each: in each pass every window of every clip once.
    n_batches = 8 * N_CLIPS * 6 // 8
    clips, windows = clips_and_windows(batches_of(streamed.batches, 0, n_batches))
    counts = np.zeros((N_CLIPS, 6), int)
    np.add.at(counts, (clips.ravel(), windows.ravel()), 1)
    assert (counts == 8).all()


def test_training_from_the_shard_gives_the_same_weights(tmp_path, without_export):
    make_store(tmp_path / "store", n_clips=32)
    histories = []
    for shard in ("false", "true"):
        config = small_config(
            tmp_path, f"stream.shard={shard}", f"run.root={tmp_path / f'run-{shard}'}"
        )
        histories.append(train(config).history)
    for pickles, shard in zip(*histories, strict=True):
        assert pickles["train_loss"] == shard["train_loss"]
        assert pickles["validation_loss"] == shard["validation_loss"]


def test_the_share_of_time_spent_waiting_for_data_is_told_if_asked(
    tmp_path, capsys, without_export
):
    make_store(tmp_path / "store", n_clips=32)
    train(small_config(tmp_path, "train.epochs=1"), profile_input=True)
    line = next(line for line in capsys.readouterr().err.splitlines() if "  input: " in line)
    assert 0 <= float(line.split("input: ")[1].split(" %")[0]) <= 100
