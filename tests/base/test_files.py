"""Promises of atomic writes and content hashes."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.base.files import (
    atomic_folder,
    atomic_write,
    content_hash,
    json_hash,
    remove_temporary_files,
    sha256_of_file,
    write_json,
    write_text,
)

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@contextlib.contextmanager
def umask(value):
    previous = os.umask(value)
    try:
        yield
    finally:
        os.umask(previous)


def mode(path):
    return path.stat().st_mode & 0o777


def test_a_file_has_its_new_content_after_the_block(tmp_path):
    path = tmp_path / "below" / "a.bin"
    with atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_content_stays_until_the_block_ends(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_content_and_no_temporary_file(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_of_files_and_folders_follow_the_umask(tmp_path, mask):
    with umask(mask):
        write_text(tmp_path / "a.txt", "a")
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "b.txt").write_text("b")
    assert mode(tmp_path / "a.txt") == 0o666 & ~mask
    assert mode(tmp_path / "folder") == 0o777 & ~mask


def test_the_umask_is_unchanged_after_a_write(tmp_path):
    with umask(0o027):
        write_text(tmp_path / "a.txt", "a")
        assert os.umask(0o027) == 0o027


def test_a_folder_appears_whole_and_replaces_the_one_before(tmp_path):
    path = tmp_path / "state"
    path.mkdir()
    (path / "old").write_text("old")
    with atomic_folder(path) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "new").write_text("new")
        assert [file.name for file in path.iterdir()] == ["old"]
    assert [file.relative_to(path).as_posix() for file in path.rglob("*")] == ["deep", "deep/new"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_whose_block_fails_leaves_the_old_one_alone(tmp_path):
    path = tmp_path / "state"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(ValueError, match="broken"), atomic_folder(path) as folder:
        (folder / "new").write_text("new")
        raise ValueError("broken")
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / ".tmp-file").write_text("half")
    (tmp_path / ".tmp-folder").mkdir()
    (tmp_path / ".tmp-folder" / "x").write_text("half")
    (tmp_path / "kept").write_text("kept")
    remove_temporary_files(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


def test_json_is_written_readable_with_its_unicode(tmp_path):
    write_json(tmp_path / "a.json", {"tag": "müsik"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "tag": "müsik"\n}\n'


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, min_size=2, max_size=5))
def test_the_order_of_keys_does_not_change_the_hash(value):
    backwards = dict(reversed(list(value.items())))
    assert json_hash(value) == json_hash(backwards)


def test_the_order_of_lists_and_the_type_of_values_change_the_hash():
    values = [[1, 2], [2, 1], ["1", 2], [1, 2.5], {"a": 1}, {"a": 2}, {"b": 1}]
    assert len({json_hash(value) for value in values}) == len(values)


def test_hashes_name_the_content(tmp_path):
    assert content_hash(b"a") == content_hash(b"a") != content_hash(b"b")
    assert len(content_hash(b"")) == 32
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "abc") == SHA256_OF_ABC


def test_what_another_process_is_writing_is_no_leftover(tmp_path):
    with atomic_write(tmp_path / "file") as file, atomic_folder(tmp_path / "folder") as folder:
        remove_temporary_files(tmp_path)
        file.write(b"whole")
        (folder / "inside").write_text("whole")
    assert (tmp_path / "file").read_text() == "whole"
    assert (tmp_path / "folder" / "inside").read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 2


# As a network file system may answer: no lock of what is open for reading.
WITHOUT_LOCKS = """
import errno, os, sys, time
from pathlib import Path
from tagger.base.files import alone, remove_temporary_files
def hook(event, arguments):
    if event == "fcntl.flock":
        raise OSError(errno.EBADF, "no locks here")
sys.addaudithook(hook)
folder = Path(sys.argv[1])
"""


def without_locks(folder, code):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LOCKS + code, folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


CLEANING = """
later = LATER
now = time.time
time.time = lambda: now() + later
remove_temporary_files(folder)
"""


@pytest.mark.parametrize(("later", "stays"), [(60, True), (23 * 3600, True), (25 * 3600, False)])
def test_where_there_are_no_locks_only_what_is_old_is_a_leftover(tmp_path, later, stays):
    (tmp_path / ".tmp-file").write_text("being written")
    (tmp_path / ".tmp-folder").mkdir()
    (tmp_path / ".tmp-folder" / "x").write_text("being written")
    without_locks(tmp_path, CLEANING.replace("LATER", str(later)))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ([".tmp-file", ".tmp-folder"] if stays else [])


@pytest.mark.parametrize(("later", "named"), [(0, False), (120, True)])
def test_where_there_are_no_locks_a_replaced_folder_gets_its_name_back_later(
    tmp_path, later, named
):
    (tmp_path / ".tmp-a.replaced-bundle").mkdir()
    (tmp_path / ".tmp-a.replaced-bundle" / "old").write_text("old")
    (tmp_path / ".tmp-a").mkdir()
    without_locks(tmp_path, CLEANING.replace("LATER", str(later)))
    assert (tmp_path / "bundle" / "old").exists() == named
    assert (tmp_path / ".tmp-a").exists()


def test_where_there_are_no_locks_nobody_waits_and_work_is_done(tmp_path):
    assert without_locks(tmp_path, "with alone(folder / 'x'): print('done')") == "done\n"


KILLED_WHILE_REPLACING = """
import os, signal, sys
from pathlib import Path
from tagger.base.files import atomic_folder
renamed = 0
def hook(event, arguments):
    global renamed
    if event == "os.rename":
        renamed += 1
        if renamed == 2:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "new").write_text("new")
"""


def test_a_folder_that_was_being_replaced_by_a_killed_process_gets_its_name_back(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "old").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_REPLACING, folder])
    assert done.returncode == -signal.SIGKILL
    assert not folder.exists()
    remove_temporary_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (folder / "old").read_text() == "old"
