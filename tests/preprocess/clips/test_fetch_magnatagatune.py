"""Promises of fetching MagnaTagATune, kept against real servers on the loopback interface."""

import contextlib
import hashlib
import http.server
import io
import re
import resource
import shutil
import stat
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest

from preprocess.clips import fetch_magnatagatune as module
from preprocess.clips.fetch_magnatagatune import ARCHIVE, CHECKSUMS, MANIFEST, PARTS, TABLES
from tagger.cloud import download

RNG = np.random.default_rng(0)
# Noise, as mp3 is to a zip: it becomes no smaller. Some cross the borders of the parts.
CLIPS = {
    f"{folder}/artist-album-{number:02d}-title-0-29.mp3": RNG.bytes(40_000)
    for number, folder in enumerate("0129af")
}
TABLE_CONTENTS = {
    "annotations_final.csv": b"clip_id\tguitar\tmp3_path\n1\t1\t0/a.mp3\n",
    "clip_info_final.csv": b"clip_id\tartist\n1\ta\n",
}


def zip_of(members):
    """An archive; a member is a name or a ZipInfo, and its content."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members:
            archive.writestr(member, data)
    return content.getvalue()


def published(members=None):
    """All files of an address, by name."""
    # As the real one has them: its folders are members too.
    default = [("0/", b""), ("readme.txt", b"left out"), *CLIPS.items()]
    archive = zip_of(default if members is None else members)
    third = -(-len(archive) // 3)
    parts = {name: archive[i * third : (i + 1) * third] for i, name in enumerate(PARTS)}
    return {**TABLE_CONTENTS, **parts}


def sums(files):
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in files.items()]
    return "\n".join(lines).encode() + b"\n"


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` below /mtt/, with ranges; `trouble` is told of each answer before it goes."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        # Names and ranges, in order.
        self.asked = []
        # By name: status codes, or numbers of bytes after which to break off (negative).
        self.trouble = {}

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/mtt/"

    def names(self):
        asked, self.asked = self.asked, []
        return [name for name, _ in asked]


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.removeprefix("/mtt/")
        wanted = self.headers.get("Range")
        self.server.asked.append((name, wanted))
        trouble = self.server.trouble.get(name, [])
        trouble = trouble.pop(0) if trouble else 0
        content = self.server.files.get(name)
        if trouble > 0 or content is None:
            self.send_response(trouble or 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:][: -trouble or None])


@pytest.fixture
def serve(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    # What has arrived of a block is lost when the connection breaks in it.
    monkeypatch.setattr(download, "_BLOCK_BYTES", 1000)
    with contextlib.ExitStack() as stack:

        def start(files=None):
            server = stack.enter_context(Server(published() if files is None else files))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            return server

        yield start


@pytest.fixture
def fetch(command, tmp_path):
    """Call the verb: exit code, stdout, stderr."""

    def call(address, *options):
        given = address.address if isinstance(address, Server) else address
        code, out, err = command("fetch-magnatagatune", tmp_path / "mtt", "--from", given, *options)
        assert "Traceback" not in err
        return code, out, err

    return call


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mtt"


def refusal(answer):
    """The one line of a call that must fail."""
    code, out, err = answer
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (MANIFEST, f"{MANIFEST}.lock")
    }


WHOLE = {**TABLE_CONTENTS, **CLIPS}


def test_clips_and_tables_arrive_and_nothing_is_asked_for_again(serve, fetch, folder):
    server = serve()
    code, out, err = fetch(server)
    assert code == 0
    assert out == f"{folder}: 6 clips (6 unpacked now)\n"
    assert contents(folder) == WHOLE
    assert "unpack clips" in err and f"download {PARTS[1]}" in err
    assert "1 members are no clips; left out" in err
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp3")}
    server.names()
    assert fetch(server)[1] == f"{folder}: 6 clips (0 unpacked now)\n"
    assert server.names() == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp3")} == before


def test_parts_stay_when_told_to_and_go_at_the_next_call(serve, fetch, folder):
    server = serve()
    fetch(server, "--keep-parts")
    assert contents(folder) == {**server.files, **CLIPS}
    server.names()
    assert fetch(server)[0] == 0
    assert contents(folder) == WHOLE
    assert server.names() == []


def test_a_server_that_stays_busy_leaves_what_the_next_call_goes_on_from(serve, fetch, folder):
    server = serve()
    server.trouble[PARTS[1]] = [-30_000] + [503] * 4
    assert "server answers 503" in refusal(fetch(server))
    server.asked = []
    assert fetch(server)[0] == 0
    assert contents(folder) == WHOLE
    asked = dict(server.asked)
    assert asked[PARTS[1]] == "bytes=30000-"
    assert PARTS[0] not in asked and TABLES[0] not in asked


def test_a_missing_file_is_named_with_its_address(serve, fetch):
    files = published()
    del files[PARTS[2]]
    server = serve(files)
    message = refusal(fetch(server))
    assert f"{server.address}{PARTS[2]}: no such file" in message and "--from" in message


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ftp://example.com/mtt", "ftp://example.com/mtt"),
        ("/home/me/mtt", "/home/me/mtt"),
        ("https://example.com/mtt?sig=hush", "https://example.com/mtt?***"),
    ],
)
def test_an_address_of_another_kind_is_refused(fetch, address, shown):
    assert f"--from {shown}: give a folder at https:// or gs://" in refusal(fetch(address))


# Checksums


@pytest.mark.parametrize("kind", ["published", "file", "address"])
def test_checksums_are_verified_and_what_they_leave_out_is_said(
    serve, fetch, folder, tmp_path, kind
):
    files = published()
    some = {name: content for name, content in files.items() if name != TABLES[1]}
    server = serve({**files, CHECKSUMS if kind == "published" else "mine": sums(some)})
    (tmp_path / "mine").write_bytes(sums(some))
    given = {"file": [tmp_path / "mine"], "address": [f"{server.address}mine"]}.get(kind)
    code, _, err = fetch(server, *(["--checksums", *given] if given else []))
    assert code == 0
    assert contents(folder) == WHOLE
    line = next(line for line in err.splitlines() if "not verified" in line)
    assert TABLES[1] in line and not any(name in line for name in (TABLES[0], *PARTS))
    # What the address publishes itself counts for nothing where a list is handed in.
    assert (CHECKSUMS in server.names()) == (given is None)


@pytest.mark.parametrize("is_known", [False, True])
def test_that_nothing_could_be_verified_is_said(serve, fetch, is_known):
    files = published()
    server = serve({**files, CHECKSUMS: sums(files)} if is_known else files)
    lines = [line for line in fetch(server)[2].splitlines() if "not verified" in line]
    assert len(lines) == (0 if is_known else 1)
    for line in lines:
        assert server.address.rstrip("/") in line and "--checksums" in line
        assert all(name in line for name in (*TABLES, *PARTS))


def test_a_wrong_checksum_is_refused_and_nothing_is_unpacked(serve, fetch, folder):
    files = published()
    checksums = sums({**files, PARTS[1]: b"another"})
    server = serve({**files, CHECKSUMS: checksums})
    message = refusal(fetch(server))
    assert f"{server.address}{PARTS[1]}" in message
    assert hashlib.sha256(b"another").hexdigest() in message
    assert not (folder / "0").exists()
    assert not (folder / PARTS[1]).exists()


@pytest.mark.parametrize("code", [403])
def test_a_list_that_may_not_be_read_is_not_taken_for_none(serve, fetch, folder, code):
    server = serve()
    server.trouble[CHECKSUMS] = [code]
    message = refusal(fetch(server))
    assert message.startswith(f"error: {server.address}{CHECKSUMS}: whether checksums")
    assert str(code) in message and "--checksums" in message
    assert server.names() == [CHECKSUMS]
    assert contents(folder) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "mine: cannot be read (No such file or directory)"),
        (b"<html>\n", "is no line that sha256sum writes"),
        (b"", "mine: names none of annotations_final.csv"),
        (b"0" * 64 + b"  another.txt\n", "mine: names none of annotations_final.csv"),
    ],
)
def test_a_list_handed_in_that_is_of_no_use_is_refused(serve, fetch, tmp_path, content, message):
    if content is not None:
        (tmp_path / "mine").write_bytes(content)
    assert message in refusal(fetch(serve(), "--checksums", tmp_path / "mine"))


def test_a_list_at_an_address_that_is_not_there_is_refused(serve, fetch):
    server = serve()
    given = f"{server.address}mine"
    assert f"--checksums {given}: no such file" in refusal(fetch(server, "--checksums", given))


@pytest.mark.parametrize("name", [TABLES[0], PARTS[0]])
def test_a_file_that_is_there_is_never_replaced(serve, fetch, folder, name):
    files = published()
    server = serve({**files, CHECKSUMS: sums(files)})
    folder.mkdir()
    (folder / name).write_bytes(b"my own")
    assert f"{folder / name}: is not what was published" in refusal(fetch(server))
    assert (folder / name).read_bytes() == b"my own"
    (folder / name).write_bytes(files[name])
    assert fetch(server)[0] == 0
    assert name not in server.names()
    assert contents(folder) == WHOLE


# Times of the clips


def test_clips_have_the_times_of_the_archive_so_that_a_store_of_them_stays(serve, fetch, folder):
    members = []
    for number, (name, content) in enumerate(CLIPS.items()):
        members.append((zipfile.ZipInfo(name, (2009, 1 + number, 2, 3, 4, 6)), content))
    server = serve(published(members))
    assert fetch(server)[0] == 0
    times = {name: (folder / name).stat().st_mtime_ns for name in CLIPS}
    assert times[next(iter(CLIPS))] == 1_230_865_446 * 10**9
    assert len(set(times.values())) == len(CLIPS)
    # On a disk of its own they are the same.
    shutil.rmtree(folder)
    fetch(server)
    assert {name: (folder / name).stat().st_mtime_ns for name in CLIPS} == times


def test_a_time_that_cannot_be_harms_nothing(serve, fetch, folder):
    archive = bytearray(zip_of([("0/a.mp3", b"x")]))
    # Of the central directory: day 0 of month 0.
    start = archive.rindex(b"PK\x01\x02") + 14
    archive[start : start + 2] = b"\0\0"
    pieces = (bytes(archive[:20]), bytes(archive[20:40]), bytes(archive[40:]))
    assert fetch(serve({**TABLE_CONTENTS, **dict(zip(PARTS, pieces, strict=True))}))[0] == 0
    assert (folder / "0" / "a.mp3").read_bytes() == b"x"


# Disks that are full


def fetch_with_room_for(folder, server, n_bytes):
    """Call the verb in a process whose files may grow to `n_bytes` only."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    command = [sys.executable, "-m", "tagger", "fetch-magnatagatune", str(folder)]
    return subprocess.run(
        [*command, "--from", server.address],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_disk_that_is_full_is_one_error_and_the_next_call_goes_on(serve, fetch, folder):
    server = serve()
    done = fetch_with_room_for(folder, server, 50_000)
    message = refusal((done.returncode, done.stdout, done.stderr))
    assert f"{folder}: cannot be written (" in message and "disk space" in message
    assert "Traceback" not in done.stderr
    arrived = (folder / f"{PARTS[0]}.part").stat().st_size
    assert 0 < arrived <= 50_000
    server.asked = []
    assert fetch(server)[0] == 0
    assert (PARTS[0], f"bytes={arrived}-") in server.asked
    assert contents(folder) == WHOLE


def test_a_disk_that_is_full_while_clips_are_unpacked_leaves_no_half_of_one(serve, fetch, folder):
    server = serve()
    folder.mkdir()
    for name in PARTS:
        (folder / name).write_bytes(server.files[name])
    done = fetch_with_room_for(folder, server, 20_000)
    message = refusal((done.returncode, done.stdout, done.stderr))
    assert f"{folder}: cannot be written (" in message
    assert list(folder.glob("[0-9a-f]/*")) == []
    assert fetch(server)[0] == 0
    assert contents(folder) == WHOLE


def test_a_disk_without_room_for_the_clips_is_one_error(serve, fetch, folder, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    message = refusal(fetch(serve()))
    assert f"{folder}: 0 MB more are needed" in message and "make room" in message
    monkeypatch.undo()


# Damage


def flipped(archive):
    archive[110_000] ^= 1


def misnamed(archive):
    # In the header of a clip: its name is UTF-8, and begins with half a letter.
    start = archive.index(b"PK\x03\x04", 100_000)
    archive[start + 7] |= 0x08
    archive[start + 30] = 0x88


def misplaced(archive):
    start = archive.rindex(b"PK\x01\x02")
    archive[start + 42 : start + 46] = (0x7FFFFFFF).to_bytes(4, "little")


def misjudged(archive):
    # Of the central directory: a clip of one byte.
    start = archive.rindex(b"PK\x01\x02")
    archive[start + 24 : start + 28] = (1).to_bytes(4, "little")


def without_start(archive):
    del archive[:5000]


def without_end(archive):
    del archive[-5000:]


def without_middle(archive):
    del archive[120_000:125_000]


def parts_of(archive):
    third = -(-len(archive) // 3)
    return {name: bytes(archive[i * third : (i + 1) * third]) for i, name in enumerate(PARTS)}


@pytest.mark.parametrize(
    "harm",
    [flipped, misnamed, misplaced, misjudged, without_start, without_middle, without_end],
)
def test_a_damaged_archive_is_named_removed_and_fetched_by_the_next_call(
    serve, fetch, folder, harm
):
    good = published()
    archive = bytearray(b"".join(good[part] for part in PARTS))
    harm(archive)
    server = serve({**good, **parts_of(archive)})
    message = refusal(fetch(server))
    assert f"{folder / ARCHIVE}: truncated or damaged, and removed (" in message
    assert "call again" in message and "--from" in message
    # What was unpacked before is whole, and no other is there.
    assert contents(folder).items() <= WHOLE.items()
    n_there = len(list(folder.rglob("*.mp3")))
    server.files = good
    code, out, _ = fetch(server)
    assert code == 0
    assert out == f"{folder}: 6 clips ({6 - n_there} unpacked now)\n"
    assert contents(folder) == WHOLE


def test_a_clip_that_was_damaged_is_unpacked_again_and_no_other(serve, fetch, folder):
    server = serve()
    fetch(server)
    name, content = list(CLIPS.items())[2]
    (folder / name).write_bytes(content[:-1] + b"x" if content[-1:] != b"x" else content[:-1])
    code, out, err = fetch(server)
    assert code == 0
    assert out == f"{folder}: 6 clips (1 unpacked now)\n"
    assert f"{folder / name}: is not as it was unpacked" in err
    assert contents(folder) == WHOLE


# The archive is the first file that is written, the clips follow.
@pytest.mark.parametrize("n_clips", [-1, 2])
def test_an_interrupted_run_goes_on(serve, fetch, folder, monkeypatch, n_clips):
    server = serve()
    write, left = module.atomic_write, [1 + n_clips]

    @contextlib.contextmanager
    def killed(path, **options):
        with write(path, **options) as file:
            yield file
            if not left[0]:
                # As after kill -9: half a file under a temporary name, and no way back.
                (path.parent / ".tmp-half").write_bytes(b"half")
                raise KeyboardInterrupt
            left[0] -= 1

    with monkeypatch.context() as patch:
        patch.setattr(module, "atomic_write", killed)
        assert fetch(server)[0] != 0
    n_there = len(list(folder.rglob("*.mp3")))
    assert n_there == max(n_clips, 0)
    server.names()
    assert fetch(server)[1] == f"{folder}: 6 clips ({6 - n_there} unpacked now)\n"
    # All parts are there already.
    assert server.names() == [CHECKSUMS]
    assert contents(folder) == WHOLE


@pytest.mark.parametrize("text", ["{", "[]", '{"clips": {"0/a.mp3": "many"}}'])
def test_a_manifest_that_is_damaged_is_written_anew(serve, fetch, folder, text):
    server = serve()
    fetch(server)
    (folder / MANIFEST).write_text(text)
    assert fetch(server)[1] == f"{folder}: 6 clips (0 unpacked now)\n"
    server.names()
    assert fetch(server)[0] == 0
    assert server.names() == []


def test_a_folder_that_cannot_be_is_named(serve, fetch, folder):
    folder.write_text("in the way")
    assert f"{folder}: cannot be written" in refusal(fetch(serve()))


# Archives that mean harm


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


HOSTILE = {
    "parent": [("../outside.mp3", b"x")],
    "way round": [("0/../../outside.mp3", b"x")],
    "absolute": [("/tmp/outside.mp3", b"x")],
    "backslash": [("0\\..\\outside.mp3", b"x")],
    "drive": [("C:/outside.mp3", b"x"), ("0/C:outside.mp3", b"x")],
    "control": [("0/a\n.mp3", b"x")],
    "linked folder": [(link("1"), b"/etc")],
    "bomb": [("0/huge.mp3", bytes(17 << 20))],
    "packed otherwise": [(zipfile.ZipInfo("0/b.mp3"), b"x" * 1000)],
}
HOSTILE["packed otherwise"][0][0].compress_type = zipfile.ZIP_LZMA


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_member_that_means_harm_is_written_nowhere(serve, fetch, folder, tmp_path, kind):
    code, _, err = fetch(serve(published([*HOSTILE[kind], *CLIPS.items()])))
    assert code == 0
    assert f"{len(HOSTILE[kind])} members are no clips; left out" in err
    assert contents(folder) == WHOLE
    assert {path.name for path in tmp_path.iterdir()} == {"mtt"}


def test_a_link_is_unpacked_as_an_ordinary_file(serve, fetch, folder):
    assert fetch(serve(published([(link("0/link.mp3"), b"/etc/passwd")])))[0] == 0
    assert not (folder / "0" / "link.mp3").is_symlink()
    assert (folder / "0" / "link.mp3").read_bytes() == b"/etc/passwd"


def test_an_archive_without_clips_is_refused(serve, fetch):
    server = serve(published([("readme.txt", b"x"), ("0/deeper/a.mp3", b"x"), ("g/a.mp3", b"x")]))
    assert "holds no mp3 files in folders 0 to f" in refusal(fetch(server))


# A bucket as mirror


@pytest.fixture
def cloud(monkeypatch):
    for package in ("fsspec", "google.cloud.storage", "gcp_storage_emulator", "upath"):
        pytest.importorskip(package)
    from cloud_server import running

    monkeypatch.setattr(download, "_OBJECT_BLOCK_BYTES", 20_000)
    with running(monkeypatch) as server:
        yield server


def upload(server, files):
    from tagger.cloud.locations import location

    for name, content in files.items():
        (location("gs://bucket/mtt") / name).write_bytes(content)
    server.asked = []


def test_a_bucket_is_a_mirror(cloud, fetch, folder):
    files = published()
    upload(cloud, {**files, CHECKSUMS: sums(files)})
    assert fetch("gs://bucket/mtt")[0] == 0
    assert contents(folder) == WHOLE


def test_a_download_from_a_bucket_goes_on_where_it_broke_off(cloud, fetch, folder):
    files = published()
    upload(cloud, files)
    folder.mkdir()
    (folder / f"{PARTS[0]}.part").write_bytes(files[PARTS[0]][:70_000])
    (folder / f"{PARTS[1]}.part").write_bytes(b"x" * 70_000)
    assert fetch("gs://bucket/mtt")[0] == 0
    assert contents(folder) == WHOLE
    blocks = [name.rpartition("/")[2] for method, name in cloud.asked if method == "GET"]
    whole = -(-len(files[PARTS[0]]) // 20_000)
    # Each is described once more than it is read; the second was of another version.
    assert blocks.count(PARTS[2]) == 1 + whole
    assert blocks.count(PARTS[0]) < blocks.count(PARTS[2]) < blocks.count(PARTS[1])


def test_a_wrong_checksum_in_a_bucket_is_refused(cloud, fetch, folder):
    files = published()
    upload(cloud, {**files, CHECKSUMS: sums({**files, TABLES[1]: b"another"})})
    assert f"gs://bucket/mtt/{TABLES[1]}: arrives damaged (sha256 " in refusal(
        fetch("gs://bucket/mtt")
    )
    assert not (folder / TABLES[1]).exists()


def test_a_bucket_that_refuses_is_an_error_that_names_the_file(cloud, fetch):
    upload(cloud, published())
    cloud.refused = lambda method, name: name.endswith(PARTS[0])
    assert f"gs://bucket/mtt/{PARTS[0]}: cannot be read" in refusal(fetch("gs://bucket/mtt"))
