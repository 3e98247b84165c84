"""Promises of resuming a run over many files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tagger.base.errors import ConfigError
from tagger.tagging.journal import Journal, journal_path
from tagger.tagging.records import Record, Row, failed_record

SETTINGS = {"model": "m", "top_k": 10}


def record(path, score=0.1 + 0.2):
    return Record(str(path), 1.5, False, (Row("müsik\n", score, 0.0, 1.5), Row("b", 0.25)))


@pytest.fixture
def songs(tmp_path):
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for path in paths:
        path.write_bytes(b"sound")
    return paths


@pytest.fixture
def journal(tmp_path, songs):
    """A journal of all songs, closed."""
    path = journal_path(tmp_path / "tags.csv")
    with Journal(path, SETTINGS) as opened:
        for song in songs:
            opened.add(song, record(song))
    return path


def done(path, songs, settings=SETTINGS, **more):
    with Journal(path, settings, **more) as opened:
        return [opened.get(song) for song in songs]


def test_the_journal_lies_beside_the_output(tmp_path):
    assert journal_path(tmp_path / "tags.csv") == tmp_path / "tags.csv.journal.jsonl"


def test_a_file_that_is_done_has_its_record_in_the_next_run_and_in_this_one(journal, songs):
    assert done(journal, songs) == [record(song) for song in songs]
    with Journal(journal, SETTINGS, overwrite=True) as opened:
        assert opened.get(songs[0]) is None
        opened.add(songs[0], record(songs[0]))
        assert opened.get(songs[0]) == record(songs[0])
        opened.add(songs[1], record(songs[1]))
        assert opened.get(songs[0]) == record(songs[0])


def test_the_order_of_the_settings_does_not_matter(journal, songs):
    assert None not in done(journal, songs, {"top_k": 10, "model": "m"})


def test_a_file_that_has_changed_since_is_not_done(journal, songs):
    songs[0].write_bytes(b"longer sound")
    status = songs[1].stat()
    os.utime(songs[1], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    songs[2].unlink()
    assert done(journal, songs) == [None, None, None]


def test_a_file_is_known_by_another_name_and_has_it_in_its_record(journal, songs, monkeypatch):
    monkeypatch.chdir(songs[0].parent)
    relative = songs[0].relative_to(songs[0].parent)
    assert done(journal, [relative]) == [record("0.wav")]


def test_a_failed_file_is_tried_again(tmp_path, songs):
    path = tmp_path / "j"
    with Journal(path, SETTINGS) as opened:
        opened.add(songs[0], failed_record(str(songs[0]), "no audio; replace it"))
        assert opened.get(songs[0]) is None
    assert done(path, songs[:1]) == [None]


def test_a_file_that_vanished_meanwhile_is_not_noted(tmp_path, songs):
    with Journal(tmp_path / "j", SETTINGS) as opened:
        opened.add(tmp_path / "gone.wav", record("gone.wav"))
        assert opened.get(tmp_path / "gone.wav") is None


def test_names_that_are_no_unicode_are_noted(tmp_path):
    song = tmp_path / os.fsdecode(b"\xff\n.wav")
    song.write_bytes(b"x")
    with Journal(tmp_path / "j", SETTINGS) as opened:
        opened.add(song, record(song))
    assert done(tmp_path / "j", [song]) == [record(song)]


# Damage


def test_any_cut_of_the_journal_keeps_the_lines_before_it_and_can_be_gone_on_with(journal, songs):
    content = journal.read_bytes()
    ends = [end + 1 for end, byte in enumerate(content) if byte == 10]
    for cut in range(0, len(content) + 1, 7):
        journal.write_bytes(content[:cut])
        with Journal(journal, SETTINGS) as opened:
            n_whole = max(0, sum(end <= cut for end in ends) - 1)
            found = [opened.get(song) for song in songs]
            assert found == [record(song) for song in songs[:n_whole]] + [None] * (3 - n_whole)
            opened.add(songs[2], record(songs[2], 0.75))
        assert done(journal, songs)[2] == record(songs[2], 0.75)


@pytest.mark.parametrize(
    "garbage",
    [b"\0\0\0\n", b"\xff\xfe\n", b"{}\n", b"[1]\n", b'{"path": 3}\n', b"[" * 9999 + b"\n"],
)
def test_garbage_in_the_journal_is_dropped(journal, songs, garbage):
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], garbage, *lines[2:], garbage]))
    assert None not in done(journal, songs)


def test_a_line_with_a_damaged_record_is_dropped(journal, songs):
    journal.write_bytes(journal.read_bytes().replace(b'"seconds": 1.5', b'"seconds": "x"', 1))
    assert [found is None for found in done(journal, songs)] == [True, False, False]


@pytest.mark.parametrize("number", ["1e999", "1" + "0" * 400, "NaN", '"x"', "null"])
@pytest.mark.parametrize("key", ["size", "mtime_ns", "seconds"])
def test_a_line_with_a_number_that_is_none_is_dropped_or_read(journal, songs, key, number):
    header, *lines = journal.read_text().splitlines(keepends=True)
    lines[0] = re.sub(rf'"{key}": [^,}}]+', f'"{key}": {number}', lines[0])
    journal.write_text("".join([header, *lines]))
    found = done(journal, songs)
    assert found[1:] == [record(song) for song in songs[1:]]
    assert found[0] is None or found[0].path == str(songs[0])


def test_a_killed_process_leaves_what_it_had_done(tmp_path, songs):
    code = """
import os, signal, sys
from pathlib import Path
from tagger.tagging.journal import Journal
from tagger.tagging.records import Record
journal = Journal(Path(sys.argv[1]), {"a": 1})
journal.add(Path(sys.argv[2]), Record(sys.argv[2], 1.0, False, ()))
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "j"
    killed = subprocess.run([sys.executable, "-c", code, path, songs[0]], check=False)
    assert killed.returncode == -9
    assert done(path, songs[:1], {"a": 1}) == [Record(str(songs[0]), 1.0, False, ())]


# Other settings


def test_a_journal_of_other_settings_is_kept_aside_with_one_notice_that_names_them(
    journal, songs, capsys
):
    before = journal.read_bytes()
    assert done(journal, songs, {"model": "other", "top_k": 10}) == [None, None, None]
    (line,) = capsys.readouterr().err.splitlines()
    assert "other settings (model)" in line and "starting anew" in line
    assert journal.with_name(journal.name + ".old").read_bytes() == before
    assert done(journal, songs) == [None, None, None]


@pytest.mark.parametrize("content", [b"a list of mine\n", b"\xff", b'{"schema": 99}\n', b"[]\n"])
def test_what_is_no_journal_is_kept_aside(tmp_path, content, capsys):
    (tmp_path / "j").write_bytes(content)
    Journal(tmp_path / "j", SETTINGS).close()
    assert (tmp_path / "j.old").read_bytes() == content
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert json.loads((tmp_path / "j").read_bytes())["schema"] == 1


def test_overwriting_starts_anew_without_a_notice(journal, songs, capsys):
    assert done(journal, songs, overwrite=True) == [None, None, None]
    assert done(journal, songs) == [None, None, None]
    assert capsys.readouterr().err == ""
    assert not journal.with_name(journal.name + ".old").exists()


# Where it cannot be


def test_a_second_run_on_the_same_output_is_refused_in_one_line(journal, songs):
    with Journal(journal, SETTINGS):
        with pytest.raises(ConfigError, match=r"another process is writing this output; wait"):
            Journal(journal, SETTINGS, overwrite=True)
        with pytest.raises(ConfigError):
            Journal(journal, {"other": 1})
    assert None not in done(journal, songs)


def test_the_lock_ends_with_the_process_that_was_killed(journal, songs):
    code = (
        "import sys, os; from pathlib import Path; from tagger.tagging.journal import Journal\n"
        "j = Journal(Path(sys.argv[1]), {'model': 'm', 'top_k': 10}); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, journal], check=False)
    assert None not in done(journal, songs)


def test_a_journal_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "j", tmp_path / "folder"):
        with pytest.raises(ConfigError, match=r"cannot be written \(.+\); give an output"):
            Journal(path, SETTINGS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is full")
def test_a_full_disk_is_one_clear_error(tmp_path, songs):
    opened = Journal(tmp_path / "j", SETTINGS)
    opened._file.close()
    opened._file = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115
    with pytest.raises(ConfigError, match=r"cannot be written \(No space left"):
        opened.add(songs[0], record(songs[0]))
    opened.close()
