"""Promises of what goes to a bucket and comes from it: whole or not at all, whatever happens."""

import hashlib
import os
import sys

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("google.cloud.storage")
pytest.importorskip("gcp_storage_emulator")
pytest.importorskip("upath")

from campaigns import quick_some
from cloud_server import running
from small_bundle import files_of

from tagger.base.errors import ModelError
from tagger.base.files import atomic_write
from tagger.cloud import download, transfers
from tagger.cloud import gcs as storage
from tagger.cloud.download import fetch_file
from tagger.cloud.locations import location
from tagger.cloud.mirror import Mirror

NAME = "bucket/folder/file.bin"
ADDRESS = f"gs://{NAME}"
OBJECT = NAME.removeprefix("bucket/")
SMALL = os.urandom(200_000)
# Sent in three requests.
LARGE = os.urandom(9 << 20)
CHUNK = 4 << 20


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "_UPLOAD_CHUNK_BYTES", CHUNK)
    # Those who give up do so soon.
    monkeypatch.setattr("tagger.cloud.gcs_client._RETRY_SECONDS", 4)
    with running(monkeypatch) as server:
        yield server


@pytest.fixture
def fs(cloud):
    return location("gs://bucket/folder").fs


def requests(cloud, method):
    asked, cloud.asked = cloud.asked, []
    return [name for verb, name in asked if verb == method]


# There and back


@pytest.mark.parametrize("content", [b"", b"x", SMALL, LARGE], ids=["empty", "one", "some", "many"])
def test_what_was_sent_comes_back(cloud, fs, tmp_path, content):
    (tmp_path / "sent").write_bytes(content)
    fs.put_file(str(tmp_path / "sent"), NAME)
    assert cloud.objects()[OBJECT] == content
    fs.get_file(NAME, str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content
    assert fs.cat_file(NAME) == content
    assert fetch_file(ADDRESS, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == content


def test_a_large_file_is_sent_in_several_requests(cloud, fs):
    fs.pipe_file(NAME, LARGE)
    assert requests(cloud, "PUT") == [OBJECT] * 3
    assert cloud.objects()[OBJECT] == LARGE


# Troubles of the server


@pytest.mark.parametrize("code", quick_some([408, 429, 500, 502, 503, 504], [429, 503]))
@pytest.mark.parametrize("is_done", [False, True], ids=["refused", "answer lost"])
def test_a_server_in_trouble_is_asked_again(cloud, fs, code, is_done):
    cloud.trouble = [(code, is_done)]
    fs.pipe_file(NAME, SMALL)
    cloud.trouble = [(code, is_done)]
    assert fs.cat_file(NAME) == SMALL
    cloud.trouble = [(code, is_done)]
    assert fs.find("bucket/folder") == [NAME]
    cloud.trouble = [(code, False)]
    fs.rm_file(NAME)
    assert cloud.objects() == {}


@pytest.mark.parametrize("code", quick_some([429, 500, 503], [503]))
def test_a_large_file_goes_on_where_a_server_in_trouble_had_it(cloud, fs, code):
    taken = []

    def refused(method, name):
        # Before the second of three pieces.
        taken.append(method)
        if taken.count("PUT") == 1:
            cloud.trouble = [(code, False), (code, False)]
        return False

    cloud.refused = refused
    fs.pipe_file(NAME, LARGE)
    cloud.refused = lambda method, name: False
    assert cloud.objects()[OBJECT] == LARGE
    assert len(requests(cloud, "PUT")) == 3 + 2


@pytest.mark.parametrize("code", quick_some([429, 500, 503], [503]))
def test_a_server_that_stays_in_trouble_is_one_clear_error(cloud, fs, code, tmp_path):
    cloud.put(OBJECT, SMALL)
    cloud.trouble = [(code, False)] * 1000
    for work in (
        lambda: fs.pipe_file(NAME, b"new"),
        lambda: fs.get_file(NAME, str(tmp_path / "back")),
    ):
        with pytest.raises(OSError, match=str(code)) as caught:
            work()
        assert caught.value.filename == ADDRESS
        assert "\n" not in caught.value.strerror and len(caught.value.strerror) < 250
    assert not (tmp_path / "back").exists()
    cloud.trouble = []
    assert cloud.objects()[OBJECT] == SMALL


# Broken connections


@pytest.mark.parametrize(("content", "method"), [(SMALL, "POST"), (LARGE, "POST"), (LARGE, "PUT")])
def test_a_connection_that_breaks_in_an_upload_harms_nothing(cloud, fs, content, method):
    cloud.breaking = [(method, OBJECT)] * 2
    fs.pipe_file(NAME, content)
    assert cloud.breaking == []
    assert cloud.objects()[OBJECT] == content


def test_a_large_upload_goes_on_with_the_piece_that_broke_off(cloud, fs):
    cloud.breaking = [("PUT", OBJECT)]
    fs.pipe_file(NAME, LARGE)
    assert requests(cloud, "PUT") == [OBJECT] * 4


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["some", "many"])
def test_a_connection_that_breaks_in_a_download_harms_nothing(cloud, fs, tmp_path, content):
    cloud.put(OBJECT, content)
    cloud.breaking = [("GET", OBJECT)] * 2
    fs.get_file(NAME, str(tmp_path / "back"))
    assert cloud.breaking == []
    assert (tmp_path / "back").read_bytes() == content
    cloud.breaking = [("GET", OBJECT)]
    assert fs.cat_file(NAME) == content
    cloud.breaking = [("GET", OBJECT)]
    assert fetch_file(ADDRESS, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == content


def test_a_connection_that_breaks_every_time_leaves_no_file(cloud, fs, tmp_path):
    cloud.put(OBJECT, SMALL)
    cloud.breaking = [("GET", OBJECT)] * 1000
    with pytest.raises(OSError) as caught:
        fs.get_file(NAME, str(tmp_path / "new" / "back"))
    assert caught.value.filename == ADDRESS
    assert list((tmp_path / "new").iterdir()) == []


def test_a_server_that_is_gone_is_one_clear_error(fs, monkeypatch, tmp_path):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(OSError) as caught:
        fs.get_file(NAME, str(tmp_path / "back"))
    assert caught.value.filename == ADDRESS
    assert "\n" not in caught.value.strerror
    assert list(tmp_path.iterdir()) == []


def test_a_download_goes_on_where_a_killed_one_broke_off(cloud, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_OBJECT_BLOCK_BYTES", 1 << 20)
    cloud.put(OBJECT, LARGE)
    (tmp_path / "fetched.part").write_bytes(LARGE[: 5 << 20])
    cloud.asked = []
    assert fetch_file(ADDRESS, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == LARGE
    # It is described, and then four of its nine blocks are read.
    assert len(requests(cloud, "GET")) == 1 + 4


# Bytes that change on their way


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["some", "many"])
def test_an_upload_that_was_damaged_on_its_way_is_repeated(cloud, fs, content):
    cloud.damaged_uploads = [OBJECT]
    fs.pipe_file(NAME, content)
    assert cloud.damaged_uploads == []
    assert cloud.objects()[OBJECT] == content


def test_an_upload_that_is_damaged_every_time_is_an_error_and_keeps_what_is_there(cloud, fs):
    cloud.put(OBJECT, b"before")
    cloud.damaged_uploads = [OBJECT] * 100
    with pytest.raises(OSError, match="arrived damaged; try again") as caught:
        fs.pipe_file(NAME, SMALL)
    assert caught.value.filename == ADDRESS
    assert cloud.objects()[OBJECT] == b"before"


def test_a_download_that_was_damaged_on_its_way_is_repeated(cloud, fs, tmp_path):
    cloud.put(OBJECT, LARGE)
    cloud.damaged = {OBJECT: 1}
    fs.get_file(NAME, str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == LARGE
    cloud.damaged = {OBJECT: 1}
    assert fs.cat_file(NAME) == LARGE
    # Read in blocks, it is checked at the end.
    cloud.damaged = {OBJECT: 1}
    assert fetch_file(ADDRESS, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == LARGE


def test_a_download_that_is_damaged_every_time_is_an_error_and_leaves_no_file(cloud, fs, tmp_path):
    cloud.put(OBJECT, SMALL)
    cloud.damaged = {OBJECT: 1000}
    with pytest.raises(OSError, match="arrived damaged; try again"):
        fs.get_file(NAME, str(tmp_path / "new" / "back"))
    with pytest.raises(ModelError, match=rf"^{ADDRESS}: arrives damaged \(crc32c"):
        fetch_file(ADDRESS, tmp_path / "new" / "fetched")
    assert list((tmp_path / "new").iterdir()) == []


# Preconditions


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["some", "many"])
def test_another_generation_is_not_replaced(cloud, fs, content):
    first = fs.pipe_file(NAME, b"first", if_generation_match=0)
    cloud.put(OBJECT, b"of another")
    for generation in (0, first):
        with pytest.raises(FileExistsError, match="another one has written it") as caught:
            fs.pipe_file(NAME, content, if_generation_match=generation)
        assert caught.value.filename == ADDRESS
    with pytest.raises(FileExistsError):
        fs.rm_file(NAME, if_generation_match=first)
    assert cloud.objects()[OBJECT] == b"of another"


def test_what_another_one_writes_during_a_large_upload_is_not_replaced(cloud, fs):
    mine = fs.pipe_file(NAME, b"mine")

    def refused(method, name):
        if method == "PUT":
            cloud.put(OBJECT, b"of another")
        return False

    cloud.refused = refused
    with pytest.raises(FileExistsError):
        fs.pipe_file(NAME, LARGE, if_generation_match=mine)
    assert cloud.objects()[OBJECT] == b"of another"


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["some", "many"])
def test_the_generation_that_a_write_gives_is_that_of_the_object(cloud, fs, content):
    lost = []

    def lose(method, name):
        # The last request of each upload, once.
        lost.append(method)
        return lost.count("POST" if content is SMALL else "PUT") == (1 if content is SMALL else 3)

    cloud.lost = lose
    generation = fs.pipe_file(NAME, content, if_generation_match=0)
    cloud.lost = lambda method, name: False
    assert generation == fs.info(NAME)["generation"]
    assert fs.pipe_file(NAME, b"next", if_generation_match=generation) != generation


# Many small ones


@pytest.mark.parametrize("n_objects", quick_some([150, 1100, 10_000], [150]))
def test_thousands_of_small_files_go_and_come_back_the_same(cloud, fs, tmp_path, n_objects):
    here, there = tmp_path / "here" / "run", tmp_path / "there" / "run"
    for number in range(n_objects - 1):
        path = here / f"{number % 97:02d}" / f"{number:05d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hashlib.blake2b(str(number).encode()).digest()[: number % 65])
    (here / "run.json").write_text("run")
    address = location("gs://bucket/runs/many")
    # In a bucket a listing comes in pages; this is no multiple of one.
    cloud.put("runs/manyother", b"no file of this run")
    Mirror(address, here).push()
    assert len(fs.find("bucket/runs/many")) == n_objects
    Mirror(address, there).pull()
    assert files_of(there) == files_of(here)
    # Nothing is sent or fetched twice.
    cloud.asked = []
    Mirror(address, here).push()
    Mirror(address, there).pull()
    assert [name for method, name in cloud.asked if method != "GET" or name] == []


def test_files_that_are_written_side_by_side_have_ordinary_rights(tmp_path):
    interval, umask = sys.getswitchinterval(), os.umask(0o022)
    sys.setswitchinterval(1e-6)

    def write(number):
        for copy in range(50):
            with atomic_write(tmp_path / f"{number} {copy}", durable=False) as file:
                file.write(b"x")

    try:
        transfers.in_threads(write, range(16))
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}
        assert os.umask(0o022) == 0o022
    finally:
        sys.setswitchinterval(interval)
        os.umask(umask)
