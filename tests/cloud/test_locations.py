"""Promises of addresses: one kind of path for folders and buckets, kept by Google's own client."""

import concurrent.futures
import io
import multiprocessing
import pickle
import re
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("fsspec")
pytest.importorskip("google.cloud.storage")
pytest.importorskip("gcp_storage_emulator")
pytest.importorskip("upath")

from cloud_server import running
from upath import UPath

from tagger.base.addresses import is_remote
from tagger.base.errors import ConfigError
from tagger.base.files import atomic_write, sha256_of_file, write_bytes, write_json, write_text
from tagger.cloud.locations import location
from tagger.config import load_config

ROOT = "gs://bucket/some/folder"


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    with running(monkeypatch) as server:
        yield server


# Names


@pytest.mark.parametrize("name", ["a/b", "/a/b", "gs:/bucket", "C:\\x", ".", "a: b", "müsik #1"])
def test_a_local_name_is_a_plain_path(name):
    assert location(name) == Path(name)
    assert type(location(name)) is type(Path())
    assert not is_remote(name) and not is_remote(location(name))


def test_an_address_is_a_path_that_joins_names():
    root = location(ROOT)
    assert isinstance(root, UPath)
    assert is_remote(root) and is_remote(ROOT)
    assert str(root / "deeper/x.pkl") == f"{ROOT}/deeper/x.pkl"
    assert (root / "deeper/x.pkl").suffix == ".pkl"
    assert location(root) is root


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("gs://bucket", "gs://bucket/"),
        ("gs://bucket/x/", "gs://bucket/x"),
        ("gs://bucket/./x//y", "gs://bucket/x/y"),
        ("GS://bucket/x", "gs://bucket/x"),
    ],
)
def test_addresses_of_one_place_are_equal(text, canonical):
    assert str(location(text)) == canonical
    assert location(text) == location(canonical)


def test_an_address_that_pathlib_has_shortened_is_an_address():
    assert location(Path("gs://bucket/run")) == location("gs://bucket/run")
    assert location(Path("file:///some/where")) == Path("/some/where")


def test_a_file_address_is_a_local_folder():
    assert location("file:///some/where") == Path("/some/where")
    assert not is_remote("file:///some/where")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("s3://bucket/x", "unknown kind of address; give a local folder or gs://BUCKET/FOLDER"),
        ("gs://", "write gs://BUCKET/FOLDER"),
        ("gs:///x", "write gs://BUCKET/FOLDER"),
        ("gs://B C/x", "write gs://BUCKET/FOLDER"),
        ("gs://bucket/../x", "no '..'"),
        ("gs://bucket/x::y", "no '::'"),
    ],
)
def test_what_is_no_address_is_refused_in_one_line(text, reason):
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}: .*{re.escape(reason)}"):
        location(text)


# Configs


def test_a_config_with_addresses_survives_saving(tmp_path):
    roots = ["data.root=gs://music/mtt", "store.root=gs://bucket/store", "run.root=gs://bucket/run"]
    config = load_config(None, roots)
    assert config.store.root == location("gs://bucket/store")
    config.save(tmp_path / "config.yaml")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["run"]["root"] == (
        "gs://bucket/run"
    )
    again = load_config(tmp_path / "config.yaml")
    assert again == config
    again.save(tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_bytes() == (tmp_path / "config.yaml").read_bytes()


def test_an_address_that_cannot_be_is_refused_with_its_key():
    with pytest.raises(ConfigError, match=r"store\.root: s3://x/y: unknown kind of address"):
        load_config(None, ["store.root=s3://x/y"])


# Files


def test_what_is_written_is_read_again(cloud):
    path = location(ROOT) / "x.json"
    write_json(path, {"a": [1, "é"]})
    assert path.read_text(encoding="utf-8") == '{\n  "a": [\n    1,\n    "é"\n  ]\n}\n'
    write_bytes(path, bytes(range(256)) * 10)
    assert path.read_bytes() == bytes(range(256)) * 10
    assert cloud.objects("some/folder") == {"x.json": bytes(range(256)) * 10}


@pytest.mark.parametrize(
    "name", ["a#b", "a?b", "x::y", "100%25", "é", "[z]*", "a:b/c", " x ", "+", "&=", "gs:"]
)
def test_odd_names_are_names(cloud, name):
    path = location(ROOT) / name
    write_text(path, name)
    assert list(cloud.objects()) == [f"some/folder/{name}"]
    assert pickle.loads(pickle.dumps(path)).read_text(encoding="utf-8") == name
    assert path.exists() and path.stat().st_size == len(name.encode())


def test_a_block_that_fails_leaves_the_object_as_it_was(cloud):
    path = location(ROOT) / "x"
    write_text(path, "before")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"before"
    with atomic_write(path) as file:
        file.write(b"all")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"all"


def test_a_large_object_comes_back_as_it_was(cloud, monkeypatch):
    content = bytes(range(256)) * 50_000
    path = location(ROOT) / "large"
    write_bytes(path, content)
    monkeypatch.setattr("tagger.cloud.gcs._WHOLE_BYTES", 1 << 20)
    with path.open("rb") as file:
        file.seek(12_000_001)
        assert file.read(300) == content[12_000_001:12_000_301]
        file.seek(0)
        assert file.read() == content
    assert path.fs.cat_file(path.path, 5, 9) == content[5:9]
    assert path.fs.cat_file(path.path, -3) == content[-3:]
    assert path.fs.cat_file(path.path, len(content), len(content) + 5) == b""


def test_files_are_checked_without_a_local_copy(cloud, tmp_path):
    path = location(ROOT) / "x"
    write_bytes(path, b"content")
    write_bytes(tmp_path / "x", b"content")
    assert sha256_of_file(path) == sha256_of_file(tmp_path / "x")


def test_a_file_opened_for_writing_is_an_object_when_it_is_closed(cloud):
    path = location(ROOT) / "x"
    with path.open("wb") as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    with pytest.raises(ZeroDivisionError), path.open("wb") as file:
        file.write(b"two")
        raise ZeroDivisionError
    assert path.read_bytes() == b"one"
    with pytest.raises(io.UnsupportedOperation):
        path.open("ab")


def test_folders_are_listed(cloud):
    root = location(ROOT)
    for name in ("a", "b/c", "b/d/e"):
        write_text(root / name, name)
    assert sorted(path.name for path in root.iterdir()) == ["a", "b"]
    assert (root / "b").is_dir() and not (root / "b").is_file()
    assert (root / "a").is_file() and not (root / "nothing").exists()
    assert sorted(root.fs.find(root.path)) == [
        f"bucket/some/folder/{name}" for name in ("a", "b/c", "b/d/e")
    ]
    assert root.fs.find(f"{root.path}/nothing") == []
    assert [path.name for path in location("gs://bucket").iterdir()] == ["some"]


def test_local_files_go_and_come_back_and_are_removed(cloud, tmp_path):
    root = location(ROOT)
    fs = root.fs
    (tmp_path / "x").write_bytes(b"local")
    fs.put_file(str(tmp_path / "x"), (root / "x").path)
    fs.get_file((root / "x").path, str(tmp_path / "deeper" / "y"))
    assert (tmp_path / "deeper" / "y").read_bytes() == b"local"
    (root / "x").unlink()
    (root / "x").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (root / "x").unlink()
    fs.rm(root.path, recursive=True)
    assert cloud.objects() == {}


def test_the_time_of_an_object_changes_with_its_content_alone(cloud):
    path = location(ROOT) / "x"
    write_text(path, "one")
    first = path.stat()
    assert (first.st_size, path.stat().st_mtime_ns) == (3, first.st_mtime_ns)
    write_text(path, "two")
    assert path.stat().st_mtime_ns > first.st_mtime_ns
    assert path.fs.info(path.path)["generation"] == path.stat().st_mtime_ns


# Errors


def test_what_is_missing_is_a_file_not_found_error(cloud):
    for path in (location(ROOT) / "x", location("gs://nowhere/x")):
        with pytest.raises(FileNotFoundError) as caught:
            path.read_bytes()
        assert caught.value.filename == str(path)
        assert caught.value.strerror
        with pytest.raises(FileNotFoundError):
            path.stat()


@pytest.mark.parametrize(("code", "reason"), [(401, "credentials"), (403, "403")])
def test_what_is_forbidden_is_a_permission_error(cloud, code, reason):
    path = location(ROOT) / "x"
    for act in (path.read_bytes, path.exists, lambda: write_text(path, "x"), path.unlink):
        cloud.trouble = [(code, False)] * 4
        with pytest.raises(PermissionError, match=reason):
            act()
        cloud.trouble = []


def test_a_server_that_cannot_be_reached_is_an_oserror(monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr("tagger.cloud.gcs_client._RETRY_SECONDS", 0.5)
    with pytest.raises(OSError, match=r"127\.0\.0\.1") as caught:
        (location(ROOT) / "x").read_bytes()
    assert "\n" not in str(caught.value)


# Trouble


def test_a_server_in_trouble_is_asked_again(cloud):
    path = location(ROOT) / "x"
    cloud.trouble = [(503, False)]
    write_text(path, "content")
    cloud.trouble = [(503, False)]
    assert path.read_bytes() == b"content"
    cloud.trouble = [(503, False)]
    assert path.exists()
    assert cloud.trouble == []


def test_trouble_that_does_not_end_is_an_error(cloud, monkeypatch):
    monkeypatch.setattr("tagger.cloud.gcs_client._RETRY_SECONDS", 0.5)
    cloud.trouble = [(503, False)] * 20
    with pytest.raises(OSError, match="503"):
        (location(ROOT) / "x").read_bytes()


def test_bytes_damaged_on_their_way_are_fetched_again(cloud, tmp_path):
    path = location(ROOT) / "x"
    write_text(path, "content")
    cloud.damaged = {"some/folder/x": 1}
    assert path.read_bytes() == b"content"
    cloud.damaged = {"some/folder/x": 1}
    path.fs.get_file(path.path, str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == b"content"
    assert cloud.damaged == {}


def test_bytes_that_always_arrive_damaged_are_refused(cloud, tmp_path):
    path = location(ROOT) / "x"
    write_text(path, "content")
    cloud.damaged = {"some/folder/x": 100}
    with pytest.raises(OSError, match="arrived damaged; try again"):
        path.read_bytes()
    with pytest.raises(OSError, match="arrived damaged; try again"):
        path.fs.get_file(path.path, str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


# Preconditions


def test_an_object_is_made_only_where_there_is_none(cloud):
    path = location(ROOT) / "x"
    path.fs.pipe_file(path.path, b"one", if_generation_match=0)
    with pytest.raises(FileExistsError):
        path.fs.pipe_file(path.path, b"two", if_generation_match=0)
    assert path.read_bytes() == b"one"


def test_an_object_is_replaced_only_as_it_was_read(cloud):
    path = location(ROOT) / "x"
    write_text(path, "one")
    generation = path.fs.info(path.path)["generation"]
    write_text(path, "two")
    with pytest.raises(FileExistsError):
        path.fs.pipe_file(path.path, b"three", if_generation_match=generation)
    path.fs.pipe_file(
        path.path, b"three", if_generation_match=path.fs.info(path.path)["generation"]
    )
    assert path.read_bytes() == b"three"


def test_of_many_writers_of_one_object_one_wins(cloud):
    path = location(ROOT) / "lock"

    def write(number):
        try:
            path.fs.pipe_file(path.path, b"the same", if_generation_match=0)
        except FileExistsError:
            return None
        return number

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(write, range(8)) if number is not None]
    assert len(winners) == 1


def test_a_writer_whose_answer_was_lost_has_won(cloud):
    path = location(ROOT) / "lock"
    cloud.trouble = [(503, True)]
    path.fs.pipe_file(path.path, b"mine", if_generation_match=0)
    assert path.read_bytes() == b"mine"
    assert [method for method, _ in cloud.asked] == ["POST", "POST", "GET", "GET"]


# Processes


def _read_in_worker(path):
    return path.read_bytes()


def test_an_address_can_be_used_in_another_process(cloud):
    path = location(ROOT) / "x"
    write_text(path, "content")
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(_read_in_worker, path).result(timeout=60) == b"content"


def test_fsspec_itself_opens_addresses_by_this_client(cloud):
    import fsspec

    location(ROOT)
    with fsspec.open(f"{ROOT}/x", "wb") as file:
        file.write(b"content")
    assert (location(ROOT) / "x").read_bytes() == b"content"
    assert "gcsfs" not in sys.modules


def test_memory_is_an_address_too():
    path = location("memory://folder") / "x"
    write_text(path, "content")
    assert path.read_bytes() == b"content"
    assert is_remote(path)
