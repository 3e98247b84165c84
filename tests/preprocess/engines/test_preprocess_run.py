"""Promises of a preprocessing run: it does what is left to do, whatever happened before."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from signals import RATE, noise, sine
from tiny_corpus import TINY_CLIPS

from preprocess import log_mel_patches
from preprocess.clips.datasets import DATASETS
from preprocess.clips.index import ClipIndex
from preprocess.engines import run
from preprocess.engines.run import preprocess, store_hash
from preprocess.engines.workers import WorkerDied, _ready, map_in_processes, workers_ready
from preprocess.signal.features import FRONT_ENDS
from preprocess.store.journal import JOURNAL
from preprocess.store.store import Store
from tagger.base.errors import StoreError

N_CLIPS = len(TINY_CLIPS)


@pytest.fixture
def corpus(tiny_corpus):
    return tiny_corpus


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


def read_index(corpus):
    return DATASETS.create("magnatagatune", {}).index(corpus)


def preprocessed(corpus, root, *, index=None, params=None, **kwargs):
    made = FRONT_ENDS.create("vggish", params or {})
    kwargs = {"n_workers": 1, "audio_root": corpus, "store_root": root, **kwargs}
    return preprocess(read_index(corpus) if index is None else index, made, **kwargs)


def times(root):
    return {path.name: path.stat().st_mtime_ns for path in root.rglob("*.pkl")}


def changed(before, after):
    return {name.split("-")[0] for name, time in after.items() if before.get(name) != time}


def counts(result):
    return result.n_written, result.n_relabelled, result.n_kept, len(result.failures)


def audio_of(corpus, clip_id):
    paths = {clip.id: clip.path for clip in read_index(corpus).clips}
    return corpus / paths[clip_id]


def without_decoding(monkeypatch):
    def refuse(path, *_, **__):
        raise AssertionError(f"{path} was decoded")

    monkeypatch.setattr(run, "windows_of_file", refuse)


def test_a_run_stores_the_patches_and_labels_of_every_clip(corpus, root):
    result = preprocessed(corpus, root, dtype="float32")
    assert counts(result) == (N_CLIPS, 0, 0, 0)
    store = Store(root)
    index = read_index(corpus)
    assert store.index.clips == index.clips
    assert store.tags == index.tags
    np.testing.assert_array_equal(store.index.labels, index.labels)
    for row, clip in enumerate(index.clips[:6]):
        samples, rate = sf.read(corpus / clip.path, dtype="float32")
        # libsndfile's mp3 reader rounds otherwise after the seek to the start that sf.read does.
        wanted = log_mel_patches(samples, rate)
        np.testing.assert_allclose(store.read(row)["log_mel"], wanted, rtol=0, atol=1e-5)


def test_a_second_run_does_nothing(corpus, root, monkeypatch):
    preprocessed(corpus, root)
    before, checksums = times(root), store_hash(Store(root).clips)
    without_decoding(monkeypatch)
    assert counts(preprocessed(corpus, root)) == (0, 0, N_CLIPS, 0)
    assert times(root) == before
    assert store_hash(Store(root).clips) == checksums


def test_a_changed_audio_file_is_redone_and_only_it(corpus, root):
    preprocessed(corpus, root)
    before = times(root)
    sf.write(audio_of(corpus, "12"), sine(2000, 4), RATE)
    assert counts(preprocessed(corpus, root)) == (1, 0, N_CLIPS - 1, 0)
    assert changed(before, times(root)) == {"12"}
    assert Store(root).clips[2].n_windows == 4


def test_an_audio_file_of_the_same_size_but_another_time_is_redone(corpus, root):
    preprocessed(corpus, root)
    os.utime(audio_of(corpus, "12"), ns=(1, 1))
    assert counts(preprocessed(corpus, root)) == (1, 0, N_CLIPS - 1, 0)


def test_a_changed_label_is_written_without_decoding(corpus, root, monkeypatch):
    preprocessed(corpus, root)
    before = times(root)
    windows = Store(root).read(3)["log_mel"]
    index = read_index(corpus)
    index.labels[3] = [1, 1, 0]
    without_decoding(monkeypatch)
    assert counts(preprocessed(corpus, root, index=index)) == (0, 1, N_CLIPS - 1, 0)
    assert changed(before, times(root)) == {"13"}
    store = Store(root)
    assert store.index.labels[3].tolist() == [1, 1, 0]
    np.testing.assert_array_equal(store.read(3)["log_mel"], windows)


def test_a_changed_artist_reaches_the_manifest_without_decoding(corpus, root, monkeypatch):
    preprocessed(corpus, root)
    index = read_index(corpus)
    index = replace(index, clips=[replace(index.clips[0], artist="someone else"), *index.clips[1:]])
    without_decoding(monkeypatch)
    assert counts(preprocessed(corpus, root, index=index)) == (0, 1, N_CLIPS - 1, 0)
    assert Store(root).clips[0].record.artist == "someone else"


def test_new_tag_columns_renumber_the_labels_without_decoding(corpus, root, monkeypatch):
    preprocessed(corpus, root)
    old = read_index(corpus)
    tags = ("techno", "piano", "guitar")
    labels = np.stack([old.labels[:, 2], np.zeros(N_CLIPS, np.uint8), old.labels[:, 0]], axis=1)
    without_decoding(monkeypatch)
    index = ClipIndex(tags, old.clips, labels)
    assert counts(preprocessed(corpus, root, index=index)) == (0, N_CLIPS, 0, 0)
    store = Store(root)
    assert store.tags == tags
    np.testing.assert_array_equal(store.index.labels, labels)
    assert counts(preprocessed(corpus, root, index=index)) == (0, 0, N_CLIPS, 0)


def label_in_pickle(root, row):
    from tagger.untrusted import pickles as safe_pickle

    return safe_pickle.loads((root / Store(root).clips[row].file).read_bytes())["label"].tolist()


def test_new_tag_columns_of_an_interrupted_run_are_written_in_the_next(corpus, root, monkeypatch):
    preprocessed(corpus, root)
    old = read_index(corpus)
    index = ClipIndex((*old.tags, "piano"), old.clips, np.pad(old.labels, ((0, 0), (0, 1))))
    # This clip has the new tag alone, so its renumbered entry must not pass for the right one.
    index.labels[7] = [0, 0, 0, 1]
    for n_done in (0, 2):
        with monkeypatch.context() as patched:
            interrupt_after(patched, n_done)
            with pytest.raises(KeyboardInterrupt):
                preprocessed(corpus, root, index=index)
        assert (root / JOURNAL).exists()
    result = preprocessed(corpus, root, index=index)
    assert counts(result) == (0, N_CLIPS - 2, 2, 0)
    for row in range(N_CLIPS):
        assert label_in_pickle(root, row) == index.labels[row].tolist()


def interrupt_after(monkeypatch, n_clips):
    whole = run.process_clip
    done = []

    def process(task, job):
        if len(done) == n_clips:
            raise KeyboardInterrupt
        done.append(task)
        return whole(task, job)

    monkeypatch.setattr(run, "process_clip", process)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_bad_file_does_not_stop_the_others_and_is_reported(corpus, root, n_workers):
    audio_of(corpus, "11").write_bytes(b"")
    audio_of(corpus, "13").unlink()
    audio_of(corpus, "15").write_bytes(b"no music" * 100)
    result = preprocessed(corpus, root, n_workers=n_workers)
    assert counts(result) == (N_CLIPS - 3, 0, 0, 3)
    assert result.n_clips == N_CLIPS - 3
    assert result.failures.keys() == {"11", "13", "15"}
    assert "0 bytes" in result.failures["11"]
    assert "no such file" in result.failures["13"]
    assert "not decodable" in result.failures["15"]
    for clip_id, message in result.failures.items():
        assert message.startswith(str(audio_of(corpus, clip_id)))
    assert [clip.record.id for clip in Store(root).clips] == ["10", "12", "14", "16", "17"]


def test_a_clip_of_which_much_is_missing_is_stored_where_that_is_allowed(corpus, root):
    path = audio_of(corpus, "13")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 10])
    assert counts(preprocessed(corpus, root)) == (N_CLIPS - 1, 0, 0, 1)
    assert counts(preprocessed(corpus, root, most_missing=0.8)) == (1, 0, N_CLIPS - 1, 0)


def test_a_file_that_failed_and_was_mended_is_picked_up(corpus, root):
    path = audio_of(corpus, "13")
    good = path.read_bytes()
    path.write_bytes(b"")
    assert counts(preprocessed(corpus, root)) == (N_CLIPS - 1, 0, 0, 1)
    path.write_bytes(good)
    assert counts(preprocessed(corpus, root)) == (1, 0, N_CLIPS - 1, 0)
    assert [clip.record.id for clip in Store(root).clips] == [clip[0] for clip in TINY_CLIPS]


def test_a_clip_that_was_fine_and_fails_now_leaves_the_manifest(corpus, root):
    preprocessed(corpus, root)
    audio_of(corpus, "13").write_bytes(b"")
    result = preprocessed(corpus, root)
    assert counts(result) == (0, 0, N_CLIPS - 1, 1)
    assert "13" not in {clip.record.id for clip in Store(root).clips}


def test_a_clip_that_was_removed_from_the_annotations_leaves_the_manifest(corpus, root):
    preprocessed(corpus, root)
    index = read_index(corpus).subset([5, 0])
    assert counts(preprocessed(corpus, root, index=index)) == (0, 0, 2, 0)
    assert [clip.record.id for clip in Store(root).clips] == ["15", "10"]


def test_padded_clips_are_reported_in_every_run(corpus, root):
    padded = [clip.path for clip in read_index(corpus).clips if clip.id == "16"]
    assert preprocessed(corpus, root).padded == padded
    assert preprocessed(corpus, root).padded == padded


def test_an_empty_data_set_gives_an_empty_store(corpus, root):
    result = preprocessed(corpus, root, index=read_index(corpus).subset([]))
    assert counts(result) == (0, 0, 0, 0)
    assert len(Store(root)) == 0


@pytest.mark.parametrize(
    ("params", "dtype", "message"),
    [
        ({"hop_seconds": 0.48}, "float16", "hop_seconds=0.96 instead of 0.48"),
        ({}, "float32", "float16 patches, not float32"),
    ],
)
def test_a_store_made_otherwise_is_refused_by_name(corpus, root, params, dtype, message):
    preprocessed(corpus, root)
    before = times(root)
    with pytest.raises(StoreError, match=re.escape(message)):
        preprocessed(corpus, root, params=params, dtype=dtype)
    assert times(root) == before


def corrupt(root, row):
    path = root / Store(root).clips[row].file
    content = bytearray(path.read_bytes())
    content[-500] ^= 1
    path.write_bytes(content)


def test_verifying_rebuilds_a_pickle_that_was_corrupted(corpus, root):
    preprocessed(corpus, root)
    checksums = store_hash(Store(root).clips)
    corrupt(root, 4)
    with pytest.raises(StoreError, match="checksum"):
        Store(root).read(4)
    assert counts(preprocessed(corpus, root)) == (0, 0, N_CLIPS, 0)
    assert counts(preprocessed(corpus, root, verify=True)) == (1, 0, N_CLIPS - 1, 0)
    store = Store(root)
    assert len(store.read(4)["log_mel"]) == 2
    assert store_hash(store.clips) == checksums


def test_a_pickle_that_was_deleted_is_rebuilt(corpus, root):
    preprocessed(corpus, root)
    (root / Store(root).clips[4].file).unlink()
    assert counts(preprocessed(corpus, root)) == (1, 0, N_CLIPS - 1, 0)


def test_a_label_for_a_corrupted_pickle_is_a_failure_that_the_next_run_mends(corpus, root):
    preprocessed(corpus, root)
    corrupt(root, 4)
    index = read_index(corpus)
    index.labels[4] = [1, 0, 0]
    result = preprocessed(corpus, root, index=index)
    assert counts(result) == (0, 0, N_CLIPS - 1, 1)
    assert "run 'tagger preprocess --verify'" in result.failures["14"]
    assert counts(preprocessed(corpus, root, index=index)) == (1, 0, N_CLIPS - 1, 0)


def test_half_precision_differs_by_its_rounding_at_most(corpus, tmp_path):
    preprocessed(corpus, tmp_path / "16", dtype="float16")
    preprocessed(corpus, tmp_path / "32", dtype="float32")
    half, single = Store(tmp_path / "16"), Store(tmp_path / "32")
    for row in range(N_CLIPS):
        exact = single.read(row)["log_mel"]
        np.testing.assert_array_equal(half.read(row)["log_mel"], exact.astype(np.float16))
        np.testing.assert_allclose(half.read(row)["log_mel"], exact, rtol=2**-11, atol=1e-7)


def test_the_number_of_workers_changes_nothing(corpus, tmp_path):
    for n_workers in (1, 2):
        root = tmp_path / str(n_workers)
        preprocessed(corpus, root, n_workers=n_workers, dtype="float32")
    assert store_hash(Store(tmp_path / "1").clips) == store_hash(Store(tmp_path / "2").clips)


def test_the_layout_of_the_labels_changes_nothing(corpus, tmp_path):
    index = read_index(corpus)
    for order in "CF":
        labels = np.asarray(index.labels, order=order)
        preprocessed(corpus, tmp_path / order, index=ClipIndex(index.tags, index.clips, labels))
    assert Store(tmp_path / "C").clips == Store(tmp_path / "F").clips


# A run that is killed.

KILLED = """
import sys
import time
from pathlib import Path
from preprocess.clips.datasets import DATASETS
from preprocess.signal.features import FRONT_ENDS
from preprocess.engines.run import preprocess

corpus, root, n_workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
if __name__ == "__main__":
    index = DATASETS.create("tag_csv", {}).index(corpus)
    front_end = FRONT_ENDS.create("vggish", {})
    preprocess(index, front_end, audio_root=corpus, store_root=root, n_workers=n_workers)
"""


def write_many(corpus, n_clips):
    corpus.mkdir()
    sound = noise(20)
    names = [f"{number:03}.wav" for number in range(n_clips)]
    for number, name in enumerate(names):
        sf.write(corpus / name, np.roll(sound, number), RATE)
    rows = [f"{name},tag{number % 3}" for number, name in enumerate(names)]
    (corpus / "clips.csv").write_text("\n".join(["path,tags", *rows]) + "\n", encoding="utf-8")


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_store(tmp_path):
    corpus, root = tmp_path / "corpus", tmp_path / "killed"
    write_many(corpus, 40)
    script = tmp_path / "preprocess_all.py"
    script.write_text(KILLED, encoding="utf-8")
    environment = dict(os.environ)
    process = subprocess.Popen(
        [sys.executable, script, corpus, root, "1"], env=environment, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and len(list(root.glob("clips/*/*.pkl"))) < 3:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(StoreError, match="interrupted"):
        Store(root)
    n_journal = len((root / JOURNAL).read_text(encoding="utf-8").splitlines()) - 1
    assert 1 <= n_journal < 40

    index = DATASETS.create("tag_csv", {}).index(corpus)
    result = preprocessed(corpus, root, index=index)
    assert result.n_kept >= n_journal - 1
    assert result.n_written == 40 - result.n_kept
    preprocessed(corpus, tmp_path / "whole", index=index)
    assert store_hash(Store(root).clips) == store_hash(Store(tmp_path / "whole").clips)
    names = {path.name for path in root.rglob("*") if path.is_file()}
    assert names == {path.name for path in (tmp_path / "whole").rglob("*") if path.is_file()}


# Workers.


def double(number):
    return 2 * number


def die_at(number, *, deadly):
    if number in deadly:
        os._exit(1)
    return 2 * number


def raise_at(number):
    if number == 3:
        raise ValueError("three")
    return number


@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize("n_items", [0, 1, 30])
def test_every_item_gives_its_result_once(n_items, n_workers):
    found = list(map_in_processes(double, range(n_items), n_workers=n_workers))
    assert sorted(found) == [(number, 2 * number) for number in range(n_items)]


@pytest.mark.parametrize("deadly", [{7}, {0, 29}])
def test_a_worker_that_dies_costs_only_the_item_that_killed_it(deadly):
    work = partial(die_at, deadly=frozenset(deadly))
    found = list(map_in_processes(work, range(30), n_workers=2))
    assert sorted(item for item, _ in found) == list(range(30))
    died = {item for item, result in found if isinstance(result, WorkerDied)}
    assert died == deadly
    assert all(result == 2 * item for item, result in found if item not in deadly)


def test_an_error_of_the_function_is_not_hidden():
    with pytest.raises(ValueError, match="three"):
        list(map_in_processes(raise_at, range(9), n_workers=2))


def test_the_environment_is_as_it_was_after_a_parallel_run(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    assert len(list(map_in_processes(os.getenv, ["OMP_NUM_THREADS"] * 2, n_workers=2))) == 2
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_workers_compute_on_one_thread_each():
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
    found = dict(map_in_processes(os.getenv, names, n_workers=2))
    assert found == dict.fromkeys(names, "1")


def test_the_hash_of_a_store_depends_on_content_and_order(corpus, root):
    preprocessed(corpus, root)
    clips = Store(root).clips
    assert store_hash(clips) != store_hash(clips[::-1])
    other = [replace(clips[0], checksum="0" * 32), *clips[1:]]
    assert store_hash(clips) != store_hash(other)
    assert json.dumps([clip.to_json() for clip in clips])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_workers_end_when_their_parent_is_killed(corpus, tmp_path):
    """Otherwise each killed run would leave processes that wait for ever."""
    script = (
        "import os, time\n"
        "from preprocess.engines.workers import map_in_processes\n"
        "if __name__ == '__main__':\n"
        "    for _, pid in map_in_processes(worker.pid, list(range(64)), n_workers=2):\n"
        "        print(pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    (tmp_path / "worker.py").write_text(
        "import os, time\ndef pid(n):\n    time.sleep(0.2)\n    return os.getpid()\n"
    )
    (tmp_path / "main.py").write_text("import worker\n" + script)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"},
    )
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}/stat").exists():
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.1)


def test_workers_keep_the_memory_of_one_clip_for_the_next(monkeypatch):
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    names = ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"]
    found = dict(map_in_processes(os.getenv, names, n_workers=2))
    # More than all arrays of a clip; glibc's own limit is 128 kB.
    assert all(int(value) > 1 << 29 for value in found.values())
    assert "MALLOC_TRIM_THRESHOLD_" not in os.environ


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are seen in Linux's /proc")
def test_workers_that_are_ready_do_the_next_work_and_unused_ones_end():
    with workers_ready(2):
        (pool,) = _ready.values()
        started = set(pool._processes)
        found = {pid for _, pid in map_in_processes(_process_id, list(range(40)), n_workers=2)}
        assert found <= started and not _ready
    with workers_ready(2):
        (pool,) = _ready.values()
        unused = list(pool._processes)
    assert not _ready
    deadline = time.monotonic() + 60
    for pid in unused:
        # Whoever waits for it as well may have been told of its end before us.
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _process_id(item):
    return os.getpid()
