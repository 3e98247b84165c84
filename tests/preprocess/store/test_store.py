"""Promises of the store: what is written is read back, and damage is told by name."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.signal.features import FRONT_ENDS
from preprocess.signal.features.vggish import VggishFrontEnd
from preprocess.store.journal import JOURNAL
from preprocess.store.store import (
    MANIFEST,
    Store,
    StoredClip,
    StoreSpec,
    StoreWriter,
    clip_file_name,
    read_clip,
    write_clip,
)
from tagger.base.errors import ConfigError, StoreError
from tagger.base.files import content_hash, write_bytes

TAGS = ("drums", "flute", "slow")
IDS = ("first", "second", "third")
LABELS = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.uint8)
NASTY_IDS = (
    *("../../etc/passwd", "/absolute", "..", ".", "", "a/b", "a_b", "a b", "A", "a", "CON", "-rf"),
    *("é", "è", "日本", "👍", "a\u202eb", "\n", "\0", "%2e%2e", "~", "$HOME"),
    *("x" * 5000, "x" * 5001, "a" * 59 + "/"),
)


def front_end(**params):
    return FRONT_ENDS.create("vggish", params)


def windows(n_windows=3, seed=0):
    rng = np.random.default_rng(seed)
    return {"log_mel": rng.standard_normal((n_windows, 96, 64)).astype(np.float32)}


def index_of(ids=IDS, labels=LABELS, tags=TAGS):
    return ClipIndex(tags, [ClipRecord(i, f"{i}.wav", artist="ann") for i in ids], labels)


def add(writer, record, label, *, seed=0):
    written = write_clip(
        writer.root, record, windows=windows(2 + seed, seed), label=label, dtype=writer.spec.dtype
    )
    writer.add(StoredClip(record, source_bytes=1, source_mtime_ns=2, **written))


def write_store(root, dtype="float32"):
    index = index_of()
    writer = StoreWriter(root, StoreSpec.of(front_end(), dtype), tags=TAGS)
    for seed, (record, label) in enumerate(zip(index.clips, index.labels, strict=True)):
        add(writer, record, label, seed=seed)
    writer.close(index)
    return Store(root)


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store")


def pickle_of(store, row=0):
    return store.root / store.clips[row].file


def change_manifest(store, change):
    path = store.root / MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def refusal(action, path):
    """Check that the error of `action` names `path` and a remedy, and return its message."""
    with pytest.raises(StoreError) as caught:
        action()
    message = str(caught.value)
    assert str(path) in message
    assert "; " in message
    assert "preprocess" in message.split("; ", 1)[1] or "store.root" in message
    return message


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_windows_come_back_as_they_were_stored(tmp_path, dtype):
    store = write_store(tmp_path / "store", dtype)
    assert len(store) == 3
    assert store.n_windows.tolist() == [2, 3, 4]
    for row in range(3):
        found = store.read(row)["log_mel"]
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, windows(2 + row, row)["log_mel"].astype(dtype))
        assert not found.flags.writeable


def test_labels_tags_and_groups_come_back(store):
    assert store.tags == TAGS
    np.testing.assert_array_equal(store.index.labels, LABELS)
    assert store.index.clips == index_of().clips


def test_an_ordinary_reader_finds_id_label_and_windows_in_a_pickle(store):
    content = pickle.loads(pickle_of(store, 2).read_bytes())
    assert content["id"] == "third"
    assert content["label"].tolist() == [0, 1, 0]
    assert content["windows"]["log_mel"].shape == (4, 96, 64)


def test_a_front_end_of_two_inputs_is_stored_under_both_names(tmp_path):
    both = {"log_mel": np.ones((2, 4, 3), np.float32), "features": np.zeros((2, 5), np.float32)}
    spec = StoreSpec({}, "", {"log_mel": (4, 3), "features": (5,)}, "float16")
    record = ClipRecord("a", "a.wav")
    written = write_clip(tmp_path, record, windows=both, label=LABELS[0], dtype="float16")
    clip = StoredClip(record, source_bytes=0, source_mtime_ns=0, **written)
    found = read_clip(tmp_path, clip, spec)["windows"]
    assert {name: array.shape for name, array in found.items()} == {
        "log_mel": (2, 4, 3),
        "features": (2, 5),
    }


def test_a_flipped_bit_differs_from_the_checksum(store):
    path = pickle_of(store)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "checksum" in refusal(lambda: store.read(0), path)


def test_a_missing_pickle_is_refused(store):
    pickle_of(store).unlink()
    assert "No such file" in refusal(lambda: store.read(0), pickle_of(store))


@pytest.mark.parametrize("length", [0, 1, 5000])
def test_a_cut_pickle_is_refused_as_damaged(store, length):
    path = pickle_of(store)
    path.write_bytes(path.read_bytes()[:length])
    assert "damaged pickle" in refusal(lambda: store.read(0), path)


class Attack:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def test_an_unsafe_pickle_is_refused_and_not_executed(store, tmp_path):
    mark = tmp_path / "mark"
    path = pickle_of(store)
    path.write_bytes(pickle.dumps({"id": "first", "windows": Attack(mark)}))
    assert "unsafe" in refusal(lambda: store.read(0), path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()


def test_the_pickle_of_another_clip_is_refused(store):
    pickle_of(store, 0).write_bytes(pickle_of(store, 1).read_bytes())
    refusal(lambda: store.read(0), pickle_of(store, 0))


def test_the_pickle_of_another_clip_is_refused_though_the_manifest_agrees(store):
    def swap(content):
        first, second = content["clips"][:2]
        for key in ("file", "checksum", "n_windows"):
            first[key], second[key] = second[key], first[key]

    change_manifest(store, swap)
    swapped = Store(store.root)
    message = refusal(lambda: swapped.read(0), pickle_of(store, 1))
    assert "holds other patches than the manifest says" in message


def test_a_pickle_of_another_number_of_windows_is_refused(store):
    change_manifest(store, lambda content: content["clips"][0].update(n_windows=7))
    assert "other patches" in refusal(lambda: Store(store.root).read(0), pickle_of(store))


@pytest.mark.parametrize("something", [[1, 2], np.zeros(3), None, "text", {"windows": 3}], ids=str)
def test_a_pickle_of_something_else_is_refused(store, something):
    clip = store.clips[0]
    content = pickle.dumps(something)
    pickle_of(store).write_bytes(content)
    other = replace(clip, checksum=content_hash(content))
    message = refusal(lambda: read_clip(store.root, other, store.spec), pickle_of(store))
    assert "not a pickle of patches" in message


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b'{"schema_version": 1}', id="nothing but the version"),
        pytest.param(b'{"schema_version": 1, "spec": [], "tags": [], "clips": []}', id="no spec"),
    ],
)
def test_a_damaged_manifest_is_refused(store, content):
    (store.root / MANIFEST).write_bytes(content)
    message = refusal(lambda: Store(store.root), store.root / MANIFEST)
    assert "damaged manifest" in message
    assert "delete it" in message


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_a_manifest_of_another_schema_version_is_refused(store, version):
    change_manifest(store, lambda content: content.update(schema_version=version))
    message = refusal(lambda: Store(store.root), store.root / MANIFEST)
    assert f"schema version {version}" in message
    assert "reads 1" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        # Files of a shard are called as the arrays are.
        ("input_shapes", {"../../log_mel": [96, 64]}),
        ("input_shapes", {"/log_mel": [96, 64]}),
        ("input_shapes", {"": [96, 64]}),
        ("input_shapes", {"log_mel": [-1, 64]}),
        ("input_shapes", {"log_mel": [0, 64]}),
        ("input_shapes", {"log_mel": [1e9]}),
        ("dtype", "object"),
        ("dtype", 0.5),
        ("dtype", ["float32"]),
        ("front_end", []),
        ("front_end", {"params": 3}),
        ("front_end_hash", None),
    ],
)
def test_a_manifest_whose_spec_holds_nonsense_is_refused(store, key, value):
    change_manifest(store, lambda content: content["spec"].update({key: value}))
    for use in (Store, lambda root: StoreWriter(root, store.spec, tags=store.tags)):
        assert "damaged manifest" in refusal(lambda use=use: use(store.root), store.root / MANIFEST)


@pytest.mark.parametrize("tags", [["drums", ["flute"], "slow"], ["a", "a", "b"], "abc", [1, 2, 3]])
def test_a_manifest_whose_tags_are_no_names_is_refused(store, tags):
    change_manifest(store, lambda content: content.update(tags=tags))
    assert "damaged manifest" in refusal(lambda: Store(store.root), store.root / MANIFEST)


@pytest.mark.parametrize("last_key", ["", '"spec": ', '"clips": ['])
def test_a_manifest_of_lists_in_lists_is_refused(store, last_key):
    path = store.root / MANIFEST
    start, _, _ = path.read_text(encoding="utf-8").partition(last_key or "{")
    path.write_text(start + last_key + "[" * 100_000)
    message = refusal(lambda: Store(store.root), store.root / MANIFEST)
    assert "damaged manifest" in message and "nested too deeply" in message


def test_a_line_of_lists_in_lists_ends_a_journal(tmp_path):
    write_bytes(tmp_path / JOURNAL, b"[" * 100_000 + b"\n")
    writer = StoreWriter(tmp_path, StoreSpec.of(front_end(), "float16"), tags=TAGS)
    assert not writer.finished


@pytest.mark.parametrize("content", [b"[]", b"3", b"null"])
def test_a_manifest_that_is_no_map_is_refused(store, content):
    (store.root / MANIFEST).write_bytes(content)
    refusal(lambda: Store(store.root), store.root / MANIFEST)


@pytest.mark.parametrize(
    "change",
    [
        {"tags": [3]},
        {"tags": [-1]},
        {"tags": ["drums"]},
        {"n_windows": "2"},
        {"n_windows": 0},
        {"file": None},
        {"checksum": 5},
        {"record": {"id": "a"}},
        {"record": {"id": 1, "path": "a.wav"}},
        {"unknown": 1},
        {"file": "../../first.pkl"},
        {"file": "clips/../../first.pkl"},
        {"file": "/first.pkl"},
        {"file": "clips\\..\\..\\first.pkl"},
        {"file": "C:/first.pkl"},
        {"file": ""},
        {"file": "a\0b"},
    ],
    ids=str,
)
def test_a_manifest_whose_clip_holds_nonsense_is_refused(store, change):
    change_manifest(store, lambda content: content["clips"][1].update(change))
    assert "damaged manifest" in refusal(lambda: Store(store.root), store.root / MANIFEST)


@pytest.mark.parametrize("path", ["../first.wav", "/first.wav", "", "second.wav"])
def test_a_manifest_whose_paths_are_not_those_of_a_data_set_is_refused(store, path):
    change_manifest(store, lambda content: content["clips"][0]["record"].update(path=path))
    with pytest.raises(ConfigError, match=MANIFEST):
        _ = Store(store.root).index


def test_a_folder_without_a_store_is_refused(tmp_path):
    assert "no complete patch store" in refusal(lambda: Store(tmp_path), tmp_path)


def test_a_half_written_store_is_refused_as_that(tmp_path):
    writer = StoreWriter(tmp_path, StoreSpec.of(front_end(), "float16"), tags=TAGS)
    add(writer, index_of().clips[0], LABELS[0])
    writer.abandon()
    assert (tmp_path / JOURNAL).exists()
    assert "interrupted" in refusal(lambda: Store(tmp_path), tmp_path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3), st.integers(0, 20)),
        min_size=1,
        max_size=3,
    )
)
def test_a_manifest_with_any_damage_is_refused_or_read(tmp_path, changes):
    root = tmp_path / "store"
    if not root.exists():
        write_store(root)
        (root / MANIFEST).rename(root / "whole.json")
    content = (root / "whole.json").read_bytes()
    for place, new, n_removed in changes:
        at = int(place * len(content))
        content = content[:at] + new + content[at + n_removed :]
    (root / MANIFEST).write_bytes(content)
    try:
        store = Store(root)
        _ = store.index
        for row in range(len(store)):
            store.read(row)
    except (StoreError, ConfigError) as error:
        assert str(root) in str(error)


# Who made it.


def test_the_front_end_that_made_the_store_is_accepted(store):
    store.require_front_end(front_end(), user="this model")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hop_seconds": 0.48}, "hop_seconds=0.96 instead of 0.48"),
        ({"n_bands": 128}, "n_bands=64 instead of 128"),
        (
            {"keep_partial": True, "min_hz": 20.0},
            "keep_partial=False instead of True, min_hz=125.0",
        ),
    ],
)
def test_another_front_end_is_refused_by_the_parameters_that_differ(store, params, message):
    with pytest.raises(StoreError) as caught:
        store.require_front_end(front_end(**params), user="the run 'x'")
    assert message in str(caught.value)
    assert "the run 'x'" in str(caught.value)
    assert str(store.root) in str(caught.value)
    for name in front_end().spec()["params"].keys() - params.keys():
        assert f"{name}=" not in str(caught.value)


def test_another_version_of_the_front_end_is_refused_by_its_number(store, monkeypatch):
    monkeypatch.setattr(VggishFrontEnd, "version", 2)
    with pytest.raises(StoreError, match="version 1 instead of 2"):
        store.require_front_end(front_end(), user="this model")


def test_a_front_end_of_another_name_is_refused_by_its_name(store, monkeypatch):
    monkeypatch.setattr(VggishFrontEnd, "name", "musicnn")
    with pytest.raises(StoreError, match="front end 'vggish' instead of 'musicnn'"):
        store.require_front_end(front_end(), user="this model")


def test_a_writer_of_other_parameters_is_refused(store):
    spec = StoreSpec.of(front_end(hop_seconds=0.48), "float32")
    with pytest.raises(StoreError, match=r"hop_seconds=0\.96 instead of 0\.48.*store\.root"):
        StoreWriter(store.root, spec, tags=TAGS)


def test_a_writer_of_another_dtype_is_refused(store):
    with pytest.raises(StoreError, match=r"float32 patches, not float16.*store\.root"):
        StoreWriter(store.root, StoreSpec.of(front_end(), "float16"), tags=TAGS)


def test_a_refused_writer_leaves_the_store_as_it_was(store):
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    with pytest.raises(StoreError):
        StoreWriter(store.root, StoreSpec.of(front_end(), "float16"), tags=TAGS)
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == before


# The journal.


def interrupted(root, n_clips=2, tags=TAGS):
    writer = StoreWriter(root, StoreSpec.of(front_end(), "float16"), tags=tags)
    for record, label in zip(index_of().clips[:n_clips], LABELS, strict=False):
        add(writer, record, label)
    writer.abandon()
    return writer


def resumed(root, tags=TAGS):
    writer = StoreWriter(root, StoreSpec.of(front_end(), "float16"), tags=tags)
    writer.abandon()
    return writer.finished


def test_what_the_journal_holds_is_finished(tmp_path):
    assert resumed(tmp_path) == {}
    finished = interrupted(tmp_path).finished
    assert list(finished) == ["first", "second"]
    assert resumed(tmp_path) == finished


@pytest.mark.parametrize("n_bytes", [1, 2, 30, 100])
def test_a_journal_whose_last_line_was_cut_loses_that_clip_alone(tmp_path, n_bytes):
    interrupted(tmp_path)
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-n_bytes])
    wanted = ["first", "second"] if n_bytes == 1 else ["first"]
    assert list(resumed(tmp_path)) == wanted
    writer = StoreWriter(tmp_path, StoreSpec.of(front_end(), "float16"), tags=TAGS)
    for record, label in zip(index_of().clips[len(wanted) :], LABELS[len(wanted) :], strict=True):
        add(writer, record, label)
    writer.abandon()
    assert list(resumed(tmp_path)) == list(IDS)


def test_a_closed_store_has_no_journal_and_is_taken_over(store):
    assert not (store.root / JOURNAL).exists()
    writer = StoreWriter(store.root, store.spec, tags=TAGS)
    writer.abandon()
    assert list(writer.finished.values()) == store.clips


def test_the_journal_adds_to_the_manifest(tmp_path):
    writer = StoreWriter(tmp_path, StoreSpec.of(front_end(), "float16"), tags=TAGS)
    add(writer, index_of().clips[0], LABELS[0])
    writer.close(index_of())
    interrupted(tmp_path, n_clips=3)
    assert list(resumed(tmp_path)) == list(IDS)


def test_a_journal_of_other_parameters_is_refused(tmp_path):
    interrupted(tmp_path)
    with pytest.raises(StoreError, match=r"instead of 0\.48"):
        StoreWriter(tmp_path, StoreSpec.of(front_end(hop_seconds=0.48), "float16"), tags=TAGS)


@pytest.mark.parametrize("line", ['{"schema_version": 1}', '{"a": 2}'])
def test_a_journal_that_is_none_is_refused(tmp_path, line):
    (tmp_path / JOURNAL).write_text(line + "\n", encoding="utf-8")
    message = refusal(lambda: resumed(tmp_path), tmp_path / JOURNAL)
    assert "damaged journal" in message


def test_labels_follow_their_tags_to_other_columns_and_count_as_old(tmp_path):
    interrupted(tmp_path)
    moved = ("slow", "piano", "drums")
    for _ in range(3):
        # However often the run that writes the labels anew is interrupted.
        assert resumed(tmp_path, moved)["first"].tags == (-1, 0, 2)
    assert resumed(tmp_path, ("flute",))["second"].tags == (-1,)


def test_what_killed_writes_left_is_removed(store):
    leftovers = [store.root / ".tmp-a", pickle_of(store).parent / ".tmp-b"]
    for path in leftovers:
        path.write_bytes(b"half")
    StoreWriter(store.root, store.spec, tags=TAGS).abandon()
    assert not any(path.exists() for path in leftovers)
    assert pickle_of(store).exists()


def test_a_store_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be written.*store\.root"):
        StoreWriter(tmp_path / "file" / "a", StoreSpec.of(front_end(), "float16"), tags=TAGS)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from preprocess.clips.index import ClipRecord
from preprocess.store.store import StoredClip, StoreSpec, StoreWriter
from tagger.base.errors import StoreError

writer = StoreWriter(Path(sys.argv[1]), StoreSpec({}, "", {}, "float16"), tags=())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    for number in range(100):
        writer.add(StoredClip(ClipRecord(str(number), "a"), (), "f", 1, "c", 0, 0))
except StoreError as error:
    writer.abandon()
    print(error)
"""


def test_a_disk_that_is_full_is_told_by_the_name_of_the_store(tmp_path):
    # A limit on the size of files stands for it.
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert f"{tmp_path}: cannot be written (File too large); check disk space" in done.stdout


# File names.


def assert_safe(name):
    folder, shard, file = name.split("/")
    assert folder == "clips"
    assert len(shard) == 2
    assert len(file) <= 100
    assert file.isascii()
    assert set(file.removesuffix(".pkl")) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
    )


@given(clip_id=st.text())
def test_the_name_of_a_pickle_is_safe_whatever_the_id_holds(clip_id):
    assert_safe(clip_file_name(clip_id))


def test_the_names_of_pickles_are_unique_even_where_letter_case_is_not_told():
    names = {clip_file_name(clip_id).lower() for clip_id in NASTY_IDS}
    assert len(names) == len(NASTY_IDS)


@given(ids=st.sets(st.text(), min_size=2, max_size=20))
def test_two_ids_never_share_a_pickle(ids):
    assert len({clip_file_name(clip_id) for clip_id in ids}) == len(ids)


def test_clips_of_nasty_ids_stay_inside_the_store_and_come_back(tmp_path):
    root = tmp_path / "store"
    labels = np.zeros((len(NASTY_IDS), 3), np.uint8)
    records = [ClipRecord(clip_id, f"{row}.wav") for row, clip_id in enumerate(NASTY_IDS)]
    index = ClipIndex(TAGS, records, labels)
    writer = StoreWriter(root, StoreSpec.of(front_end(), "float16"), tags=TAGS)
    for record, label in zip(index.clips, labels, strict=True):
        add(writer, record, label)
    writer.close(index)
    store = Store(root)
    assert [clip.record.id for clip in store.clips] == list(NASTY_IDS)
    for row in range(len(store)):
        assert store.read(row)["log_mel"].shape == (2, 96, 64)
    assert {path.name for path in tmp_path.iterdir()} == {"store"}
    assert len(list(root.rglob("*.pkl"))) == len(NASTY_IDS)


def test_what_a_store_says_of_a_clip_survives_json(store):
    for clip in store.clips:
        assert StoredClip.from_json(json.loads(json.dumps(clip.to_json()))) == clip
        assert asdict(clip)["record"]["artist"] == "ann"


@pytest.mark.parametrize("lacking", ["name", "version", "params"])
def test_a_store_whose_front_end_lacks_a_part_is_refused_by_its_name(store, lacking):
    def change(content):
        del content["spec"]["front_end"][lacking]
        content["spec"]["front_end_hash"] = "another"

    change_manifest(store, change)
    with pytest.raises(StoreError, match=f"{store.root}: holds a store made by"):
        StoreWriter(store.root, store.spec, tags=store.tags)
    with pytest.raises(StoreError, match=f"{store.root}: made by"):
        Store(store.root).require_front_end(front_end(), user="the model")
