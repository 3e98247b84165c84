"""Promises about secrets: none of an address, a header or a token is shown, logged or written."""

import base64
import http.server
import json
import threading
import time

import pytest

from tagger.base.addresses import without_secrets
from tagger.base.errors import ConfigError, ModelError
from tagger.base.log import notice, say_error, set_log_format, warn
from tagger.cloud import download
from tagger.cloud.download import RemoteFile, cached_download, fetch_file
from tagger.cloud.locations import location

SECRET = "hush-hush-0123456789"
SIGNED = f"?X-Goog-Credential=me&X-Goog-Signature={SECRET}"
TOKEN = f"ya29.a0{SECRET}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://me:{SECRET}@host/a/b", "https://***@host/a/b"),
        (f"https://{SECRET}@host:8080/a", "https://***@host:8080/a"),
        # As a Path has it.
        (f"https:/me:{SECRET}@host/a: no such", "https:/***@host/a: no such"),
        # Not quoted, as it should be.
        (f"https://me:{SECRET}/{SECRET}@host/a", "https://***@host/a"),
        (f"https:/me:{SECRET}/{SECRET}@host/a", "https:/***@host/a"),
        (f"https://me:{SECRET}?{SECRET}#{SECRET}@host", "https://***@host"),
        (
            f"at https://host:80/a, https://me:{SECRET}/@host",
            "at https://host:80/a, https://***@host",
        ),
        (f"see...https://me:{SECRET}@host/x@y", "see...https://***@host/x@y"),
        (f"https://host/a{SIGNED}: gone", "https://host/a?***: gone"),
        (f"'https://host/a{SIGNED}' is gone", "'https://host/a?***' is gone"),
        (
            f"with url: /upload/b/o?upload_id={SECRET} (x)",
            "with url: /upload/b/o?upload_id=*** (x)",
        ),
        (f"{{'Authorization': 'Bearer {SECRET}'}}", "{'Authorization': '***'}"),
        (f"authorization: Basic {SECRET}, x", "authorization: ***, x"),
        (f"got Bearer {SECRET}", "got Bearer ***"),
        (f"{TOKEN} has expired", "*** has expired"),
        (
            f"http://me:{SECRET}@one and http://you:{SECRET}@two",
            "http://***@one and http://***@two",
        ),
    ],
)
def test_secrets_are_left_out(text, shown):
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "runs/what?=1/song.wav: too short",
        "gs://bucket/me@home.mp3?take=2: damaged",
        "music/basic techno.mp3",
        "the bearer of 1 message",
        "https://host/a: server answers 404",
        "https://host:8080/songs/me@home.mp3: gone",
        "C:/me@home/a.wav",
    ],
)
def test_names_of_files_and_other_text_stay_as_they_are(text):
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "ab.",
        "a+b-",
        "https:/",
        "https://",
        "https://a:",
        "gs:/a:",
        "://a:b@",
        "https:/?,",
        "@",
        "?a=",
    ]
    + ["&key=", "?x-goog-", "bearer ", "authorization: ", "ya29."],
)
def test_no_text_takes_long(piece):
    started = time.process_time()
    for end in ("", " @", "?"):
        without_secrets(piece * (150_000 // len(piece)) + end)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("format_", ["text", "json"])
def test_whatever_is_said_holds_no_secret(capsys, monkeypatch, format_):
    monkeypatch.setenv("TAGGER_LOG_FORMAT", "text")
    set_log_format(format_)
    message = f"https://me:{SECRET}@host/a{SIGNED}"
    notice(message, event="x", address=message)
    warn(message)
    say_error(message)
    captured = capsys.readouterr().err
    assert captured.count("***@host") >= 3
    assert SECRET not in captured


@pytest.mark.parametrize("scheme", ["https", "gs"])
def test_an_address_that_cannot_be_is_refused_without_its_password(scheme):
    with pytest.raises(ConfigError) as caught:
        location(f"{scheme}://me:{SECRET}@host/a")
    assert SECRET not in str(caught.value)
    assert f"{scheme}://***@host/a" in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "ADDRESS"],
        ["compare", "ADDRESS", "ADDRESS"],
        ["export", "ADDRESS"],
        ["tag", "--model", "ADDRESS", "a.wav"],
        ["models", "pull", "ADDRESS"],
        ["preprocess", "--config", "ADDRESS"],
        ["preprocess", "--set", "data.root=ADDRESS"],
        ["preprocess", "--set", "store.root=ADDRESS"],
        ["train", "--set", "run.root=ADDRESS"],
    ],
)
@pytest.mark.parametrize("scheme", ["https", "gs"])
def test_no_verb_repeats_a_password(command, tmp_path, monkeypatch, arguments, scheme):
    monkeypatch.chdir(tmp_path)
    address = f"{scheme}://me:{SECRET}@host/a"
    code, out, err = command(*(item.replace("ADDRESS", address) for item in arguments))
    assert code != 0
    assert SECRET not in out + err


# Downloads

# Instead of a status: the connection breaks in the middle.
BREAK = -1


class Server(http.server.ThreadingHTTPServer):
    """Answers those who know the password, in the way of `codes`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.codes = []
        self.content = bytes(100_000)
        self.n_tokens = self.n_tunnels = 0

    @property
    def host(self):
        return f"127.0.0.1:{self.server_port}"

    @property
    def address(self):
        return f"http://me:{SECRET}@{self.host}/file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        expected = base64.b64encode(f"me:{SECRET}".encode()).decode()
        code = server.codes.pop(0) if server.codes else 200
        if self.headers["Authorization"] != f"Basic {expected}":
            code = 401
        content = server.content if code in (200, BREAK) else f"no {SECRET}".encode()
        self.send_response(200 if code == BREAK else code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if code == BREAK else content)

    def do_POST(self):
        # Whoever asks for a token gets it.
        content = json.dumps({"access_token": TOKEN, "expires_in": 3600}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.server.n_tokens += 1

    def do_CONNECT(self):
        self.send_response(403, "not through here")
        self.end_headers()
        self.server.n_tunnels += 1


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def written(folder):
    """Names and contents of all files, as one text."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return "".join(f"{path} {path.read_bytes()!r}" for path in paths)


@pytest.mark.parametrize("codes", [[], [503], [503] * 5, [404], [403], [BREAK] * 5], ids=str)
@pytest.mark.parametrize("signed", ["", SIGNED], ids=["password", "signed"])
def test_a_download_tells_nobody_the_password(server, tmp_path, capsys, codes, signed):
    server.codes = list(codes)
    remote = RemoteFile(f"{server.address}{signed}", "file.bin", None)
    message = ""
    try:
        assert cached_download(remote).read_bytes() == server.content
    except ModelError as error:
        message = str(error)
        assert f"http://***@{server.host}/file.bin" in message
    assert bool(message) == (len(codes) > 1 or codes in ([404], [403]))
    said = capsys.readouterr()
    assert SECRET not in message + said.out + said.err + written(tmp_path)


def test_what_is_left_of_an_interrupted_download_holds_no_password(server, tmp_path):
    server.codes = [BREAK]
    path = tmp_path / "file.bin"
    with pytest.raises(ModelError):
        download._download(RemoteFile(server.address, "file.bin", "0" * 64), path, n_tries=1)
    server.codes = [BREAK] * 5
    with pytest.raises(ModelError):
        fetch_file(server.address + SIGNED, path, sha256="1" * 64)
    assert SECRET not in written(tmp_path)


def test_fetching_magnatagatune_tells_nobody_the_password(server, tmp_path, command):
    for codes in ([503] * 5, [403], [404], []):
        server.codes = list(codes)
        folder = tmp_path / "mtt"
        source = f"http://me:{SECRET}@{server.host}/mtt"
        checksums = [] if codes else ["--checksums", f"{source}/sums{SIGNED}"]
        code, out, err = command("fetch-magnatagatune", folder, "--from", source, *checksums)
        assert code != 0
        assert f"http://***@{server.host}" in err
        assert SECRET not in out + err + written(tmp_path)


# Buckets

CLOUD = ("fsspec", "google.cloud.storage", "gcp_storage_emulator", "upath")


@pytest.fixture
def cloud(monkeypatch):
    for package in CLOUD:
        pytest.importorskip(package)
    from cloud_server import running

    from tagger.cloud import gcs as storage

    monkeypatch.setattr(storage, "_UPLOAD_CHUNK_BYTES", 1 << 20)
    monkeypatch.setattr("tagger.cloud.gcs_client._RETRY_SECONDS", 1)
    with running(monkeypatch) as emulator:
        yield emulator


@pytest.mark.parametrize("trouble", ["breaks", "500", "400"])
def test_the_address_of_an_upload_in_pieces_is_not_shown(cloud, trouble):
    def refused(method, name):
        # After it was begun.
        if method == "POST" and trouble != "breaks":
            cloud.trouble = [(int(trouble), False)] * 1000
        return False

    cloud.refused = refused
    if trouble == "breaks":
        cloud.breaking = [("PUT", "file.bin")] * 1000
    with pytest.raises(OSError) as caught:
        location("gs://bucket/x").fs.pipe_file("bucket/file.bin", bytes(9 << 20))
    # It has an id, which gives the right to write.
    (upload,) = cloud.uploads
    assert upload.rpartition(" ")[2] not in str(caught.value)
    assert "upload_id=bucket" not in str(caught.value)
    assert str(caught.value.filename) == "gs://bucket/file.bin"


def test_neither_a_token_nor_a_key_nor_the_password_of_a_proxy_is_shown(
    server, monkeypatch, tmp_path, capfd, caplog
):
    for package in CLOUD:
        pytest.importorskip(package)
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives import serialization

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    content = {
        "type": "service_account",
        "project_id": "one",
        "client_email": "me@one.example",
        "private_key_id": SECRET,
        "private_key": key.decode(),
        "token_uri": f"http://{server.host}/token",
    }
    (tmp_path / "credentials.json").write_text(json.dumps(content))
    monkeypatch.setattr("tagger.cloud.gcs_client._RETRY_SECONDS", 1)
    monkeypatch.setattr("tagger.cloud.gcs_client._clients", {})
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@{server.host}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(OSError) as caught:
        location("gs://bucket/x").fs.info("bucket/x")
    said = capfd.readouterr()
    text = f"{caught.value}{said.out}{said.err}{caplog.text}"
    # They were there to be shown.
    assert server.n_tokens and server.n_tunnels
    assert SECRET not in text and TOKEN not in text
    assert key.decode().splitlines()[1] not in text
