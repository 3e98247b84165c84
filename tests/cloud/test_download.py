"""Promises of downloads, kept against a real server on the loopback interface."""

import hashlib
import http.server
import os
import re
import socket
import threading

import pytest

from tagger.base.errors import ModelError
from tagger.cloud import download
from tagger.cloud.download import RemoteFile, cache_folder, cached_download, fetch_file

# A connection is resumed at the last whole block that arrived.
BLOCK = 1 << 16
CONTENT = bytes(range(256)) * (16 * BLOCK // 256)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WRONG_SHA256 = hashlib.sha256(b"something else").hexdigest()


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `content` at any path; `behaviour` decides how each request is answered."""

    daemon_threads = True

    def __init__(self, behaviour):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.behaviour = behaviour
        self.ranges = []
        # What tells versions of the content apart.
        self.version = {}

    def remote(self, sha256=SHA256, path="file.bin"):
        url = f"http://127.0.0.1:{self.server_port}/{path}"
        return RemoteFile(url, path.rpartition("/")[2], sha256)


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        server.behaviour(self, len(server.ranges))

    def status(self, code, **headers):
        self.send_response(code)
        self.send_header("Content-Length", "0")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def whole(self, *, send=None):
        """Answer 200, and break off after `send` bytes."""
        content = self.server.content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_version()
        self.end_headers()
        self.wfile.write(content[:send])

    def send_version(self):
        for name, value in self.server.version.items():
            self.send_header(name, value)

    def ranged(self, *, send=None):
        """Honour the Range header as RFC 9110 has it."""
        content = self.server.content
        wanted = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if wanted is None or condition not in (None, *self.server.version.values()):
            self.whole(send=send)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        if start >= len(content):
            self.status(416, Content_Range=f"bytes */{len(content)}")
            return
        self.send_response(206)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_version()
        self.end_headers()
        self.wfile.write(content[start:][:send])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The waits between tries, which are noted instead of waited."""
    noted = []
    monkeypatch.setattr(download.time, "sleep", noted.append)
    return noted


@pytest.fixture
def serve():
    servers = []

    def start(behaviour=lambda handler, _: handler.ranged()):
        server = FileServer(behaviour)
        # Polled often, so that shutting down does not wait.
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def files_in(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file())


def leave_partial(remote, content):
    """Put a partial file where an interrupted download of `remote` leaves it."""
    folder = cache_folder() / download.content_hash(remote.url.encode())[:8]
    folder.mkdir(parents=True)
    (folder / f"{remote.name}.part").write_bytes(content)


def test_a_download_with_the_right_checksum_arrives_whole(serve, cache):
    server = serve()
    path = cached_download(server.remote())
    assert path.read_bytes() == CONTENT
    assert files_in(cache) == [path]
    assert path.name == "file.bin"


def test_a_second_call_makes_no_request(serve):
    server = serve()
    first = cached_download(server.remote())
    assert cached_download(server.remote()) == first
    assert server.ranges == [None]


def test_a_wrong_checksum_is_refused_naming_the_address_and_the_place(serve, cache, waits):
    server = serve()
    remote = server.remote(WRONG_SHA256)
    with pytest.raises(ModelError) as caught:
        cached_download(remote, n_tries=3)
    message = str(caught.value)
    assert remote.url in message and SHA256 in message and WRONG_SHA256 in message
    by_hand = re.search(r"put the file at (\S+)$", message)[1]
    assert files_in(cache) == []
    assert server.ranges == [None] * 3
    assert waits == [1.0, 2.0]
    # The place that the message names is the one that is looked at.
    good = RemoteFile(remote.url, remote.name, SHA256)
    (cache / by_hand).write_bytes(CONTENT)
    assert cached_download(good).read_bytes() == CONTENT
    assert len(server.ranges) == 3


def test_a_dropped_connection_is_resumed_where_it_broke(serve):
    half = 8 * BLOCK

    def drop_once(handler, request):
        handler.ranged(send=half if request == 1 else None)

    server = serve(drop_once)
    path = cached_download(server.remote())
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={half}-"]


def test_a_download_without_a_published_length_is_complete_when_the_server_closes(serve):
    def no_length(handler, _):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT)

    assert cached_download(serve(no_length).remote()).read_bytes() == CONTENT


def test_a_connection_that_drops_again_and_again_still_gets_there(serve):
    step = 4 * BLOCK
    server = serve(lambda handler, _: handler.ranged(send=step))
    assert cached_download(server.remote()).read_bytes() == CONTENT
    assert server.ranges == [None, *(f"bytes={step * done}-" for done in (1, 2, 3))]


def test_an_interrupted_process_leaves_what_the_next_one_resumes(serve):
    server = serve()
    leave_partial(server.remote(), CONTENT[:1000])
    assert cached_download(server.remote()).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]


def test_a_server_that_ignores_ranges_is_read_from_the_start(serve):
    def drop_once(handler, request):
        handler.whole(send=BLOCK if request == 1 else None)

    server = serve(drop_once)
    assert cached_download(server.remote()).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={BLOCK}-"]


def test_a_server_that_sends_another_range_than_asked_for_is_not_believed(serve):
    def shifted(handler, request):
        if request == 1:
            handler.whole(send=BLOCK)
        elif request == 2:
            # A part, but from byte 0.
            handler.send_response(206)
            handler.send_header("Content-Length", str(len(CONTENT)))
            handler.send_header("Content-Range", f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")
            handler.end_headers()
            handler.wfile.write(CONTENT)
        else:
            handler.ranged()

    # Without a checksum nothing later would notice.
    assert cached_download(serve(shifted).remote(None)).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again_after_waits_that_double(serve, waits, code):
    def busy_twice(handler, request):
        handler.status(code) if request <= 2 else handler.ranged()

    server = serve(busy_twice)
    assert cached_download(server.remote()).read_bytes() == CONTENT
    assert len(server.ranges) == 3
    assert waits == [1.0, 2.0]


def test_a_server_that_stays_busy_is_given_up(serve, cache):
    server = serve(lambda handler, _: handler.status(503))
    with pytest.raises(ModelError, match=r"failed after 5 tries \(server answers 503\)"):
        cached_download(server.remote())
    assert len(server.ranges) == 5
    assert files_in(cache) == []


@pytest.mark.parametrize("code", [404, 403, 410])
def test_an_answer_that_will_not_change_is_final_at_once(serve, cache, waits, code):
    server = serve(lambda handler, _: handler.status(code))
    remote = server.remote()
    with pytest.raises(ModelError) as caught:
        cached_download(remote)
    assert f"{remote.url}: server answers {code}" in str(caught.value)
    by_hand = re.search(r"put the file at (\S+)$", str(caught.value))[1]
    assert by_hand.startswith(str(cache)) and by_hand.endswith("/file.bin")
    assert len(server.ranges) == 1 and waits == []


def test_a_cached_file_that_was_corrupted_is_downloaded_again(serve, capsys):
    server = serve()
    path = cached_download(server.remote())
    path.write_bytes(CONTENT[:-1] + b"x")
    assert cached_download(server.remote()).read_bytes() == CONTENT
    assert len(server.ranges) == 2
    assert f"{path}: another checksum than published" in capsys.readouterr().err


def test_a_partial_file_longer_than_the_file_is_dropped(serve):
    server = serve()
    leave_partial(server.remote(), CONTENT + b"rest of a longer version")
    assert cached_download(server.remote()).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT) + 24}-", None]


def test_a_partial_file_that_is_complete_already_is_kept(serve):
    server = serve()
    leave_partial(server.remote(), CONTENT)
    assert cached_download(server.remote()).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_a_partial_file_with_wrong_bytes_is_dropped(serve):
    server = serve()
    leave_partial(server.remote(), b"x" * 1000)
    assert cached_download(server.remote()).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-", None]


# Versions of a file

ETAG = {"ETag": '"one"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
WEAK = {**ETAG, "ETag": 'W/"one"'}


def interrupt(server):
    """Leave half of what `server` has now, as a process that was killed does."""
    behaviour, server.behaviour = (
        server.behaviour,
        lambda handler, _: handler.ranged(send=8 * BLOCK),
    )
    with pytest.raises(ModelError):
        cached_download(server.remote(None), n_tries=1)
    server.behaviour = behaviour
    server.ranges.clear()


@pytest.mark.parametrize("version", [ETAG, WEAK, {}], ids=["etag", "time", "nothing"])
def test_a_file_without_checksum_is_resumed_by_the_next_process(serve, cache, version):
    server = serve()
    server.version = version
    interrupt(server)
    path = cached_download(server.remote(None))
    assert path.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={8 * BLOCK}-"]
    assert files_in(cache) == [path]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (ETAG, {**ETAG, "ETag": '"two"'}),
        (WEAK, {"ETag": 'W/"two"', "Last-Modified": "Thu, 22 Oct 2015 07:28:00 GMT"}),
        (ETAG, {}),
    ],
)
def test_a_file_that_has_changed_since_is_not_joined_to_what_is_there(serve, before, now):
    server = serve()
    server.version = before
    interrupt(server)
    server.content, server.version = CONTENT[::-1], now
    assert cached_download(server.remote(None)).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("version", [{"ETag": '"two"'}, {}], ids=["etag", "length"])
def test_nor_is_it_by_a_server_that_ignores_the_condition(serve, version):
    def heedless(handler, _):
        del handler.headers["If-Range"]
        handler.ranged()

    server = serve(heedless)
    server.version = ETAG if version else {}
    interrupt(server)
    server.content, server.version = CONTENT[::-1] + b"longer", version
    assert cached_download(server.remote(None)).read_bytes() == server.content


def test_a_part_of_which_nothing_is_known_is_not_gone_on_with(serve):
    server = serve()
    leave_partial(server.remote(None), b"x" * 1000)
    assert cached_download(server.remote(None)).read_bytes() == CONTENT
    assert server.ranges == [None]


def test_a_part_from_another_address_is_not_gone_on_with(serve, tmp_path):
    old, new = serve(), serve()
    old.behaviour = lambda handler, _: handler.ranged(send=8 * BLOCK)
    with pytest.raises(ModelError):
        download._download(old.remote(None), tmp_path / "file.bin", n_tries=1)
    new.content = CONTENT[::-1]
    assert fetch_file(new.remote().url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT[::-1]
    assert new.ranges == [None]


@pytest.mark.parametrize("code", [404, 410])
def test_a_file_that_is_not_there_is_no_error(serve, tmp_path, code):
    server = serve(lambda handler, _: handler.status(code))
    assert not fetch_file(server.remote().url, tmp_path / "file.bin")
    assert list(tmp_path.glob("file*")) == []


@pytest.mark.parametrize("code", [401, 403])
def test_a_file_that_may_not_be_read_is_an_error(serve, tmp_path, code):
    server = serve(lambda handler, _: handler.status(code))
    with pytest.raises(ModelError, match=f"server answers {code} .*; check the address and your"):
        fetch_file(server.remote().url, tmp_path / "file.bin")


def test_the_checksum_is_shown_where_none_is_published(serve, capsys):
    path = cached_download(serve().remote(None))
    assert path.read_bytes() == CONTENT
    captured = capsys.readouterr()
    assert f"no checksum is published; its sha256 is {SHA256}" in captured.err
    assert captured.out == ""


def test_an_unreachable_server_is_an_error_that_names_the_address(cache):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file.bin"
        with pytest.raises(ModelError, match=re.escape(url)):
            cached_download(RemoteFile(url, "file.bin", SHA256), n_tries=2)
    assert files_in(cache) == []


def test_two_addresses_with_the_same_file_name_do_not_collide(serve):
    old, new = serve(), serve()
    new.content = CONTENT[::-1]
    first = cached_download(old.remote())
    second = cached_download(new.remote(hashlib.sha256(new.content).hexdigest()))
    assert first.name == second.name and first != second
    assert first.read_bytes() == CONTENT and second.read_bytes() == CONTENT[::-1]


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("TAGGER_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "tagger"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "tagger"


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(tmp_path, monkeypatch, serve):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=rf"{tmp_path / 'file'}.*TAGGER_CACHE"):
        cached_download(serve().remote())


def test_files_of_the_cache_can_be_read_by_others(serve):
    previous = os.umask(0o022)
    try:
        path = cached_download(serve().remote())
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o644
