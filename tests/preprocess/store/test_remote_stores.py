"""Promises of stores and audio in a bucket: the same bytes and errors, taken up after a kill."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import re
import shutil

import numpy as np
import pytest

pytest.importorskip("fsspec")
pytest.importorskip("google.cloud.storage")
pytest.importorskip("gcp_storage_emulator")
pytest.importorskip("upath")

from cloud_server import running
from small_store import make_store, small_config
from tiny_corpus import write_tiny_corpus

from preprocess.clips.datasets import DATASETS
from preprocess.clips.index import ClipIndex
from preprocess.engines.check import check
from preprocess.engines.run import preprocess
from preprocess.signal.audio import load_audio, stream_audio
from preprocess.signal.features import FRONT_ENDS
from preprocess.store.file_states import FileStates
from preprocess.store.shards import open_shard
from preprocess.store.store import Store, StoredClip, StoreWriter, write_clip
from tagger.base.errors import AudioError, ConfigError, StoreError
from tagger.base.files import write_bytes
from tagger.cloud.locations import location
from tagger.cloud.mirror import local_copy
from tagger.runs.store_copy import local_store
from tagger.train.data import prepare_data

STORE = location("gs://bucket/stores/small")
MUSIC = location("gs://bucket/music")


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    with running(monkeypatch) as server:
        yield server


@pytest.fixture
def small(cloud):
    """A store of ten clips in a bucket."""
    return make_store(STORE, n_clips=10, n_windows=2)


@pytest.fixture
def music(cloud, tmp_path):
    """The tiny corpus in a bucket; also local, its folder is returned."""
    root = tmp_path / "corpus"
    root.mkdir()
    write_tiny_corpus(root)
    upload(root, MUSIC)
    return root


def upload(root, address):
    for path in root.rglob("*"):
        if path.is_file():
            write_bytes(address / path.relative_to(root).as_posix(), path.read_bytes())


def files(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def writer_of(store):
    return StoreWriter(store.root, store.spec, tags=store.tags)


# Stores


def test_a_store_in_a_bucket_holds_the_same_bytes_as_a_local_one(cloud, tmp_path, small):
    make_store(tmp_path / "store", n_clips=10, n_windows=2)
    assert cloud.objects("stores/small") == files(tmp_path / "store")


def test_a_store_is_read_in_the_bucket(small, tmp_path):
    local = make_store(tmp_path / "store", n_clips=10, n_windows=2)
    np.testing.assert_array_equal(small.read(3)["log_mel"], local.read(3)["log_mel"])
    assert Store(STORE).clips == local.clips


def test_a_bucket_without_a_store_is_one_clear_error(cloud):
    with pytest.raises(StoreError, match=r"^gs://bucket/stores/small: no complete patch store"):
        Store(STORE)


def test_a_store_without_rights_is_one_clear_error(cloud, small):
    cloud.refused = lambda method, name: True
    with pytest.raises(StoreError, match=r"manifest\.json: cannot be read \(.*403.*your rights"):
        Store(STORE)
    with pytest.raises(StoreError, match=r"^gs://bucket/stores/small: cannot be written \(.*403"):
        writer_of(small)


def test_a_pickle_that_is_missing_or_damaged_is_named_by_its_address(small):
    (STORE / small.clips[0].file).unlink()
    write_bytes(STORE / small.clips[1].file, b"damaged")
    with pytest.raises(StoreError, match=f"^{STORE / small.clips[0].file}: cannot be read"):
        small.read(0)
    with pytest.raises(StoreError, match=f"^{STORE / small.clips[1].file}: "):
        small.read(1)


# The journal


def journal_of(cloud):
    return {
        name: [json.loads(line) for line in content.splitlines()]
        for name, content in cloud.objects("stores/small/journal").items()
    }


def test_what_a_killed_run_had_flushed_is_taken_up(cloud, small, monkeypatch):
    monkeypatch.setattr("preprocess.store.journal._FLUSH_CLIPS", 3)
    clips = [dataclasses.replace(clip, source_bytes=7) for clip in small.clips]
    killed = writer_of(small)
    for clip in clips[:7]:
        killed.add(clip)
    # Neither closed nor abandoned.
    assert [len(lines) - 1 for lines in journal_of(cloud).values()] == [0, 3, 3]
    again = writer_of(small)
    taken = [clip for clip in again.finished.values() if clip.source_bytes == 7]
    assert taken == clips[:6]
    # In one object now: the numbers go on.
    assert list(journal_of(cloud)) == ["00000004.jsonl"]
    assert len(journal_of(cloud)["00000004.jsonl"]) == 1 + 10


def test_an_abandoned_run_loses_nothing(cloud, small):
    clips = [dataclasses.replace(clip, source_bytes=7) for clip in small.clips]
    writer = writer_of(small)
    for clip in clips:
        writer.add(clip)
    writer.abandon()
    assert list(writer_of(small).finished.values()) == clips


def test_the_journal_is_flushed_after_some_time(cloud, small, monkeypatch):
    monkeypatch.setattr("preprocess.store.journal._FLUSH_SECONDS", 0.0)
    writer = writer_of(small)
    writer.add(small.clips[0])
    writer.add(small.clips[1])
    assert [len(lines) - 1 for lines in journal_of(cloud).values()] == [0, 1, 1]


def test_a_later_entry_of_a_clip_holds(cloud, small, monkeypatch):
    monkeypatch.setattr("preprocess.store.journal._FLUSH_CLIPS", 1)
    writer = writer_of(small)
    for size in (7, 8, 9):
        writer.add(dataclasses.replace(small.clips[0], source_bytes=size))
    assert writer_of(small).finished["0"].source_bytes == 9


def test_of_a_complete_store_no_journal_is_left(cloud, small):
    writer = writer_of(small)
    assert journal_of(cloud)
    writer.add(small.clips[0])
    writer.close(small.index)
    assert journal_of(cloud) == {}
    assert Store(STORE).clips == small.clips


def test_a_store_whose_run_was_interrupted_says_so(cloud, small):
    writer = writer_of(small)
    (STORE / "manifest.json").unlink()
    with pytest.raises(StoreError, match="a preprocess run was interrupted"):
        Store(STORE)
    writer.abandon()


def test_other_tags_renumber_what_the_journal_holds(cloud, small):
    writer = writer_of(small)
    writer.add(small.clips[1])
    writer.abandon()
    other = StoreWriter(STORE, small.spec, tags=("new", *small.tags))
    tags = small.clips[1].tags
    assert other.finished["1"].tags == (-1, *(number + 1 for number in tags))


# Preprocessing


def index_of(root):
    return DATASETS.create("magnatagatune", {}).index(root)


def run(root, store, **options):
    front_end = FRONT_ENDS.create("vggish", {})
    return preprocess(
        index_of(root), front_end, audio_root=root, store_root=store, n_workers=1, **options
    )


def without_sources(store):
    return [
        dataclasses.replace(clip, source_bytes=0, source_mtime_ns=0) for clip in Store(store).clips
    ]


def test_clips_in_a_bucket_make_the_store_that_local_ones_make(cloud, music, tmp_path):
    result = run(MUSIC, STORE)
    assert (result.n_clips, result.failures) == (8, {})
    run(music, tmp_path / "store")
    assert without_sources(STORE) == without_sources(tmp_path / "store")
    pickles = {k: v for k, v in cloud.objects("stores/small").items() if k.startswith("clips")}
    local = {k: v for k, v in files(tmp_path / "store").items() if k.startswith("clips")}
    assert pickles == local


def test_preprocessing_again_makes_only_what_has_changed(cloud, music):
    run(MUSIC, STORE)
    again = run(MUSIC, STORE)
    assert (again.n_written, again.n_kept) == (0, 8)
    changed = next(path for path in music.rglob("*.mp3"))
    write_bytes(MUSIC / changed.relative_to(music).as_posix(), changed.read_bytes())
    again = run(MUSIC, STORE)
    assert (again.n_written, again.n_kept) == (1, 7)


def test_what_is_done_is_found_by_listing_folders_not_file_by_file(cloud, music):
    run(MUSIC, STORE)
    asked = []
    cloud.refused = lambda method, name: asked.append(name) or False
    assert run(MUSIC, STORE).n_kept == 8
    assert any(name.endswith("manifest.json") for name in asked)
    assert not [name for name in asked if name.endswith((".mp3", ".pkl"))]


def test_a_clip_that_is_missing_or_no_audio_is_named_by_its_address(cloud, music):
    clips = sorted(path.relative_to(music).as_posix() for path in music.rglob("*.mp3"))
    (MUSIC / clips[0]).unlink()
    write_bytes(MUSIC / clips[1], b"no audio at all")
    write_bytes(MUSIC / clips[2], b"")
    result = run(MUSIC, STORE)
    assert result.n_clips == 5
    messages = sorted(result.failures.values())
    assert messages[0] == f"{MUSIC / clips[0]}: no such file; check the address"
    assert messages[1].startswith(f"{MUSIC / clips[1]}: not decodable audio")
    assert messages[2].startswith(f"{MUSIC / clips[2]}: empty file (0 bytes)")


def test_a_clip_whose_version_a_bucket_does_not_tell_is_not_said_to_have_changed(cloud, music):
    name = min(path.relative_to(music).as_posix() for path in music.rglob("*.mp3"))
    asked = []

    def refused(method, found):
        asked.append(found)
        return found == f"music/{name}" and asked.count(found) == 1

    cloud.refused = refused
    assert list(run(MUSIC, STORE).failures.values()) == [
        f"{MUSIC / name}: cannot be asked for its version now; run the command again"
    ]
    assert run(MUSIC, STORE).n_written == 1


def test_clips_in_a_bucket_are_checked(cloud, music):
    clips = sorted(path.relative_to(music).as_posix() for path in music.rglob("*.mp3"))
    (MUSIC / clips[0]).unlink()
    write_bytes(MUSIC / clips[1], b"")
    front_end = FRONT_ENDS.create("vggish", {})
    findings = check(index_of(MUSIC), front_end, audio_root=MUSIC, n_workers=1)
    found = {(finding.kind, finding.path) for finding in findings}
    assert {("missing", clips[0]), ("empty", clips[1])} <= found
    assert "unreadable" not in {kind for kind, _ in found}


def test_a_table_that_is_missing_in_a_bucket_is_one_clear_error(cloud):
    with pytest.raises(ConfigError, match=r"^gs://bucket/music/annotations_final\.csv: no such"):
        index_of(MUSIC)


def test_a_table_in_a_bucket_is_read(cloud):
    write_bytes(MUSIC / "clips.csv", b"path,tags\na.wav,x;y\nb.wav,y\n")
    index = DATASETS.create("tag_csv", {}).index(MUSIC)
    assert index.tags == ("x", "y")
    assert [clip.id for clip in index.clips] == ["a.wav", "b.wav"]


# Audio


def test_audio_in_a_bucket_decodes_to_the_same_samples(cloud, music):
    path = next(path for path in music.rglob("*.mp3"))
    address = MUSIC / path.relative_to(music).as_posix()
    np.testing.assert_array_equal(
        load_audio(address, target_rate=8000), load_audio(path, target_rate=8000)
    )
    remote = stream_audio(address, target_rate=16000, middle_seconds=0.5)
    local = stream_audio(path, target_rate=16000, middle_seconds=0.5)
    assert remote.offset_seconds == local.offset_seconds > 0
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(remote)), np.concatenate(list(local)))


def test_audio_without_rights_is_one_clear_error(cloud, music):
    cloud.refused = lambda method, name: name.endswith(".mp3")
    path = next(path for path in music.rglob("*.mp3"))
    address = MUSIC / path.relative_to(music).as_posix()
    with pytest.raises(AudioError, match=f"^{re.escape(str(address))}: no permission to read"):
        load_audio(address, target_rate=8000)


def test_nothing_is_left_of_fetched_audio(cloud, music, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    path = next(path for path in music.rglob("*.mp3"))
    address = MUSIC / path.relative_to(music).as_posix()
    blocks = iter(stream_audio(address, target_rate=8000))
    next(blocks)
    del blocks
    assert list((tmp_path / "temporary").iterdir()) == []


# Local copies


def test_a_local_store_is_itself(tmp_path):
    store = make_store(tmp_path / "store", n_clips=4)
    assert local_store(tmp_path / "store").root == store.root
    assert type(local_store(tmp_path / "store")) is Store
    assert local_store(store) is store


def test_a_copy_holds_the_same_files(cloud, small):
    copy = local_store(STORE)
    assert files(copy.root) == cloud.objects("stores/small")
    assert copy.clips == small.clips


def test_a_second_copy_fetches_no_pickle(cloud, small):
    local_store(STORE)
    cloud.fetched()
    local_store(STORE)
    assert [name for name in cloud.fetched() if name.endswith(".pkl")] == []


def test_a_killed_copy_is_gone_on_with(cloud, small):
    denied = {f"stores/small/{clip.file}" for clip in small.clips[5:]}
    cloud.refused = lambda method, name: name in denied
    with pytest.raises(StoreError, match=r"gs://bucket/stores/small cannot be copied"):
        local_store(STORE)
    cloud.refused = lambda method, name: False
    there = {
        f"stores/small/{name}" for name in files(local_copy("stores", STORE)) if ".tmp" not in name
    }
    cloud.fetched()
    copy = local_store(STORE)
    fetched = {name for name in cloud.fetched() if name.endswith(".pkl")}
    assert fetched == {f"stores/small/{clip.file}" for clip in small.clips} - there
    assert files(copy.root) == cloud.objects("stores/small")


def test_half_a_file_of_a_killed_copy_is_fetched_again(cloud, small):
    copy = local_store(STORE)
    path = copy.root / small.clips[2].file
    path.write_bytes(path.read_bytes()[:100])
    assert files(local_store(STORE).root) == cloud.objects("stores/small")


def test_only_clips_with_a_new_label_are_fetched_anew(cloud, small):
    local_store(STORE)
    relabel(small, 4)
    cloud.fetched()
    copy = local_store(STORE)
    fetched = [name for name in cloud.fetched() if name.endswith(".pkl")]
    assert fetched == [f"stores/small/{small.clips[4].file}"]
    assert files(copy.root) == cloud.objects("stores/small")


def relabel(store, row):
    """Give a clip another label; its pickle is as long as before."""
    writer = writer_of(store)
    labels = store.index.labels.copy()
    labels[row] = 1 - labels[row]
    clip = store.clips[row]
    written = write_clip(
        STORE, clip.record, windows=store.read(row), label=labels[row], dtype=store.spec.dtype
    )
    writer.add(StoredClip(clip.record, source_bytes=1, source_mtime_ns=1, **written))
    writer.close(ClipIndex(store.tags, store.index.clips, labels))


def test_clips_that_have_gone_are_removed(cloud, small):
    copy = local_store(STORE)
    writer_of(small).close(
        ClipIndex(small.tags, small.index.clips[:6], small.index.labels[:6], "test")
    )
    assert len(local_store(STORE)) == 6
    assert not (copy.root / small.clips[8].file).exists()
    assert (copy.root / small.clips[5].file).exists()


def test_a_pickle_damaged_in_the_copy_is_fetched_again(cloud, small):
    copy = local_store(STORE)
    path = copy.root / small.clips[2].file
    damaged = bytearray(path.read_bytes())
    damaged[-200] ^= 1
    path.write_bytes(bytes(damaged))
    np.testing.assert_array_equal(copy.read(2)["log_mel"], small.read(2)["log_mel"])
    assert files(copy.root) == cloud.objects("stores/small")


def test_a_pickle_damaged_in_the_bucket_is_refused(cloud, small):
    address = STORE / small.clips[2].file
    damaged = bytearray(address.read_bytes())
    damaged[-200] ^= 1
    write_bytes(address, bytes(damaged))
    with pytest.raises(StoreError, match="checksum"):
        local_store(STORE).read(2)


def test_a_pickle_that_is_not_in_the_bucket_is_named(cloud, small):
    address = STORE / small.clips[2].file
    address.unlink()
    with pytest.raises(StoreError, match=f"^{address}: missing; run 'tagger preprocess' again"):
        local_store(STORE)


def test_only_the_wanted_clips_are_fetched_and_others_when_they_are_read(cloud, small):
    cloud.fetched()
    copy = local_store(STORE, rows=[1, 3])
    wanted = {f"stores/small/{small.clips[row].file}" for row in (1, 3)}
    assert {name for name in cloud.fetched() if name.endswith(".pkl")} == wanted
    np.testing.assert_array_equal(copy.read(5)["log_mel"], small.read(5)["log_mel"])
    assert files(local_store(STORE).root) == cloud.objects("stores/small")


def test_a_shard_is_built_from_the_copy_and_kept(cloud, small):
    shard = open_shard(local_store(STORE))
    np.testing.assert_array_equal(shard.memory_map("log_mel")[2:4], small.read(1)["log_mel"])
    assert open_shard(local_store(STORE)).is_current()
    before = (shard.root / "log_mel.bin").stat().st_mtime_ns
    open_shard(local_store(STORE))
    assert (shard.root / "log_mel.bin").stat().st_mtime_ns == before


def test_two_processes_make_one_copy(cloud, small):
    cloud.fetched()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        lengths = [pool.submit(_copied, STORE) for _ in range(2)]
        assert [length.result(timeout=60) for length in lengths] == [10, 10]
    assert len([name for name in cloud.fetched() if name.endswith(".pkl")]) == 10
    assert files(local_copy("stores", STORE)) == cloud.objects("stores/small")


def _copied(address):
    return len(local_store(address))


def test_a_damaged_pickle_that_cannot_be_fetched_again_is_one_clear_error(cloud, small):
    copy = local_store(STORE)
    (copy.root / small.clips[2].file).write_bytes(b"damaged")
    cloud.refused = lambda method, name: method == "GET"
    with pytest.raises(StoreError) as caught:
        copy.read(2)
    message = str(caught.value)
    assert message.startswith(f"{STORE / small.clips[2].file}: {STORE} cannot be copied (403 ")
    assert "no permission for you); check your rights, the network" in message
    # The server's answer is a JSON document.
    assert not set(message) & set("{}\n")


def test_an_open_store_is_copied_as_it_was_opened(cloud, small):
    writer_of(small).close(
        ClipIndex(small.tags, small.index.clips[4:], small.index.labels[4:], "test")
    )
    opened = Store(STORE)
    # Preprocessed once more meanwhile.
    writer_of(small).close(
        ClipIndex(small.tags, small.index.clips[5:], small.index.labels[5:], "test")
    )
    copy = local_store(opened)
    assert copy.clips == opened.clips
    np.testing.assert_array_equal(copy.index.labels, opened.index.labels)
    np.testing.assert_array_equal(copy.read(0)["log_mel"], small.read(4)["log_mel"])
    assert local_store(STORE).clips == Store(STORE).clips


def test_the_manifest_is_read_once_for_training(cloud, tmp_path):
    make_store(STORE, n_clips=32)
    cloud.asked = []
    Store(STORE)
    once = [item for item in cloud.asked if item[1].endswith("manifest.json")]
    cloud.asked = []
    prepare_data(small_config(tmp_path, f"store.root={STORE}"))
    assert [item for item in cloud.asked if item[1].endswith("manifest.json")] == once


def test_a_cache_that_cannot_be_written_is_named(cloud, small, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"file/stores: .* TAGGER_CACHE"):
        local_store(STORE)


def test_two_stores_have_two_copies(cloud, small):
    other = make_store(location("gs://bucket/stores/other"), n_clips=4)
    assert len(local_store(STORE)) == 10
    assert len(local_store(other.root)) == 4
    assert len(local_store(STORE)) == 10


def test_a_copy_that_was_deleted_is_made_anew(cloud, small):
    copy = local_store(STORE)
    shutil.rmtree(copy.root)
    assert files(local_store(STORE).root) == cloud.objects("stores/small")


# Sizes and times of many files


@pytest.mark.parametrize(("name", "where"), [("a/x.wav", f"{MUSIC}/a"), ("x.wav", str(MUSIC))])
def test_a_listing_that_is_refused_is_not_taken_for_an_empty_bucket(cloud, name, where):
    write_bytes(MUSIC / name, b"music")
    cloud.refused = lambda method, name: method == "GET"
    with pytest.raises(StoreError, match=rf"^{where}: cannot be listed \(.*403.*your rights"):
        FileStates(MUSIC).get(name)


def test_in_a_bucket_that_is_empty_no_file_is_found(cloud):
    assert FileStates(MUSIC).get("a/x.wav") is None
    assert FileStates(MUSIC).get("x.wav") is None


@pytest.mark.parametrize("name", ["./a/x.wav", "a//x.wav", "a/./x.wav"])
def test_a_name_that_is_written_otherwise_finds_its_file(cloud, name):
    write_bytes(MUSIC / "a/x.wav", b"music")
    found = FileStates(MUSIC).get(name)
    assert found is not None
    assert found[0] == len(b"music")
    assert found == FileStates(MUSIC).get("a/x.wav")
