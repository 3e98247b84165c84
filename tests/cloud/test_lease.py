"""Promises of the lease: one machine at a time works on a run, and a dead one blocks nobody."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("google.cloud.storage")
pytest.importorskip("gcp_storage_emulator")
pytest.importorskip("upath")

from cloud_server import running

from tagger.cloud.lease import EXIT_HELD, EXIT_LOST, Lease, LeaseHeldError, main, run_holding
from tagger.cloud.locations import location

ADDRESS = "gs://bucket/runs/one.vm/lease.json"


@pytest.fixture
def cloud(monkeypatch):
    with running(monkeypatch) as server:
        yield server


@pytest.fixture(autouse=True)
def handlers():
    """Whoever has run a command under a lease has the handlers back that were there before."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    after = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


def lease(owner, *, seconds=0.6):
    return Lease(location(ADDRESS), owner, seconds=seconds)


def python(code):
    return [sys.executable, "-c", code]


@pytest.mark.usefixtures("cloud")
def test_of_many_that_take_it_at_once_one_gets_it():
    got, refused = [], []

    def take(owner):
        try:
            mine = lease(owner, seconds=5)
            mine.take()
            got.append(owner)
            # It lives, for as long as the others watch it.
            for _ in range(15):
                time.sleep(0.1)
                mine.renew()
        except LeaseHeldError:
            refused.append(owner)

    threads = [threading.Thread(target=take, args=(f"vm {number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert len(refused) == 5


@pytest.mark.usefixtures("cloud")
def test_what_its_owner_held_before_it_was_killed_is_its_own_at_once(monkeypatch):
    lease("one").take()
    waits = []
    monkeypatch.setattr("tagger.cloud.lease.time.sleep", waits.append)
    lease("one", seconds=60).take()
    assert waits == []


@pytest.mark.usefixtures("cloud")
def test_an_owner_that_has_gone_loses_it():
    first, second = lease("one"), lease("two")
    first.take()
    second.take()
    with pytest.raises(LeaseHeldError, match="held by two"):
        first.renew()
    second.renew()


def test_a_lease_that_somebody_has_removed_is_taken_again(cloud):
    mine = lease("one")
    mine.take()
    location(ADDRESS).unlink()
    mine.renew()
    assert b"one" in cloud.objects()["runs/one.vm/lease.json"]
    mine.renew()
    mine.release()
    assert cloud.objects() == {}


def test_a_removed_lease_that_another_one_has_taken_is_lost(cloud):
    mine = lease("one")
    mine.take()
    location(ADDRESS).unlink()

    def refused(method, name):
        # In the very moment in which it is to be taken again.
        if method == "POST" and not cloud.objects():
            cloud.put("runs/one.vm/lease.json", b'{"owner": "two"}')
        return False

    cloud.refused = refused
    with pytest.raises(LeaseHeldError, match="held by two"):
        mine.renew()


def test_a_lease_of_another_one_is_not_released(cloud):
    first = lease("one")
    first.take()
    lease("two").take()
    first.release()
    assert b"two" in cloud.objects()["runs/one.vm/lease.json"]


def test_a_write_whose_answer_was_lost_has_taken_it(cloud):
    cloud.trouble = [(503, False), (503, True)]
    mine = lease("one")
    mine.take()
    mine.renew()


def test_a_command_runs_while_the_lease_is_held_and_its_exit_code_is_returned(cloud):
    assert run_holding(lease("one"), python("import time; time.sleep(1); raise SystemExit(3)")) == 3
    # Taken and renewed.
    assert cloud.sent().count("runs/one.vm/lease.json") >= 3
    assert cloud.objects() == {}


# What would save and send when it is asked to end, and a helper of it.
SENDER = """
import pathlib, signal, subprocess, sys, time
folder = pathlib.Path({folder!r})
signal.signal(signal.SIGTERM, lambda *_: (folder / "sent").touch())
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
(folder / "helper.tmp").write_text(str(helper.pid))
(folder / "helper.tmp").rename(folder / "helper")
end = time.monotonic() + 60
while time.monotonic() < end:
    time.sleep(1)
(folder / "ended").touch()
"""


def helper_in(folder):
    while not (folder / "helper").exists():
        time.sleep(0.02)
    return int((folder / "helper").read_text())


def is_gone(pid):
    """Whether a process has ended; in a container nobody may have taken note of it."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.usefixtures("cloud")
def test_a_command_whose_lease_is_another_ones_is_killed_with_all_it_started(tmp_path, capfd):
    mine, found = lease("one"), []

    def rob():
        found.append(helper_in(tmp_path))
        location(ADDRESS).write_bytes(b'{"owner": "two"}')

    thief = threading.Thread(target=rob)
    thief.start()
    assert run_holding(mine, python(SENDER.format(folder=str(tmp_path)))) == EXIT_LOST
    thief.join()
    assert not (tmp_path / "sent").exists()
    assert not (tmp_path / "ended").exists()
    assert is_gone(found[0])
    assert "held by two" in capfd.readouterr().err


@pytest.mark.usefixtures("cloud")
def test_a_command_does_not_outlive_the_one_that_holds_the_lease(tmp_path):
    code = (
        "import os, pathlib, time\n"
        f"path = pathlib.Path({str(tmp_path)!r}) / 'helper'\n"
        "path.with_suffix('.tmp').write_text(str(os.getpid()))\n"
        "path.with_suffix('.tmp').rename(path)\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-m", "tagger.cloud.lease", ADDRESS, "one", *python(code)]
    with subprocess.Popen(command) as process:
        pid = helper_in(tmp_path)
        process.kill()
    assert is_gone(pid)


@pytest.mark.usefixtures("cloud")
def test_helpers_that_a_command_has_left_are_gone_before_the_lease_is(tmp_path):
    code = SENDER.format(folder=str(tmp_path)).partition("end =")[0]
    assert run_holding(lease("one"), python(code)) == 0
    assert is_gone(helper_in(tmp_path))


def test_a_renewal_that_arrived_though_no_answer_came_is_ones_own(cloud):
    mine = lease("one")
    mine.take()
    cloud.trouble = [(503, True)]
    # Nor can it be asked what has become of it.
    cloud.refused = lambda method, name: True
    with pytest.raises(PermissionError):
        mine.renew()
    cloud.refused = lambda method, name: False
    mine.renew()
    mine.release()
    assert cloud.objects() == {}


def test_another_process_of_the_same_owner_takes_the_lease_away(cloud):
    before, now = lease("one"), lease("one")
    before.take()
    now.take()
    with pytest.raises(LeaseHeldError):
        before.renew()
    before.release()
    now.renew()


def test_a_lease_taken_in_the_moment_of_its_release_stays(cloud):
    mine = lease("one")
    mine.take()
    look = mine._look

    def look_and_be_robbed():
        found = look()
        location(ADDRESS).write_bytes(b'{"owner": "two"}')
        return found

    mine._look = look_and_be_robbed
    mine.release()
    assert b"two" in cloud.objects()["runs/one.vm/lease.json"]


def test_a_renewal_that_hangs_delays_no_end(cloud, capfd, monkeypatch):
    monkeypatch.setattr("tagger.cloud.lease._END_SECONDS", 0.3)
    answer, asked, answered = threading.Event(), [], []

    def refused(method, name):
        if method == "POST" and len(asked) == 2:
            answered.append(answer.wait(30))
        return False

    def count():
        asked.append(1)
        renew()

    mine = lease("one", seconds=0.6)
    cloud.refused = refused
    renew, mine.renew = mine.renew, count
    try:
        assert run_holding(mine, python("import time; time.sleep(1.5)")) == 0
        # The request that hangs has not been answered yet.
        assert answered == []
    finally:
        answer.set()
    assert "not released in time" in capfd.readouterr().err


def test_a_renewal_that_fails_in_an_unknown_way_is_warned_of_and_repeated(cloud, capfd):
    mine = lease("one", seconds=0.6)
    renew, failures = mine.renew, [ValueError("odd")]

    def fail_once():
        if failures:
            raise failures.pop()
        renew()

    mine.renew = fail_once
    assert run_holding(mine, python("import time; time.sleep(1.2)")) == 0
    assert "cannot be renewed now (ValueError: odd)" in capfd.readouterr().err
    assert len(cloud.sent()) >= 3


@pytest.mark.usefixtures("cloud")
def test_a_signal_while_the_lease_is_being_taken_ends_it_and_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TAGGER_LEASE_SECONDS", "60")
    lease("another").take()
    code = f"import pathlib; pathlib.Path({str(tmp_path / 'begun')!r}).touch()"
    command = [sys.executable, "-m", "tagger.cloud.lease", ADDRESS, "one", *python(code)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert "held by another; watching" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    assert not (tmp_path / "begun").exists()


def test_a_network_that_is_away_for_a_while_stops_no_command(cloud, capfd):
    cloud.refused = lambda method, name: method == "POST" and "taken" in seen
    seen = []
    mine = lease("one", seconds=0.9)
    take = mine.take
    mine.take = lambda: (take(), seen.append("taken"))
    assert run_holding(mine, python("import time; time.sleep(1)")) == 0
    assert "cannot be renewed now" in capfd.readouterr().err


@pytest.mark.usefixtures("cloud")
def test_a_command_gets_the_signal_once_and_ends_in_its_own_way(tmp_path):
    code = (
        "import pathlib, signal, sys, time\n"
        "asked = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: asked.append(1))\n"
        f"pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
        "while not asked: time.sleep(0.05)\n"
        "time.sleep(0.5)\n"
        "sys.exit(40 + len(asked))"
    )
    command = [sys.executable, "-m", "tagger.cloud.lease", ADDRESS, "one", *python(code)]
    with subprocess.Popen(command) as process:
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 41


@pytest.mark.usefixtures("cloud")
def test_a_lease_that_another_one_holds_starts_no_command(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("TAGGER_LEASE_SECONDS", "0.6")
    stop = threading.Event()
    first = lease("one")
    first.take()

    def live():
        while not stop.wait(0.05):
            first.renew()

    thread = threading.Thread(target=live)
    thread.start()
    marker = tmp_path / "started"
    code = main([ADDRESS, "two", *python(f"import pathlib; pathlib.Path({str(marker)!r}).touch()")])
    stop.set()
    thread.join()
    assert code == EXIT_HELD
    assert not marker.exists()
    error = capfd.readouterr().err
    assert f"error: {ADDRESS}: held by one; only one machine works on a run" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gs://bucket/lease"], "error: give the address of the lease"),
        (["here/lease", "one", "true"], "error: here/lease: a lease lies in a bucket"),
    ],
)
def test_a_wrong_command_line_is_explained_in_one_line(arguments, message, capfd):
    assert main(arguments) == 2
    error = capfd.readouterr().err
    assert error.startswith(message)
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan", ""])
def test_a_wrong_time_is_explained_in_one_line(text, monkeypatch, cloud, capfd):
    monkeypatch.setenv("TAGGER_LEASE_SECONDS", text)
    assert main([ADDRESS, "one", "true"]) == 2
    assert f"TAGGER_LEASE_SECONDS={text}: give a number of seconds" in capfd.readouterr().err
    assert cloud.objects() == {}


def test_a_bucket_that_refuses_is_explained_in_one_line(cloud, capfd):
    cloud.refused = lambda method, name: method == "POST"
    assert main([ADDRESS, "one", "true"]) == 2
    assert "no permission for you; check the address and rights" in capfd.readouterr().err
