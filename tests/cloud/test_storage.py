"""Promises of bundles at gs:// addresses, kept against a server that speaks the JSON API.

Google's own client talks to it; nothing of that is replaced.
"""

import base64
import hashlib
import http.server
import json
import re
import shutil
import threading
import urllib.parse

import pytest

pytest.importorskip("google_crc32c")
pytest.importorskip("fsspec")
pytest.importorskip("google.cloud.storage")
pytest.importorskip("upath")

import google_crc32c
from small_bundle import files_of, make_bundle, rewrite

from tagger.base.errors import ModelError
from tagger.bundle.fetch import fetch_bundle
from tagger.bundle.find import find_bundle
from tagger.bundle.read import DESCRIPTION, Bundle
from tagger.tagging.tagger import Tagger

URI = "gs://bucket/models/small"


class Storage(http.server.ThreadingHTTPServer):
    """Buckets in memory: name of bucket -> name of object -> content."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.buckets = {"bucket": {}}
        self.asked = []
        # Status codes to answer with before anything else.
        self.trouble = []
        # Objects whose content is damaged on its way.
        self.damaged = set()

    def put(self, root, prefix="models/small"):
        objects = {f"{prefix}/{name}": content for name, content in files_of(root).items()}
        self.buckets["bucket"] = objects

    def names(self):
        """Objects that were asked for since the last call, without their folder."""
        asked, self.asked = self.asked, []
        return [name.rpartition("/")[2] for name in asked]


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, code, content, **headers):
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, code, message):
        error = {"error": {"code": code, "message": message}}
        self.answer(code, json.dumps(error).encode(), Content_Type="application/json")

    def do_GET(self):
        server = self.server
        path, _, query = self.path.partition("?")
        match = re.fullmatch(r"/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)", path)
        bucket, name = (urllib.parse.unquote(part) for part in match.groups())
        assert urllib.parse.parse_qs(query)["alt"] == ["media"]
        server.asked.append(name)
        if server.trouble:
            self.refuse(server.trouble.pop(0), "trouble")
        elif bucket not in server.buckets:
            self.refuse(404, "The specified bucket does not exist.")
        elif name not in server.buckets[bucket]:
            self.refuse(404, f"No such object: {bucket}/{name}")
        else:
            content = server.buckets[bucket][name]
            checksums = {
                "crc32c": google_crc32c.value(content).to_bytes(4, "big"),
                "md5": hashlib.md5(content).digest(),
            }
            hashes = [f"{kind}={base64.b64encode(x).decode()}" for kind, x in checksums.items()]
            if name in server.damaged:
                content = bytes([content[0] ^ 1]) + content[1:]
            self.answer(200, content, X_Goog_Hash=",".join(hashes))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two bundles."""
    folder = tmp_path_factory.mktemp("made")
    for seed, name in enumerate(["one", "two"]):
        make_bundle(folder / name, seed=seed)
    return folder


@pytest.fixture
def storage(made, tmp_path, monkeypatch):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Storage()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    server.put(made / "one")
    yield server
    server.shutdown()
    server.server_close()


def cached(tmp_path):
    """Bundles in the cache, and nothing else."""
    folder = tmp_path / "cache" / "bundles"
    return sorted(folder.iterdir()) if folder.exists() else []


def test_a_bundle_is_downloaded_whole(made, storage):
    bundle = fetch_bundle(URI)
    assert files_of(bundle.root) == files_of(made / "one")
    assert sorted(storage.names()) == sorted(files_of(made / "one"))


def test_a_model_at_an_address_can_be_used(made, storage):
    assert find_bundle(URI).version == Bundle(made / "one").version
    assert Tagger.load(URI).tags == ("tag 0", "tag 1", "tag 2")


def test_the_bundle_of_a_run_at_an_address_is_found(made, storage):
    storage.put(made / "one", prefix="runs/one/bundle")
    assert fetch_bundle("gs://bucket/runs/one").version == Bundle(made / "one").version


def test_a_bundle_at_the_root_of_a_bucket_is_found(made, storage):
    storage.put(made / "one", prefix="")
    storage.buckets["bucket"] = {
        name.removeprefix("/"): content for name, content in storage.buckets["bucket"].items()
    }
    assert fetch_bundle("gs://bucket").version == Bundle(made / "one").version


def test_the_second_time_only_the_description_is_fetched(storage):
    first = fetch_bundle(URI)
    storage.names()
    assert fetch_bundle(URI).root == first.root
    assert storage.names() == ["bundle.json"]


def test_a_bundle_that_has_changed_is_fetched_anew(made, storage, tmp_path):
    first = fetch_bundle(URI)
    storage.put(made / "two")
    second = fetch_bundle(f"{URI}/")
    assert second.version == Bundle(made / "two").version != first.version
    assert fetch_bundle(URI).version == second.version
    assert files_of(fetch_bundle(URI).root) == files_of(made / "two")


def test_two_addresses_do_not_share_a_copy(made, storage):
    one = fetch_bundle(URI)
    storage.put(made / "two", prefix="models/other")
    other = fetch_bundle("gs://bucket/models/other")
    assert one.version != other.version
    assert one.root != other.root


def test_a_copy_that_was_damaged_in_the_cache_is_fetched_again(made, storage):
    root = fetch_bundle(URI).root
    (root / "model.tflite").write_bytes(b"damaged")
    fetch_bundle(URI).verify()
    assert files_of(root) == files_of(made / "one")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [("gs://nowhere/model", "bucket does not exist"), ("gs://bucket/nothing", "No such object")],
)
def test_what_is_not_there_gives_one_line(storage, tmp_path, uri, reason):
    with pytest.raises(ModelError) as caught:
        fetch_bundle(uri)
    message = str(caught.value)
    assert message.startswith(f"{uri}: no bundle can be read there (")
    assert reason in message
    assert message.endswith("your rights (gcloud auth application-default login)")
    assert "\n" not in message
    assert cached(tmp_path) == []


def test_a_file_that_is_missing_keeps_the_earlier_version(made, storage, tmp_path):
    first = fetch_bundle(URI)
    storage.put(made / "two")
    del storage.buckets["bucket"]["models/small/weights.h5"]
    with pytest.raises(ModelError, match="No such object"):
        fetch_bundle(URI)
    assert cached(tmp_path) == [first.root]
    assert files_of(first.root) == files_of(made / "one")


def test_a_server_in_trouble_is_asked_again(made, storage):
    storage.trouble = [503]
    assert fetch_bundle(URI).version == Bundle(made / "one").version
    assert storage.names()[:2] == ["bundle.json", "bundle.json"]


def test_an_address_without_rights_gives_one_line(storage):
    storage.trouble = [403]
    with pytest.raises(ModelError, match=r"no bundle can be read there \(403 .*check the address"):
        fetch_bundle(URI)


def test_bytes_damaged_on_their_way_keep_the_earlier_version(made, storage, tmp_path):
    first = fetch_bundle(URI)
    storage.put(made / "two")
    storage.damaged = {"models/small/weights.h5"}
    with pytest.raises(ModelError, match=f"{URI}: a file arrived damaged; try again"):
        fetch_bundle(URI)
    assert cached(tmp_path) == [first.root]
    assert files_of(first.root) == files_of(made / "one")


def test_a_file_damaged_at_its_source_is_refused_by_name(made, storage, tmp_path):
    first = fetch_bundle(URI)
    storage.put(made / "two")
    storage.buckets["bucket"]["models/small/model.tflite"] = b"damaged"
    with pytest.raises(ModelError, match=rf"^{URI}/model\.tflite: damaged or changed"):
        fetch_bundle(URI)
    assert cached(tmp_path) == [first.root]
    assert files_of(first.root) == files_of(made / "one")


def test_a_description_that_names_files_elsewhere_is_refused(made, storage, tmp_path):
    root = shutil.copytree(made / "two", tmp_path / "evil")
    rewrite(root, lambda content: content["files"].update({"../../evil": "0" * 64}))
    storage.put(root)
    with pytest.raises(ModelError, match=rf"^{URI}/bundle\.json: damaged .*evil"):
        fetch_bundle(URI)
    assert storage.names() == ["bundle.json"]
    assert cached(tmp_path) == []


def test_another_schema_version_is_refused_at_once(made, storage, tmp_path):
    root = shutil.copytree(made / "two", tmp_path / "later")
    rewrite(root, lambda content: content.update(schema_version=2))
    storage.put(root)
    with pytest.raises(ModelError, match=f"^{URI}: bundle of schema version 2"):
        fetch_bundle(URI)
    assert storage.names() == ["bundle.json"]


def test_a_description_whose_files_are_folders_of_others_is_refused(made, storage, tmp_path):
    root = shutil.copytree(made / "two", tmp_path / "odd")
    rewrite(root, lambda content: content["files"].update({"weights.h5/more": "0" * 64}))
    storage.put(root)
    storage.buckets["bucket"]["models/small/weights.h5/more"] = b""
    with pytest.raises(ModelError):
        fetch_bundle(URI)
    assert cached(tmp_path) == []


@pytest.mark.parametrize("uri", ["gs://", "gs:///x", "gs://bucket/../x", "gs://-b/x", "gs://B C/x"])
def test_an_address_that_cannot_be_one_is_refused(storage, uri):
    with pytest.raises(ModelError, match="not a URI of a bundle; write gs://BUCKET/FOLDER"):
        fetch_bundle(uri)
    assert storage.names() == []


def test_a_cache_that_cannot_be_written_is_named(storage, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"file/bundles/\w+: cannot be written .* TAGGER_CACHE"):
        fetch_bundle(URI)


def test_the_description_is_that_of_the_source(made, storage):
    root = fetch_bundle(URI).root
    assert (root / DESCRIPTION).read_bytes() == (made / "one" / DESCRIPTION).read_bytes()
