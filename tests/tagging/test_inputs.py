"""Promises of how inputs are named and read."""

import io
import os
from pathlib import Path

import pytest
import soundfile
from signals import RATE, sine

from preprocess.signal.audio import load_audio
from tagger.base.errors import AudioError, ConfigError
from tagger.tagging.inputs import (
    Input,
    expand_inputs,
    read_list,
    refuse_wide_writes,
    refuse_writes_outside,
    spool_stdin,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files by name alone, as the working folder."""
    for name in ("a/two.flac", "a/b/three.MP3", "one.wav", ".hidden.wav", "notes.txt", "cover.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*names):
    return [str(item.path) for item in expand_inputs(names)]


# Names


def test_folders_are_searched_for_audio_by_suffix_in_any_case(folder):
    assert expand_inputs([folder]) == [
        Input(folder / name, folder) for name in ("a/b/three.MP3", "a/two.flac", "one.wav")
    ]


def test_files_are_taken_as_they_are_given_whatever_their_suffix(folder):
    assert expand_inputs(["notes.txt", Path("one.wav")]) == [
        Input(Path("notes.txt")),
        Input(Path("one.wav")),
    ]


def test_inputs_keep_the_order_in_which_they_are_given(folder):
    assert found("one.wav", "a") == ["one.wav", "a/b/three.MP3", "a/two.flac"]
    assert found("a", "one.wav") == ["a/b/three.MP3", "a/two.flac", "one.wav"]


def test_a_file_that_is_named_twice_is_taken_once(folder):
    (folder / "link.wav").symlink_to("one.wav")
    assert found("one.wav", folder / "one.wav", "a/../one.wav", "link.wav") == ["one.wav"]
    assert found("a/b", "a") == ["a/b/three.MP3", "a/two.flac"]


def test_a_folder_without_audio_and_a_missing_file_are_bad_inputs_among_others(folder):
    (folder / "empty").mkdir()
    names = ["empty", "missing.wav", "one.wav"]
    assert found(*names) == names
    for name, message in [("empty", "folder without audio files"), ("missing.wav", "no such file")]:
        with pytest.raises(AudioError, match=message):
            load_audio(Path(name), target_rate=RATE)


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0.wav", "*\0*", "one.wav/x", "\udcff.wav"])
def test_a_name_that_no_file_can_have_stops_no_other(folder, name):
    assert found(name, "one.wav") == [name, "one.wav"]


# Patterns


def test_a_pattern_finds_the_audio_at_any_depth(folder):
    assert found("**/*.flac") == ["a/two.flac"]
    assert found(f"{folder}/**/*.[mM][pP]3") == [f"{folder}/a/b/three.MP3"]
    assert found("**") == ["a/b/three.MP3", "a/two.flac", "one.wav"]


def test_a_pattern_leaves_out_what_is_no_audio_unless_it_asks_for_nothing_else(folder):
    assert found("o*") == ["one.wav"]
    assert found("*") == ["a/b/three.MP3", "a/two.flac", "one.wav"]
    assert found("*.jpg") == ["cover.jpg"]


def test_the_base_of_what_a_pattern_finds_is_its_part_without_wildcards(folder):
    assert expand_inputs(["a/**/*.MP3"]) == [Input(Path("a/b/three.MP3"), Path("a"))]
    assert expand_inputs(["*.wav"]) == [Input(Path("one.wav"), Path())]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder):
    (folder / "[one].wav").write_bytes(b"x")
    assert found("[one].wav") == ["[one].wav"]


def test_a_pattern_that_matches_nothing_is_one_bad_input(folder):
    assert expand_inputs(["*.ogg", "one.wav"]) == [Input(Path("*.ogg")), Input(Path("one.wav"))]


# Lists


def test_a_list_has_a_name_per_line_and_blank_lines_are_skipped():
    content = b"\xef\xbb\xbfone.wav\r\n\n  \ntwo words.wav\n m\xc3\xbcsik.mp3"
    assert read_list(io.BytesIO(content)) == ["one.wav", "two words.wav", " müsik.mp3"]


def test_names_that_end_in_nul_may_hold_newlines():
    assert read_list(io.BytesIO(b"a\nb.wav\0c.wav\0\0"), null=True) == ["a\nb.wav", "c.wav"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_list_of_powershell_is_read_as_the_text_that_it_is(encoding):
    content = "\ufeffmüsik/one.wav\r\ntwo.wav\r\n".encode(encoding)
    assert read_list(io.BytesIO(content)) == ["müsik/one.wav", "two.wav"]


@pytest.mark.parametrize(
    "content",
    [
        "a/b.wav\r\n".encode("utf-16-le"),
        "\ufeffa/b.wav\r\n".encode("utf-16-le") + b"x",
        b"a.wav\0b.wav\0",
        b"RIFF\0\0\0\0WAVE/\0.\0",
    ],
)
def test_what_is_no_text_is_refused_and_not_torn_into_names(content):
    with pytest.raises(ConfigError, match=r"^files\.txt: .*; save it as UTF-8|save the list"):
        read_list(io.BytesIO(content), "files.txt")


# Writing into files


@pytest.mark.parametrize("name", ["/", "/**/*.mp3", "/*", "~", "~/.."])
def test_a_disk_and_a_home_folder_are_no_folders_to_write_to(name, tmp_path, monkeypatch):
    home = tmp_path / "people" / "me"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(ConfigError, match=r": is a (whole disk|home folder).*--yes"):
        refuse_wide_writes([name.replace("~", str(home))], [])
    refuse_wide_writes([str(home / "music"), str(tmp_path / "other")], [])


def test_a_mount_point_is_no_folder_to_write_to(folder, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "a")
    with pytest.raises(ConfigError, match=r"the root of a file system.*--yes"):
        refuse_wide_writes(["a"], [])
    refuse_wide_writes(["a/b"], [])


@pytest.mark.parametrize("name", ["a", ".", "a/*", "**/*.wav"])
def test_a_list_names_files_and_no_folders_to_write_to(name, folder):
    refuse_wide_writes([name], ["one.wav", "gone.wav"])
    with pytest.raises(ConfigError, match=r"within the list.*--yes"):
        refuse_wide_writes([], ["one.wav", name])


def test_a_link_out_of_the_folder_is_not_written_to(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "other.wav"
    elsewhere.write_bytes(b"x")
    Path("a/link.wav").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match=r"outside of a; .*--yes"):
        refuse_writes_outside(expand_inputs(["a"]))
    # Named itself, it is meant.
    refuse_writes_outside(expand_inputs(["a/link.wav"]))


def test_names_that_are_no_unicode_lead_to_their_files(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.wav"
    Path(os.fsdecode(name)).write_bytes(b"x")
    (listed,) = read_list(io.BytesIO(name + b"\n"))
    assert Path(listed).read_bytes() == b"x"


def test_an_empty_list_has_no_names():
    assert read_list(io.BytesIO(b"")) == []


# Standard input


class Pipe(io.RawIOBase):
    """Bytes in blocks of any size, without seeking; notes the largest block asked for."""

    def __init__(self, content):
        self.rest = content
        self.largest = 0

    def readable(self):
        return True

    def read(self, size=-1):
        assert size >= 0, "all at once"
        self.largest = max(self.largest, size)
        block, self.rest = self.rest[: min(size, 70_000)], self.rest[min(size, 70_000) :]
        return block


def test_audio_on_standard_input_is_copied_in_blocks_and_decodes(tmp_path):
    soundfile.write(tmp_path / "a.flac", sine(440, 10), RATE)
    content = (tmp_path / "a.flac").read_bytes()
    assert len(content) > 70_000  # several blocks
    pipe = Pipe(content)
    path = spool_stdin(pipe, tmp_path)
    assert path.parent == tmp_path and path.read_bytes() == content
    assert pipe.largest <= 1 << 20
    assert len(load_audio(path, target_rate=RATE)) == 10 * RATE


def test_empty_standard_input_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(AudioError, match="standard input is empty; send"):
        spool_stdin(io.BytesIO(b""), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_standard_input_without_room_for_it_is_one_error_and_leaves_no_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tagger.tagging.inputs.shutil.copyfileobj", full)
    with pytest.raises(AudioError, match=r"cannot be copied .*No space left.*; free disk space"):
        spool_stdin(io.BytesIO(b"x"), tmp_path)
    assert list(tmp_path.iterdir()) == []
