"""Promises of the Beam engine: the same store as a local run, whatever happened before."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf
from signals import RATE, noise
from threadpoolctl import threadpool_limits
from tiny_corpus import TINY_CLIPS

from preprocess.clips.datasets import DATASETS
from preprocess.clips.index import ClipIndex
from preprocess.engines import run as run_module
from preprocess.engines.pipeline_files import FOLDER, RESULTS, read_results, write_results
from preprocess.engines.run import DEAD_LETTERS, ClipTask, Job, preprocess, process_clip
from preprocess.signal.features import FRONT_ENDS
from preprocess.store.store import Store, StoredClip, StoreSpec, StoreWriter
from tagger.base.errors import ConfigError, StoreError
from tagger.base.files import write_bytes
from tagger.cloud.locations import location

pytest.importorskip("apache_beam")

from preprocess.engines import beam
from preprocess.engines.beam import (
    BeamEngine,
    ProcessClip,
    build,
    read_tasks,
    write_tasks,
)

N_CLIPS = len(TINY_CLIPS)
DATAFLOW = [
    "--runner=DataflowRunner",
    "--project=some-project",
    "--region=europe-west1",
    "--temp_location=gs://some-bucket/tmp",
    # Else Beam asks the bucket.
    "--dry_run=True",
    "--extra_package=musictagger.whl",
]


@pytest.fixture
def corpus(tiny_corpus):
    """The tiny corpus, one clip of which is no audio."""
    audio_of(tiny_corpus, "13").write_bytes(b"no music" * 100)
    return tiny_corpus


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


def read_index(corpus):
    return DATASETS.create("magnatagatune", {}).index(corpus)


def audio_of(corpus, clip_id):
    return corpus / {clip.id: clip.path for clip in read_index(corpus).clips}[clip_id]


def local(corpus, root, *, index=None, n_workers=1, **kwargs):
    front_end = FRONT_ENDS.create("vggish", {})
    index = read_index(corpus) if index is None else index
    return preprocess(
        index, front_end, audio_root=corpus, store_root=root, n_workers=n_workers, **kwargs
    )


def by_beam(corpus, root, *options, index=None, n_workers=2, **kwargs):
    engine = BeamEngine(options)
    return local(corpus, root, index=index, n_workers=n_workers, engine=engine, **kwargs)


def counts(result):
    return result.n_written, result.n_relabelled, result.n_kept, len(result.failures)


def files(root):
    """Content of every file of a store."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def times(root):
    return {path.name: path.stat().st_mtime_ns for path in root.rglob("*.pkl")}


def changed(before, after):
    return {name.split("-")[0] for name, time in after.items() if before.get(name) != time}


@pytest.fixture
def worker_of():
    """The step that processes clips, set up as in a worker, whose threads are limited for good."""
    with threadpool_limits(limits=1):

        def make(job):
            worker = ProcessClip(job)
            worker.setup()
            return worker

        yield make


# The same store.


def test_a_pipeline_writes_the_same_store_as_local_runs(corpus, tmp_path):
    results = [
        local(corpus, tmp_path / "one", n_workers=1),
        local(corpus, tmp_path / "two", n_workers=2),
        by_beam(corpus, tmp_path / "beam", n_workers=2),
    ]
    assert counts(results[0]) == (N_CLIPS - 1, 0, 0, 1)
    assert results[1:] == results[:1] * 2
    stores = [files(tmp_path / name) for name in ("one", "two", "beam")]
    # The pickles, the manifest and the dead letters.
    assert len(stores[0]) == N_CLIPS - 1 + 2
    assert stores[1:] == stores[:1] * 2


@pytest.mark.slow
@pytest.mark.campaign
def test_real_clips_give_the_same_store_as_a_local_run(shared, tmp_path):
    scenes = shared / "scenes"
    if not scenes.exists():
        pytest.skip("the reference data is not beside the checkout")
    index = read_index(scenes).subset(list(range(0, 640, 20)))
    local(scenes, tmp_path / "local", index=index)
    assert counts(by_beam(scenes, tmp_path / "beam", index=index)) == (32, 0, 0, 0)
    assert files(tmp_path / "beam") == files(tmp_path / "local")


@pytest.mark.campaign
@pytest.mark.parametrize("mode", ["multi_threading", "multi_processing"])
def test_the_way_in_which_workers_run_changes_nothing(corpus, tmp_path, mode):
    local(corpus, tmp_path / "local")
    by_beam(corpus, tmp_path / "beam", f"--direct_running_mode={mode}", "--direct_num_workers=2")
    assert files(tmp_path / "beam") == files(tmp_path / "local")


def test_what_failed_is_listed_in_the_store_in_the_order_of_the_index(corpus, root):
    audio_of(corpus, "16").unlink()
    audio_of(corpus, "11").write_bytes(b"")
    result = by_beam(corpus, root)
    letters = [json.loads(line) for line in (root / DEAD_LETTERS).read_text().splitlines()]
    assert [letter["id"] for letter in letters] == ["11", "13", "16"]
    assert {letter["id"]: letter["message"] for letter in letters} == result.failures
    assert all(str(audio_of(corpus, letter["id"])) in letter["message"] for letter in letters)


@pytest.mark.parametrize("made_by", [local, by_beam])
def test_a_store_in_which_nothing_failed_has_no_dead_letters(corpus, root, made_by):
    path = audio_of(corpus, "13")
    made_by(corpus, root)
    assert (root / DEAD_LETTERS).exists()
    sf.write(path, noise(2), RATE)
    assert counts(made_by(corpus, root)) == (1, 0, N_CLIPS - 1, 0)
    assert not (root / DEAD_LETTERS).exists()


def test_an_empty_data_set_gives_an_empty_store(corpus, root):
    assert counts(by_beam(corpus, root, index=read_index(corpus).subset([]))) == (0, 0, 0, 0)
    assert len(Store(root)) == 0


# Reruns.


def test_a_rerun_does_nothing(corpus, root):
    by_beam(corpus, root)
    before, manifest = times(root), (root / "manifest.json").read_bytes()
    result = by_beam(corpus, root)
    assert counts(result) == (0, 0, N_CLIPS - 1, 1)
    assert times(root) == before
    assert (root / "manifest.json").read_bytes() == manifest


def test_a_rerun_rebuilds_just_the_pickles_that_were_deleted(corpus, root):
    by_beam(corpus, root)
    before, whole = times(root), files(root)
    for row in (2, 5):
        (root / Store(root).clips[row].file).unlink()
    assert counts(by_beam(corpus, root)) == (2, 0, N_CLIPS - 3, 1)
    assert len(changed(before, times(root))) == 2
    assert files(root) == whole


def test_changed_labels_are_written_without_decoding(corpus, tmp_path):
    index = read_index(corpus)
    other = ClipIndex(index.tags, index.clips, np.roll(index.labels, 1, axis=1))
    for name, made_by in (("local", local), ("beam", by_beam)):
        made_by(corpus, tmp_path / name, index=index)
        result = made_by(corpus, tmp_path / name, index=other)
        # One clip carries all tags, one none, and one is no audio.
        assert counts(result) == (0, N_CLIPS - 3, 2, 1)
    assert files(tmp_path / "beam") == files(tmp_path / "local")


def test_a_label_that_is_written_twice_is_what_it_was(corpus, root, worker_of):
    """Beam may give the same clip to a worker once more, after the first has done it."""
    local(corpus, root)
    stored = Store(root).clips[0]
    job = Job(corpus, root, Store(root).spec, Store(root).tags)
    worker = worker_of(job)
    task = ClipTask(stored.record, np.array([0, 0, 1], np.uint8), stored)
    (first,), (again,) = list(worker.process(task)), list(worker.process(task))
    assert first == again
    assert first.tags == (2,)


def test_a_clip_that_was_stored_once_is_stored_though_another_attempt_failed(corpus, root):
    local(corpus, root)
    store = Store(root)
    clip = store.clips[0]
    for outcome in ("no network", clip, "no network again"):
        write_results(
            root, {clip.record.id: outcome}, spec=store.spec, tags=store.tags, token="this"
        )
    stored, failures = read_results(root, spec=store.spec, tags=store.tags, token="this")
    assert (dict(stored), failures) == ({clip.record.id: clip}, {})


# Runs that ended early.


def write_long_corpus(corpus, n_clips):
    """Clips enough to catch a run at work: links to one file."""
    corpus.mkdir()
    sf.write(corpus / "000.wav", noise(40), RATE)
    names = [f"{number:03}.wav" for number in range(n_clips)]
    for name in names[1:]:
        os.link(corpus / "000.wav", corpus / name)
    rows = [f"{name},tag{number % 3}" for number, name in enumerate(names)]
    (corpus / "clips.csv").write_text("\n".join(["path,tags", *rows]) + "\n", encoding="utf-8")
    return DATASETS.create("tag_csv", {}).index(corpus)


@contextlib.contextmanager
def begun(corpus, root, engine, *, pattern, n_files=1):
    """A run of the command line, as soon as the store holds some files of that pattern."""
    settings = ["data.name=tag_csv", f"data.root={corpus}", f"store.root={root}", "store.workers=2"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tagger", "preprocess", *arguments, "--engine", engine],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        while process.poll() is None and len(list(root.glob(pattern))) < n_files:
            time.sleep(0.01)
        assert process.poll() is None, process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "pattern", "n_files", "second", "n_clips"),
    [
        ("local", "clips/*/*.pkl", 40, by_beam, 200),
        pytest.param(*("beam", f"{RESULTS}/*/*.jsonl", 1, local, 800), marks=pytest.mark.campaign),
    ],
)
def test_a_run_that_was_killed_is_finished_by_the_other_engine(
    tmp_path, first, pattern, n_files, second, n_clips
):
    corpus, root = tmp_path / "corpus", tmp_path / "killed"
    index = write_long_corpus(corpus, n_clips)
    with begun(corpus, root, first, pattern=pattern, n_files=n_files) as process:
        process.kill()
        process.wait()
    with pytest.raises(StoreError, match="interrupted"):
        Store(root)
    result = second(corpus, root, index=index)
    assert result.n_kept > 0
    assert result.n_written == n_clips - result.n_kept > 0
    local(corpus, tmp_path / "whole", index=index, n_workers=2)
    assert files(root) == files(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.campaign
def test_an_interrupted_pipeline_stops_at_once_and_says_what_is_kept(tmp_path):
    corpus, root = tmp_path / "corpus", tmp_path / "store"
    write_long_corpus(corpus, 800)
    with begun(corpus, root, "beam", pattern=f"{RESULTS}/*/*.jsonl") as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "interrupted" in err
    assert len(list(root.glob("clips/*/*.pkl"))) < 800


def test_a_store_that_workers_cannot_write_to_ends_the_run_with_one_line(corpus, root, command):
    results = root / RESULTS
    results.parent.mkdir(parents=True)
    results.write_text("in the way")
    settings = ["--set", f"data.root={corpus}", "--set", f"store.root={root}"]
    code, out, err = command("preprocess", *settings, "--engine", "beam")
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert str(results) in lines[0] and "run it again" in lines[0]


def leave_results(corpus, root, index, rows):
    """What a pipeline leaves that was cancelled after some clips."""
    spec = StoreSpec.of(FRONT_ENDS.create("vggish", {}), "float16")
    StoreWriter(root, spec, tags=index.tags).abandon()
    job = Job(corpus, root, spec, index.tags)
    tasks = [ClipTask(index.clips[row], index.labels[row]) for row in rows]
    write_tasks(root, tasks, token=job.token)
    # As all workers do: on several threads products round differently.
    with threadpool_limits(limits=1):
        stored = {task.record.id: process_clip(task, job) for task in tasks}
    write_results(root, stored, spec=spec, tags=index.tags, token=job.token)


def test_results_of_other_columns_are_renumbered(corpus, tmp_path):
    index = read_index(corpus).subset([0, 1, 2, 4])
    other = ClipIndex(index.tags[::-1], index.clips, index.labels[:, ::-1])
    leave_results(corpus, tmp_path / "left", index, [0, 2])
    assert counts(by_beam(corpus, tmp_path / "left", index=other)) == (2, 2, 0, 0)
    local(corpus, tmp_path / "whole", index=other)
    assert files(tmp_path / "left") == files(tmp_path / "whole")


def test_damaged_results_are_named(corpus, root):
    index = read_index(corpus)
    leave_results(corpus, root, index, [0])
    (path,) = (root / RESULTS).glob("*/*")
    path.write_text('{"spec": {}}\nhalf a li')
    with pytest.raises(StoreError, match=f"{path.name}: damaged results.*delete it"):
        by_beam(corpus, root, index=index)


def test_results_that_were_taken_over_survive_another_kill(corpus, root, monkeypatch):
    index = read_index(corpus)
    leave_results(corpus, root, index, [0, 2])

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "_plan", interrupt)
        with pytest.raises(KeyboardInterrupt):
            local(corpus, root, index=index)
    assert not (root / FOLDER).exists()
    assert local(corpus, root, index=index).n_kept == 2


def other_labels(index):
    return ClipIndex(index.tags, index.clips, 1 - index.labels)


def test_results_of_an_earlier_pipeline_that_still_runs_do_not_count(corpus, root, monkeypatch):
    index = read_index(corpus).subset([0, 1, 2, 4])
    local(corpus, root, index=index)
    store = Store(root)
    earlier = {clip.record.id: clip for clip in store.clips}
    run_pipeline = beam._run

    def run_beside(pipeline, root):
        run_pipeline(pipeline, root)
        # Its files have names of any order.
        for number in range(8):
            outcomes = {**earlier, f"gone {number}": "no audio"}
            write_results(root, outcomes, spec=store.spec, tags=store.tags, token="earlier")

    monkeypatch.setattr(beam, "_run", run_beside)
    new = other_labels(index)
    result = by_beam(corpus, root, index=new)
    assert counts(result) == (0, 4, 0, 0)
    assert [clip.tags for clip in Store(root).clips] == [
        tuple(np.flatnonzero(label)) for label in new.labels
    ]
    for row in range(4):
        Store(root).read(row)
    assert not (root / FOLDER).exists()


def test_tasks_of_an_earlier_pipeline_that_still_runs_stay_as_they_are(corpus, root):
    local(corpus, root)
    index = read_index(corpus)
    tasks = [ClipTask(*pair) for pair in zip(index.clips, index.labels, strict=True)]
    earlier, this = (
        write_tasks(root, some, token=token)
        for token, some in (("earlier", tasks[:2]), ("this", tasks[2:]))
    )
    job = Job(corpus, root, Store(root).spec, index.tags)
    assert [task.record for name in earlier for task in read_tasks(name, job)] == [
        task.record for task in tasks[:2]
    ]
    assert not set(earlier) & set(this)


def test_an_outcome_with_another_label_than_the_tasks_does_not_count(corpus, root, monkeypatch):
    index = read_index(corpus).subset([0])
    local(corpus, root, index=index)
    store = Store(root)
    job = Job(corpus, root, store.spec, store.tags)

    def run_nothing(pipeline, root):
        write_results(
            root,
            {store.clips[0].record.id: store.clips[0]},
            spec=store.spec,
            tags=store.tags,
            token=job.token,
        )

    monkeypatch.setattr(beam, "_run", run_nothing)
    (record,), (label,) = index.clips, index.labels
    engine = BeamEngine()
    ((_, outcome),) = engine([ClipTask(record, label)], job, n_workers=1)
    assert outcome == store.clips[0]
    engine = BeamEngine()
    with pytest.raises(StoreError, match=f"without a result for clip {record.id}"):
        list(engine([ClipTask(record, 1 - label)], job, n_workers=1))


def test_of_two_pipelines_that_were_cancelled_the_later_one_holds(corpus, root):
    index = read_index(corpus).subset([0, 1, 2, 4])
    for labelled in (other_labels(index), index):
        leave_results(corpus, root, labelled, range(4))
    assert len(list((root / RESULTS).iterdir())) == 2
    assert counts(local(corpus, root, index=index)) == (0, 0, 4, 0)


# Options.


def test_an_unknown_option_is_refused_before_anything_is_read(command, tmp_path):
    code, _, err = command(
        "preprocess", "--set", "data.root=gone", "--engine", "beam", "--", "--runer", "Dataflow"
    )
    assert code == 2
    assert "error: Beam knows no option --runer" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--runner=NoRunner"], "NoRunner"),
        (["--direct_num_workers=many"], "--direct_num_workers: invalid int value: 'many'"),
        (["--direct_running_mode=fast"], "--direct_running_mode: invalid choice: 'fast'"),
        (["clips"], "no option clips"),
        (["--runner=DataflowRunner", "--temp_location=gs://bucket/t", "--dry_run=True"], "project"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        BeamEngine(options)


def test_beam_options_without_beam_are_refused(command):
    code, _, err = command("preprocess", "--", "--runner", "DataflowRunner")
    assert code == 2
    assert "add --engine beam" in err


def test_an_unknown_engine_is_refused(command):
    code, _, err = command("preprocess", "--engine", "spark")
    assert code == 2
    assert "--engine spark: choose one of local, beam" in err


def test_the_summary_and_the_exit_code_are_those_of_a_local_run(corpus, tmp_path, command):
    said = []
    for engine in ("local", "beam"):
        root = tmp_path / engine
        settings = ["--set", f"data.root={corpus}", "--set", f"store.root={root}"]
        code, out, err = command("preprocess", *settings, "--engine", engine)
        failed = [line for line in err.splitlines() if line.startswith(("failed: ", "warning: "))]
        said.append((code, out.replace(str(root), "ROOT"), failed))
        # Beam tells of its workers and of what it lacks.
        assert "WARNING" not in err and "INFO" not in err
    assert said[0] == said[1]
    assert said[0][0] == 1


# Other machines.


def test_the_tasks_that_workers_read_are_those_that_were_written(corpus, root):
    local(corpus, root)
    store = Store(root)
    index = read_index(corpus)
    stored = replace(store.clips[0], tags=(-1, 1))
    tasks = [ClipTask(index.clips[0], index.labels[0], stored)]
    tasks += [ClipTask(*pair) for pair in zip(index.clips[1:], index.labels[1:], strict=True)]
    # More than fit in one file.
    names = write_tasks(root, tasks * 300, token="this")
    assert len(names) == 3
    job = Job(corpus, root, store.spec, store.tags)
    read = [task for name in names for task in read_tasks(name, job)]
    assert len(read) == 300 * N_CLIPS
    for task, wanted in zip(read, tasks * 300, strict=True):
        assert (task.record, task.stored) == (wanted.record, wanted.stored)
        np.testing.assert_array_equal(task.label, wanted.label)
        assert task.label.dtype == wanted.label.dtype


def test_a_dataflow_pipeline_is_made_of_options_alone(corpus, root):
    """As far as it goes without submitting it: the pipeline is serialised, and small."""
    job = Job(corpus, root, StoreSpec.of(FRONT_ENDS.create("vggish", {}), "float16"), ("a", "b"))
    pipeline = BeamEngine(DATAFLOW).pipeline()
    assert type(pipeline.runner).__name__ == "DataflowRunner"
    build(pipeline, [f"tasks/{number:06d}.jsonl" for number in range(1000)], job)
    proto = pipeline.to_runner_api()
    names = {transform.unique_name for transform in proto.components.transforms.values()}
    assert {"spread the clips", "process the clips", "keep the entries"} <= names
    # A million clips; Dataflow refuses pipelines of 10 MB.
    assert len(proto.SerializeToString()) < 1_000_000


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    pytest.importorskip("gcp_storage_emulator")
    from cloud_server import running

    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    with running(monkeypatch) as server:
        yield server


def test_clips_of_a_bucket_are_stored_in_a_bucket_as_by_a_local_run(corpus, cloud):
    music = location("gs://bucket/music")
    for path in corpus.rglob("*.*"):
        write_bytes(music / path.relative_to(corpus).as_posix(), path.read_bytes())
    stores = [location(f"gs://bucket/{name}") for name in ("local", "beam")]
    results = [local(music, stores[0]), by_beam(music, stores[1])]
    assert counts(results[0]) == (N_CLIPS - 1, 0, 0, 1)
    assert results[1] == results[0]
    assert cloud.objects("beam/") == cloud.objects("local/")
    index = read_index(music)
    other = ClipIndex(index.tags, index.clips, np.roll(index.labels, 1, axis=1))
    for root, made_by in zip(stores, (local, by_beam), strict=True):
        assert counts(made_by(music, root, index=other)) == (0, N_CLIPS - 3, 2, 1)
    assert cloud.objects("beam/") == cloud.objects("local/")


def test_a_pipeline_in_a_bucket_that_was_cancelled_is_finished_by_a_local_run(corpus, cloud):
    root = location("gs://bucket/store")
    index = read_index(corpus)
    leave_results(corpus, root, index, [0, 2])
    assert counts(local(corpus, root, index=index)) == (N_CLIPS - 3, 0, 2, 1)
    local(corpus, location("gs://bucket/whole"), index=index)
    assert cloud.objects("store/") == cloud.objects("whole/")


def test_dataflow_is_refused_workers_that_would_lack_this_package(cloud):
    job = Job(
        location("gs://bucket/music"),
        location("gs://bucket/store"),
        StoreSpec.of(FRONT_ENDS.create("vggish", {}), "float16"),
        (),
    )
    bare = [option for option in DATAFLOW if "extra_package" not in option]
    with pytest.raises(ConfigError, match=r"pip wheel.*--extra_package"):
        list(BeamEngine(bare)([], job, n_workers=1))


def test_dataflow_without_its_packages_is_explained_before_anything_is_submitted(corpus, cloud):
    if importlib.util.find_spec("apitools") is not None:
        pytest.skip("they are installed")
    root, music = location("gs://bucket/store"), location("gs://bucket/music")
    with pytest.raises(ConfigError, match=r"pip install .*\[dataflow\]'"):
        by_beam(music, root, *DATAFLOW, index=read_index(corpus))


@pytest.mark.parametrize(
    ("is_local", "message"),
    [
        ({"store"}, r"cannot reach store\.root=\S+/store on this one"),
        ({"data"}, r"cannot reach data\.root=\S+ on this one"),
        ({"store", "data"}, r"cannot reach store\.root=\S+/store and data\.root=\S+ on this one"),
    ],
)
def test_dataflow_is_refused_what_its_machines_cannot_reach(corpus, root, cloud, is_local, message):
    index = read_index(corpus)
    audio_root = corpus if "data" in is_local else location("gs://bucket/music")
    store_root = root if "store" in is_local else location("gs://bucket/store")
    with pytest.raises(ConfigError, match=message):
        by_beam(audio_root, store_root, *DATAFLOW, index=index)
    tasks = cloud.objects("store/pipeline"), list(root.glob("pipeline/*"))
    assert tasks == ({}, [])


def test_a_worker_emits_stored_clips_and_tagged_dead_letters(corpus, root, worker_of):
    index = read_index(corpus)
    job = Job(corpus, root, StoreSpec.of(FRONT_ENDS.create("vggish", {}), "float16"), index.tags)
    worker = worker_of(job)
    (good,) = worker.process(ClipTask(index.clips[0], index.labels[0]))
    (bad,) = worker.process(ClipTask(index.clips[3], index.labels[3]))
    assert isinstance(good, StoredClip)
    assert (bad.tag, bad.value.clip_id) == ("dead_letters", "13")
