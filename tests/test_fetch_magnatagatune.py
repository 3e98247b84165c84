"""Promises of fetching MagnaTagATune, kept against real servers on the loopback interface."""

import contextlib
import hashlib
import http.server
import io
import json
import os
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
from preprocess.clips.fetch_magnatagatune import CHECKSUMS, MANIFEST, PARTS, TABLES, JoinedFile
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


def test_clips_and_tables_arrive_and_the_parts_go(serve, fetch, folder):
    code, out, err = fetch(serve())
    assert code == 0
    assert out == f"{folder}: 6 clips (6 unpacked now)\n"
    assert contents(folder) == WHOLE
    assert "unpack clips" in err and f"download {PARTS[1]}" in err
    assert "1 members that are no clips are left out" in err


def test_what_arrived_is_noted_with_size_and_checksum(serve, fetch, folder):
    server = serve()
    fetch(server)
    noted = json.loads((folder / MANIFEST).read_text())["files"]
    assert noted == {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in server.files.items()
    }


def test_parts_stay_when_told_to_and_go_at_the_next_call(serve, fetch, folder):
    server = serve()
    fetch(server, "--keep-parts")
    assert contents(folder) == {**server.files, **CLIPS}
    server.names()
    assert fetch(server)[0] == 0
    assert contents(folder) == WHOLE
    assert server.names() == []


def test_a_second_call_asks_for_nothing_and_writes_nothing(serve, fetch, folder):
    server = serve()
    fetch(server)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp3")}
    server.names()
    assert fetch(server)[1] == f"{folder}: 6 clips (0 unpacked now)\n"
    assert server.names() == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp3")} == before


def test_a_dropped_connection_is_resumed_in_the_middle(serve, fetch, folder):
    server = serve()
    server.trouble[PARTS[1]] = [-30_000, -10_000]
    assert fetch(server)[0] == 0
    assert contents(folder) == WHOLE
    ranges = [wanted for name, wanted in server.asked if name == PARTS[1]]
    assert ranges == [None, "bytes=30000-", "bytes=40000-"]


def test_a_busy_server_is_asked_again(serve, fetch, folder):
    server = serve()
    server.trouble[PARTS[0]] = [503, 503]
    server.trouble[TABLES[0]] = [429]
    assert fetch(server)[0] == 0
    assert contents(folder) == WHOLE


def test_a_server_that_stays_busy_leaves_what_the_next_call_goes_on_from(serve, fetch, folder):
    server = serve()
    server.trouble[PARTS[1]] = [-30_000] + [503] * 4
    assert "server answers 503" in refusal(fetch(server))
    server.names()
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


@pytest.mark.parametrize("address", ["ftp://example.com/mtt", "/home/me/mtt"])
def test_an_address_of_another_kind_is_refused(fetch, address):
    assert f"--from {address}: give a folder at https:// or gs://" in refusal(fetch(address))


def test_a_folder_with_a_query_is_refused(fetch):
    message = refusal(fetch("https://example.com/mtt?sig=hush"))
    assert "--from https://example.com/mtt?***: give a folder" in message


# Checksums


def test_published_checksums_are_verified(serve, fetch, folder):
    files = published()
    server = serve({**files, CHECKSUMS: sums(files)})
    assert fetch(server)[0] == 0
    assert contents(folder) == WHOLE


def test_a_wrong_checksum_is_refused_and_nothing_is_unpacked(serve, fetch, folder):
    files = published()
    checksums = sums({**files, PARTS[1]: b"another"})
    server = serve({**files, CHECKSUMS: checksums})
    message = refusal(fetch(server))
    assert f"{server.address}{PARTS[1]}" in message
    assert hashlib.sha256(b"another").hexdigest() in message
    assert not (folder / "0").exists()
    assert not (folder / PARTS[1]).exists()


def test_a_part_damaged_on_its_way_is_fetched_again_where_checksums_are_published(
    serve, fetch, folder
):
    files = published()
    server = serve({**files, CHECKSUMS: sums(files)})
    folder.mkdir()
    (folder / f"{PARTS[1]}.part").write_bytes(b"x" * 1000)
    assert fetch(server)[0] == 0
    assert contents(folder) == WHOLE
    ranges = [wanted for name, wanted in server.asked if name == PARTS[1]]
    assert ranges == ["bytes=1000-", None]


def test_what_is_no_list_of_checksums_is_refused(serve, fetch):
    server = serve({**published(), CHECKSUMS: b"<html>hello</html>\n"})
    assert "is no line that sha256sum writes" in refusal(fetch(server))


def test_that_nothing_could_be_verified_is_said(serve, fetch):
    server = serve()
    err = fetch(server)[2]
    line = next(line for line in err.splitlines() if "not verified" in line)
    assert server.address.rstrip("/") in line and "--checksums" in line
    assert all(name in line for name in (*TABLES, *PARTS))


def test_what_a_list_leaves_out_is_said(serve, fetch):
    files = published()
    some = {name: content for name, content in files.items() if name != TABLES[1]}
    err = fetch(serve({**files, CHECKSUMS: sums(some)}))[2]
    line = next(line for line in err.splitlines() if "not verified" in line)
    assert TABLES[1] in line and TABLES[0] not in line and PARTS[0] not in line


def test_of_what_is_verified_nothing_is_said(serve, fetch):
    files = published()
    assert "not verified" not in fetch(serve({**files, CHECKSUMS: sums(files)}))[2]


@pytest.mark.parametrize("code", [403, 401])
def test_a_list_that_may_not_be_read_is_not_taken_for_none(serve, fetch, folder, code):
    server = serve()
    server.trouble[CHECKSUMS] = [code]
    message = refusal(fetch(server))
    assert message.startswith(f"error: {server.address}{CHECKSUMS}: whether checksums")
    assert str(code) in message and "--checksums" in message
    assert server.names() == [CHECKSUMS]
    assert contents(folder) == {}


@pytest.mark.parametrize("kind", ["file", "address"])
def test_checksums_are_handed_in(serve, fetch, folder, tmp_path, kind):
    files = published()
    server = serve({**files, "mine": sums(files)})
    (tmp_path / "mine").write_bytes(sums(files))
    given = tmp_path / "mine" if kind == "file" else f"{server.address}mine"
    code, _, err = fetch(server, "--checksums", given)
    assert code == 0
    assert contents(folder) == WHOLE
    assert "not verified" not in err
    # What the address publishes itself counts for nothing then.
    assert CHECKSUMS not in server.names()


def test_a_file_that_does_not_match_the_list_handed_in_is_refused(serve, fetch, folder, tmp_path):
    files = published()
    (tmp_path / "mine").write_bytes(sums({**files, PARTS[0]: b"another"}))
    assert f"{PARTS[0]}: " in refusal(fetch(serve(), "--checksums", tmp_path / "mine"))
    assert not (folder / PARTS[0]).exists()
    assert not any((folder / name).exists() for name in CLIPS)


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


def test_a_part_that_is_published_anew_meanwhile_is_not_joined_to_the_old_one(serve, fetch, folder):
    server = serve()
    server.trouble[PARTS[1]] = [-30_000] + [503] * 4
    refusal(fetch(server))
    other = serve(published([(name, content[::-1]) for name, content in CLIPS.items()]))
    refusal(fetch(other))
    # It is another mirror's; that it differs shows by the first part, and nothing is a mixture.
    assert not any((folder / name).exists() for name in CLIPS)
    (folder / MANIFEST).unlink()
    for name in PARTS:
        (folder / name).unlink(missing_ok=True)
    assert fetch(other)[0] == 0
    assert {n: c for n, c in contents(folder).items() if n in CLIPS} == {
        name: content[::-1] for name, content in CLIPS.items()
    }


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


@pytest.fixture
def small_disk(folder):
    """A disk of its own for the folder, on which a megabyte is free."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_small_disk_that_fills_up_is_one_error_and_the_next_call_goes_on(
    serve, fetch, folder, small_disk
):
    server = serve()
    (folder / "other").write_bytes(bytes((1 << 20) - 130_000))
    message = refusal(fetch(server))
    assert f"{folder}: cannot be written (No space left on device)" in message
    assert not any((folder / name).exists() for name in CLIPS)
    (folder / "other").unlink()
    server.asked = []
    assert fetch(server)[0] == 0
    assert any(wanted for _, wanted in server.asked)
    assert contents(folder) == WHOLE


def test_a_mirror_that_serves_something_else_than_before_is_refused(serve, fetch, folder):
    fetch(serve())
    (folder / next(iter(CLIPS))).unlink()
    other = serve(published([(name, content[::-1]) for name, content in CLIPS.items()]))
    message = refusal(fetch(other))
    assert f"{other.address}{PARTS[0]}: is not what it was before" in message
    assert str(folder / MANIFEST) in message


def test_a_table_that_was_edited_is_not_overwritten(serve, fetch, folder):
    server = serve()
    fetch(server)
    (folder / TABLES[0]).write_bytes(b"my own")
    message = refusal(fetch(server))
    assert f"{folder / TABLES[0]}: has changed" in message
    assert (folder / TABLES[0]).read_bytes() == b"my own"


# Damage


def test_a_corrupted_part_is_named_by_the_clip_removed_and_fetched_by_the_next_call(
    serve, fetch, folder
):
    good = published()
    damaged = bytearray(good[PARTS[1]])
    damaged[60_000] ^= 1
    server = serve({**good, PARTS[1]: bytes(damaged)})
    message = refusal(fetch(server))
    assert f"{folder / PARTS[1]}: " in message and ".mp3: " in message
    assert PARTS[0] not in message
    # Those before it are whole, and no other is there.
    there = {name: content for name, content in contents(folder).items() if name in CLIPS}
    assert 0 < len(there) < 6
    assert there.items() <= CLIPS.items()
    server.files = good
    server.names()
    code, out, _ = fetch(server)
    assert code == 0
    assert out == f"{folder}: 6 clips ({6 - len(there)} unpacked now)\n"
    assert server.names() == [CHECKSUMS, PARTS[1]]
    assert contents(folder) == WHOLE


def test_a_clip_before_which_stands_a_name_that_is_no_text_is_damage(serve, fetch, folder):
    name, content = next(iter(CLIPS.items()))
    good = published([(name, content)])
    damaged = bytearray(good[PARTS[0]])
    # In the header of the clip: its name is UTF-8, and begins with half a letter.
    damaged[7] |= 0x08
    damaged[30] = 0x88
    message = refusal(fetch(serve({**good, PARTS[0]: bytes(damaged)})))
    assert f"{name}: " in message and "truncated or damaged" in message
    assert not (folder / name).exists()


@pytest.mark.parametrize("part", PARTS)
def test_a_truncated_part_is_refused_and_fetched_anew(serve, fetch, folder, part):
    good = published()
    server = serve({**good, part: good[part][:-5000]})
    message = refusal(fetch(server))
    assert part in message and "truncated or damaged" in message
    assert not any((folder / name).exists() for name in CLIPS)
    server.files = good
    assert fetch(server)[0] == 0
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


def test_an_interrupted_run_goes_on(serve, fetch, folder, monkeypatch):
    server = serve()
    write, written = module.atomic_write, []

    @contextlib.contextmanager
    def killed_at_the_third(path, **options):
        with write(path, **options) as file:
            yield file
            written.append(path)
            if len(written) == 3:
                # As after kill -9: half a file under a temporary name, and no way back.
                (path.parent / ".tmp-half").write_bytes(b"half")
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "atomic_write", killed_at_the_third)
        assert fetch(server)[0] != 0
    assert len(list(folder.rglob("*.mp3"))) == 2
    server.names()
    assert fetch(server)[1] == f"{folder}: 6 clips (4 unpacked now)\n"
    # All parts are there already.
    assert server.names() == [CHECKSUMS]
    assert contents(folder) == WHOLE


@pytest.mark.parametrize("text", ["{", "[]", '{"clips": {"0/a.mp3": "many"}}'])
def test_a_manifest_that_is_damaged_is_named(serve, fetch, folder, text):
    folder.mkdir()
    (folder / MANIFEST).write_text(text)
    assert f"{folder / MANIFEST}: damaged" in refusal(fetch(serve()))


def test_a_folder_that_cannot_be_is_named(serve, fetch, folder):
    folder.write_text("in the way")
    assert f"{folder}: cannot be written" in refusal(fetch(serve()))


# Archives that mean harm


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def huge(name):
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


HOSTILE = {
    "../outside.mp3": [("../outside.mp3", b"x")],
    "0/../../outside.mp3": [("0/../../outside.mp3", b"x")],
    "/tmp/outside.mp3": [("/tmp/outside.mp3", b"x")],
    "0\\\\..\\\\outside.mp3": [("0\\..\\outside.mp3", b"x")],
    "C:/outside.mp3": [("C:/outside.mp3", b"x")],
    "0/a\\x00.mp3": [("0/aXmp3", b"x")],
    "0/link.mp3": [(link("0/link.mp3"), b"/etc/passwd")],
    "1": [(link("1"), b"/etc")],
    "0/huge.mp3": [(huge("0/huge.mp3"), bytes(17 << 20))],
    "2/twice.mp3": [("2/twice.mp3", b"x"), ("2/twice.mp3", b"y")],
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_member_that_means_harm_refuses_the_archive_and_is_named(
    serve, fetch, folder, tmp_path, name
):
    files = published([*CLIPS.items(), *HOSTILE[name]])
    if "x00" in name:
        # Nothing that writes archives makes such a name.
        files = {part: content.replace(b"0/aXmp3", b"0/a\0mp3") for part, content in files.items()}
        name = "0/a\\x00mp3"
    message = refusal(fetch(serve(files)))
    assert f"its member '{name}' " in message
    assert contents(folder).keys() == files.keys()
    assert {path.name for path in tmp_path.iterdir()} == {"mtt"}


def test_a_member_whose_size_is_a_lie_is_refused(serve, fetch, folder):
    archive = bytearray(zip_of([("0/bomb.mp3", bytes(17 << 20))]))
    # Of the central directory and of the header: one byte.
    for mark, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = archive.rindex(mark) + offset
        archive[start : start + 4] = (1).to_bytes(4, "little")
    pieces = (bytes(archive[:50]), bytes(archive[50:90]), bytes(archive[90:]))
    parts = dict(zip(PARTS, pieces, strict=True))
    assert "0/bomb.mp3" in refusal(fetch(serve({**TABLE_CONTENTS, **parts})))
    assert not (folder / "0" / "bomb.mp3").exists()


def test_a_member_without_a_name_is_refused(serve, fetch):
    files = published([("a", b"x"), *CLIPS.items()])
    archive = bytearray(b"".join(files[part] for part in PARTS))
    # Of the central directory: a name of one letter becomes one of none, and a comment.
    start = archive.index(b"PK\x01\x02")
    archive[start + 28], archive[start + 32] = 0, 1
    third = -(-len(archive) // 3)
    parts = {name: bytes(archive[i * third : (i + 1) * third]) for i, name in enumerate(PARTS)}
    assert "its member '' has no name" in refusal(fetch(serve({**files, **parts})))


def test_damage_that_lies_in_none_of_the_parts_names_them_all(serve, fetch, folder):
    files = published()
    archive = bytearray(b"".join(files[part] for part in PARTS))
    start = archive.rindex(b"PK\x01\x02")
    archive[start + 42 : start + 46] = (0x7FFFFFFF).to_bytes(4, "little")
    third = -(-len(archive) // 3)
    parts = {name: bytes(archive[i * third : (i + 1) * third]) for i, name in enumerate(PARTS)}
    message = refusal(fetch(serve({**files, **parts})))
    assert all(str(folder / part) in message for part in PARTS)


def test_an_archive_without_clips_is_refused(serve, fetch):
    server = serve(published([("readme.txt", b"x"), ("0/deeper/a.mp3", b"x"), ("g/a.mp3", b"x")]))
    assert "holds no mp3 files in folders 0 to f" in refusal(fetch(server))


# The reader across parts


def test_parts_are_read_as_one_file_whatever_is_asked_for(tmp_path):
    content = RNG.bytes(1000)
    paths = [tmp_path / name for name in "abcd"]
    for path, piece in zip(paths, (content[:1], content[1:600], b"", content[600:]), strict=True):
        path.write_bytes(piece)
    with JoinedFile(paths) as joined, io.BufferedReader(joined, 64) as file:
        assert file.read() == content
        for start, n_bytes in RNG.integers(0, 1000, (50, 2)):
            file.seek(start)
            assert file.read(n_bytes) == content[start : start + n_bytes]
        assert file.seek(-10, io.SEEK_END) == 990
        assert file.read() == content[-10:]
        assert list(joined.parts_of(0, 1)) == [0]
        assert list(joined.parts_of(500, 200)) == [1, 2, 3]
        assert list(joined.parts_of(700, 300)) == [3]


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


def test_a_bucket_in_trouble_is_asked_again(cloud, fetch, folder):
    upload(cloud, published())
    cloud.trouble = [(503, False), (429, False)]
    assert fetch("gs://bucket/mtt")[0] == 0
    assert contents(folder) == WHOLE


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
