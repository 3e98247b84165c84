"""gs:// is accepted wherever a path is read; where it cannot be written to, that is said."""

import shutil

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("google.cloud.storage")
pytest.importorskip("gcp_storage_emulator")
pytest.importorskip("upath")

import numpy as np
import soundfile as sf
from cloud_server import running
from signals import noise
from small_model import small_run
from small_store import make_store

from tagger.cloud.locations import file_or_object, location


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    # What is taken for a local name would be made here.
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with running(monkeypatch) as server:
        yield server
    assert list((tmp_path / "here").iterdir()) == []


@pytest.fixture
def songs(tmp_path, cloud):
    """Three songs in a folder, and the same in a bucket."""
    folder = tmp_path / "songs"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(["a.wav", "b.flac", "deep/c.ogg"]):
        sf.write(folder / name, noise(2.5, seed=number), 16000)
        (location("gs://bucket/songs") / name).write_bytes((folder / name).read_bytes())
    (location("gs://bucket/songs") / "cover.jpg").write_bytes(b"no audio")
    return folder


def put(local, address):
    for path in local.rglob("*"):
        if path.is_file():
            (location(address) / path.relative_to(local).as_posix()).write_bytes(path.read_bytes())


def test_a_folder_in_a_bucket_is_tagged_as_one_on_the_disk(songs, command, tmp_path_factory):
    model = small_run(tmp_path_factory)
    options = ("tag", "--model", model, "--format", "csv", "--top-k", "2")
    rows = []
    for folder in ("gs://bucket/songs", songs):
        code, out, _ = command(*options, folder)
        assert code == 0
        # All but the last column, which is the time.
        lines = out.replace("gs://bucket/songs", str(songs)).splitlines()
        rows.append([line.rpartition(",")[0] for line in lines])
    assert rows[0] == rows[1]
    assert len(rows[0]) == 1 + 3 * 2


def test_what_was_tagged_in_a_bucket_is_not_fetched_again(
    songs, command, tmp_path, tmp_path_factory, cloud
):
    model = small_run(tmp_path_factory)
    output = tmp_path / "tags.csv"
    options = ("predict-tags", "--model", model, "--format", "csv", "-o", output)
    assert command(*options, "gs://bucket/songs/a.wav")[0] == 0
    # Fetched, it would arrive damaged.
    cloud.damaged["songs/a.wav"] = 100
    assert command(*options, "gs://bucket/songs")[0] == 0
    assert cloud.damaged["songs/a.wav"] == 100
    content = output.read_text()
    assert all(name in content for name in ("songs/a.wav", "songs/b.flac", "deep/c.ogg"))


def test_an_object_that_is_missing_fails_by_its_address_and_stops_no_other(
    songs, command, tmp_path_factory
):
    model = small_run(tmp_path_factory)
    code, out, _ = command(
        *("predict-tags", "--model", model, "--format", "csv", "--top-k", "1"),
        *("gs://bucket/songs/none.mp3", "gs://bucket/songs/a.wav"),
    )
    assert code == 1
    assert "gs://bucket/songs/none.mp3: no such file; check the address" in out
    assert "gs://bucket/songs/a.wav,0.000000," in out


def test_embeddings_of_a_bucket_are_those_of_the_disk(songs, command, tmp_path, tmp_path_factory):
    model = small_run(tmp_path_factory)
    for name, source in (("there", "gs://bucket/songs"), ("here", songs)):
        assert command("embed", "--model", model, source, "-o", tmp_path / f"{name}.npz")[0] == 0
    with np.load(tmp_path / "there.npz") as there, np.load(tmp_path / "here.npz") as here:
        np.testing.assert_array_equal(there["embeddings"], here["embeddings"])


def test_a_list_and_a_config_may_lie_in_a_bucket(songs, command, tmp_path_factory):
    model = small_run(tmp_path_factory)
    location("gs://bucket/list.txt").write_text("gs://bucket/songs/a.wav\n")
    options = ("predict-tags", "--model", model, "--format", "csv", "--top-k", "1")
    assert "a.wav" in command(*options, "--files-from", "gs://bucket/list.txt")[1]
    location("gs://bucket/configs/base.yaml").write_text("data: {tags: 7}\n")
    location("gs://bucket/configs/mine.yaml").write_text("extends: base.yaml\n")
    code, out, _ = command("info", "--config", "gs://bucket/configs/mine.yaml")
    assert code == 0
    # Seven tags from 512 units.
    assert f"{7 * 512 + 7:,d}" in out
    code, _, err = command("info", "--config", "gs://bucket/configs/none.yaml")
    assert code == 2
    assert err == "error: gs://bucket/configs/none.yaml: no such config file; check --config\n"


@pytest.mark.parametrize("kind", ["run", "bundle", "store"])
def test_info_says_of_a_bucket_what_it_says_of_a_disk(
    kind, command, cloud, tmp_path, tmp_path_factory
):
    local = tmp_path / "local"
    if kind == "store":
        make_store(local, n_clips=8)
    else:
        run = small_run(tmp_path_factory)
        shutil.copytree(run if kind == "run" else run / "bundle", local)
    put(local, "gs://bucket/thing")
    code, there, _ = command("info", "gs://bucket/thing")
    assert code == 0
    code, here, _ = command("info", local)
    assert code == 0
    assert len(here.splitlines()) > 4
    # Of a bundle the copy in the cache is named.
    different = [pair for pair in zip(there.splitlines(), here.splitlines(), strict=True)
                 if pair[0].replace("gs://bucket/thing", str(local)) != pair[1]]  # fmt: skip
    assert len(different) == (1 if kind == "bundle" else 0), different


@pytest.mark.parametrize(
    "words",
    [
        ("predict-tags", "SONG", "--format", "csv", "-o", "gs://bucket/x.csv"),
        ("predict-tags", "SONG", "--taggram", "gs://bucket/x.png"),
        ("embed", "SONG", "-o", "gs://bucket/x.npz"),
        ("demo-corpus", "gs://bucket/x", "--n-clips", "16", "--seconds", "1"),
        ("fetch-magnatagatune", "gs://bucket/x"),
    ],
    ids=lambda words: words[0],
)
def test_what_is_written_piece_by_piece_is_refused_in_a_bucket(words, songs, command, cloud):
    words = [str(songs / "a.wav") if word == "SONG" else word for word in words]
    code, _, err = command(*words)
    assert code == 2
    assert "which a bucket cannot; give a local name and copy the result" in err
    assert not any(name.startswith("x") for name in cloud.objects())


def test_tags_are_not_written_into_a_bucket(songs, command):
    code, _, err = command("predict-tags", "gs://bucket/songs", "--write-tags")
    assert code == 2
    assert "--write-tags cannot write into a bucket; copy the files and name these" in err


def test_an_address_that_cannot_be_fails_by_its_name_and_stops_no_other(
    songs, command, tmp_path_factory
):
    model = small_run(tmp_path_factory)
    code, out, _ = command(
        *("predict-tags", "--model", model, "--format", "csv", "--top-k", "1"),
        *("gs://bucket/../x.wav", "gs://B!/x.wav", songs / "a.wav"),
    )
    assert code == 1
    rows = [line for line in out.splitlines() if not line.startswith("#")]
    assert len(rows) == 1 + 3
    assert all("no such file; check the path" in row for row in rows[1:3])
    assert "a.wav,0.000000," in rows[3]


def test_names_that_only_look_like_addresses_are_local(tmp_path):
    for name in ("http://x/y.mp3", "gs://b/../x", "s3://b/k", "a:b.wav", "gs.wav", str(tmp_path)):
        assert not hasattr(file_or_object(name), "fs"), name
