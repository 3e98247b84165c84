"""Promises of what is kept of what models have said: quick, bounded, and never in the way."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.tagging import kept as module
from tagger.tagging.kept import FILE, Kept, _packed, _unpacked, forget, kept_bytes

ROOT = Path(__file__).parents[2]
ARRAYS = {"scores": np.arange(3, dtype=np.float32), "times": np.arange(2, dtype=np.float64)}
DTYPES = st.sampled_from(["f4", "f8", "?", "i8"])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.wav"
    path.write_bytes(b"music")
    return path


def same(found, arrays=ARRAYS):
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@given(st.dictionaries(st.text(max_size=5), st.tuples(DTYPES, st.integers(0, 4)), max_size=4))
def test_arrays_are_kept_exactly(kinds):
    rng = np.random.default_rng(0)
    arrays = {
        name: (100 * rng.normal(size=(length, 3))).astype(kind)
        for name, (kind, length) in kinds.items()
    }
    same(_unpacked(_packed(arrays)), arrays)


def test_what_is_kept_is_found_by_another_process_and_another_name(song, monkeypatch):
    with Kept("model") as kept:
        assert kept.get(song) is None
        kept.put(song, ARRAYS)
        same(kept.get(song))
    monkeypatch.chdir(song.parent)
    with Kept("model") as kept:
        same(kept.get(Path("song.wav")))
        same(kept.get(Path("./song.wav")))


def test_of_another_model_or_a_file_that_has_changed_nothing_is_found(song):
    with Kept("model") as kept:
        kept.put(song, ARRAYS)
    with Kept("other model") as kept:
        assert kept.get(song) is None
    status = song.stat()
    os.utime(song, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    with Kept("model") as kept:
        assert kept.get(song) is None
        assert kept.get(song.with_name("gone.wav")) is None
        kept.put(song.with_name("gone.wav"), ARRAYS)


def test_afresh_nothing_from_before_is_read(song):
    with Kept("model") as kept:
        kept.put(song, ARRAYS)
    with Kept("model", fresh=True) as kept:
        assert kept.get(song) is None
        kept.put(song, {"scores": np.ones(1)})
        same(kept.get(song), {"scores": np.ones(1)})


def test_names_that_are_no_unicode_are_kept(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    path.write_bytes(b"music")
    with Kept("model") as kept:
        kept.put(path, ARRAYS)
        same(kept.get(path))


def test_a_process_that_is_killed_leaves_what_it_had_kept(song):
    code = (
        "import os, sys, numpy as np; from pathlib import Path\n"
        "from tagger.tagging.kept import Kept\n"
        "kept = Kept('model'); kept.put(Path(sys.argv[1]), {'a': np.ones(2)})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, song], cwd=ROOT)
    assert done.returncode == -9
    with Kept("model") as kept:
        same(kept.get(song), {"a": np.ones(2)})


def test_several_processes_share_it(tmp_path):
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from tagger.tagging.kept import Kept\n"
        "with Kept('model') as kept:\n"
        "    for name in sys.argv[1:]: kept.put(Path(name), {'a': np.ones(2)})\n"
    )
    songs = [tmp_path / f"{number}.wav" for number in range(60)]
    for path in songs:
        path.write_bytes(path.name.encode())
    running = [
        subprocess.Popen([sys.executable, "-c", code, *songs[part::3]], cwd=ROOT)
        for part in range(3)
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    with Kept("model") as kept:
        assert all(kept.get(path) is not None for path in songs)


def test_it_never_grows_beyond_its_bound_and_keeps_what_was_used_last(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_BYTES", 50_000)
    monkeypatch.setattr(module, "_LEFT_BYTES", 40_000)
    songs = [tmp_path / f"{number}.wav" for number in range(12)]
    for path in songs:
        path.write_bytes(path.name.encode())
    for path in songs:
        with Kept("model") as kept:
            kept.put(path, {"a": np.ones(1000)})
            # Used each time.
            kept.get(songs[0])
    with Kept("model") as kept:
        there = [kept.get(path) is not None for path in songs]
    assert there[0] and there[-1] and not there[1] and 3 <= sum(there) <= 6
    assert kept_bytes() < 200_000


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100, b"SQLite format 3\0" * 50])
def test_a_damaged_file_is_begun_anew(cache, song, content):
    cache.mkdir()
    (cache / FILE).write_bytes(content)
    with Kept("model") as kept:
        assert kept.get(song) is None
        kept.put(song, ARRAYS)
    with Kept("model") as kept:
        same(kept.get(song))


@pytest.mark.parametrize("value", [b"", b"\x05\0\0\0{}", b"\x02\0\0\0[]", b"\xff" * 9])
def test_a_damaged_entry_is_none(cache, song, value):
    with Kept("model") as kept:
        kept.put(song, ARRAYS)
    with sqlite3.connect(cache / FILE) as database:
        database.execute("UPDATE kept SET value = ?", [value])
    with Kept("model") as kept:
        assert not kept.get(song)


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(
    tmp_path, song, monkeypatch, capsys
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "file"))
    with Kept("model") as kept:
        kept.put(song, ARRAYS)
        assert kept.get(song) is None
    assert "what is computed is not kept" in capsys.readouterr().err


def test_it_is_shown_and_forgotten_on_request(cache, song, command):
    with Kept("model") as kept:
        kept.put(song, {"a": np.ones(500_000)})
    code, out, _ = command("cache")
    assert code == 0 and str(cache) in out and "what models have said of files: 4." in out
    code, out, _ = command("cache", "--clear")
    assert code == 0 and "what models have said of files: 0.0 MB" in out
    assert kept_bytes() == 0
    forget()
