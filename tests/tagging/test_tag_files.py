"""Promises of the verb predict-tags: inputs, outputs, failures, and going on after an end."""

import contextlib
import csv
import io
import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import stat
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile as sf
import typer
from campaigns import quick_some
from signals import RATE, noise
from small_model import small_run

from tagger.cli import main as cli
from tagger.tagging.kept import FILE
from tagger.tagging.tagger import Tagger

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "tagger", "predict-tags"]
STREAMS = ["table", "json", "jsonl", "csv"]
FOLDERS = ["audacity", "npz", "png"]
FORMATS = [*STREAMS, "parquet", *FOLDERS]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run(tmp_path_factory)


@pytest.fixture(scope="module")
def model(run):
    return Tagger.load(run)


@pytest.fixture
def songs(tmp_path):
    """Three songs of three lengths."""
    folder = tmp_path / "songs"
    (folder / "deeper").mkdir(parents=True)
    paths = [folder / "a.wav", folder / "b.wav", folder / "deeper" / "c.wav"]
    for number, path in enumerate(paths):
        sf.write(path, noise(2 + number, seed=number), RATE)
    return paths


@pytest.fixture
def predict(run, command):
    """Run the verb in this process: exit code, stdout, stderr."""
    return partial(command, "predict-tags", "--model", run)


@pytest.fixture
def refusal(predict):
    """Run a command that must be refused: the one line that it says."""

    def call(*arguments):
        code, out, err = predict(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("error: ")
        return err.removeprefix("error: ").rstrip("\n")

    return call


def program(run, *arguments, **options):
    """Run the verb as a process of its own."""
    command = [*PROGRAM, "--model", run, *arguments]
    return subprocess.run(command, capture_output=True, cwd=ROOT, timeout=120, **options)


def paths_of(jsonl):
    return [json.loads(line)["path"] for line in jsonl.splitlines()]


def table_rows(text):
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return list(csv.DictReader(io.StringIO("\n".join(lines))))


def without_time(content):
    return re.sub(rb"\d{4}-\d\d-\d\dT[\d:+]+", b"", content)


# Inputs


def test_files_are_tagged_in_the_order_in_which_they_are_given(predict, songs):
    code, out, err = predict(songs[2], songs[0], songs[1], "--format=jsonl")
    assert code == 0 and "failed" not in err
    assert paths_of(out) == [str(songs[2]), str(songs[0]), str(songs[1])]


def test_scores_are_those_of_the_model(predict, model, songs):
    _, out, _ = predict(songs[0], "--format=json")
    (found,) = json.loads(out)
    wanted = [tag | {"score": round(tag["score"], 6)} for tag in model.predict(songs[0]).top()]
    assert found["tags"] == wanted
    assert (found["seconds"], found["padded"]) == (2, False)


def test_a_folder_and_a_pattern_stand_for_their_files(predict, songs):
    folder = songs[0].parent
    for name in (folder, f"{folder}/**/*.wav"):
        code, out, _ = predict(name, "--format=jsonl")
        assert (code, sorted(paths_of(out))) == (0, sorted(map(str, songs)))


def test_a_file_that_is_given_twice_is_tagged_once(predict, songs):
    code, out, _ = predict(songs[0], songs[0].parent, songs[0], "--format=jsonl")
    assert (code, sorted(paths_of(out))) == (0, sorted(map(str, songs)))


def test_names_may_come_from_a_file(predict, songs, tmp_path):
    (tmp_path / "list").write_text(f"{songs[1]}\n\n{songs[0]}\n")
    _, out, _ = predict("--files-from", tmp_path / "list", "--format=jsonl")
    assert paths_of(out) == [str(songs[1]), str(songs[0])]
    _, out, _ = predict(songs[2], "--files-from", tmp_path / "list", "--format=jsonl")
    assert paths_of(out) == [str(songs[2]), str(songs[1]), str(songs[0])]


def test_names_may_come_from_a_file_of_powershell(predict, songs, tmp_path):
    text = f"\ufeff{songs[1]}\r\n{songs[0]}\r\n"
    (tmp_path / "list.txt").write_bytes(text.encode("utf-16-le"))
    _, out, _ = predict("--files-from", tmp_path / "list.txt", "--format=jsonl")
    assert paths_of(out) == [str(songs[1]), str(songs[0])]


def test_a_list_that_is_no_text_is_refused_as_a_whole(refusal, songs, tmp_path):
    (tmp_path / "list.txt").write_bytes(f"{songs[1]}\r\n".encode("utf-16-le"))
    line = refusal("--files-from", tmp_path / "list.txt", "--write-tags")
    assert line.startswith(f"--files-from {tmp_path / 'list.txt'}: holds NUL characters")


@pytest.mark.parametrize("ends", [(b"\n",), (b"\r\n",), (b"\0", "-0")])
def test_names_may_come_through_standard_input(run, songs, ends):
    end, *option = ends
    names = b"".join(os.fsencode(path) + end for path in songs[:2])
    done = program(run, "--files-from", "-", *option, "--format=jsonl", input=names)
    assert done.returncode == 0
    assert paths_of(done.stdout) == [str(path) for path in songs[:2]]


def test_a_list_that_is_missing_is_one_line(refusal, tmp_path):
    line = refusal("--files-from", tmp_path / "gone")
    assert line.startswith(f"--files-from {tmp_path / 'gone'}: cannot be read (No such file")


def test_nothing_to_tag_is_one_line(refusal, tmp_path):
    (tmp_path / "list").write_text("\n\n")
    for arguments in ([], ["--files-from", tmp_path / "list"]):
        assert refusal(*arguments).startswith("no files given; name audio files or folders")


def test_names_that_are_no_unicode_are_tagged(run, songs, tmp_path):
    path = os.fsencode(tmp_path) + b"/s\xffng.wav"
    shutil.copy(songs[0], path)
    for format_ in FORMATS:
        output = tmp_path / f"out-{format_}"
        done = program(run, path, f"--format={format_}", "--output", output)
        assert done.returncode == 0, done.stderr
    assert os.fsencode(json.loads((tmp_path / "out-jsonl").read_bytes())["path"]) == path
    done = program(run, path, "--write-tags")
    assert done.returncode == 0 and done.stderr.endswith(b" of 1 files\n")


# Standard input


def wav_bytes(path, length=None):
    """A wav file as a program writes it into a pipe, where it does not know the length."""
    content = bytearray(path.read_bytes())
    if length is not None:
        content[4:8] = content[40:44] = struct.pack("<I", length)
    return bytes(content)


@pytest.mark.parametrize("length", [None, 0, 0x7FFFF000, 0xFFFFFFFF])
def test_audio_may_come_through_standard_input(run, model, songs, length):
    done = program(run, "-", "--format=json", input=wav_bytes(songs[0], length))
    assert (done.returncode, done.stderr) == (0, b"")
    (found,) = json.loads(done.stdout)
    assert (found["path"], found["seconds"]) == ("-", 2)
    assert [tag["label"] for tag in found["tags"]] == [
        t["label"] for t in model.predict(songs[0]).top()
    ]


def test_standard_input_is_one_input_among_others(run, songs, tmp_path):
    done = program(
        run, songs[1], "-", songs[2], "--format=npz", "-o", tmp_path, input=wav_bytes(songs[0])
    )
    assert done.returncode == 0
    assert {path.name for path in tmp_path.glob("*.npz")} == {"b.npz", "stdin.npz", "c.npz"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no audio at all" * 100, "not decodable audio"), (b"", "standard input is empty")],
)
def test_standard_input_that_fails_is_named_by_its_dash_and_stops_no_other(
    run, songs, content, reason
):
    done = program(run, "-", songs[0], "--format=jsonl", input=content)
    assert done.returncode == 1
    bad, good = map(json.loads, done.stdout.splitlines())
    assert bad["path"] == "-" and bad["error"].startswith("-: ") and reason in bad["error"]
    assert done.stderr.splitlines()[0].decode() == f"failed: {bad['error']}"
    assert good["path"] == str(songs[0])


def test_the_copy_of_standard_input_is_removed(run, songs, tmp_path):
    (tmp_path / "tmp").mkdir()
    for content in (wav_bytes(songs[0]), b"no audio"):
        program(run, "-", input=content, env={**os.environ, "TMPDIR": str(tmp_path / "tmp")})
        assert list((tmp_path / "tmp").iterdir()) == []


def test_standard_input_that_cannot_be_copied_is_the_failure_of_one_input(
    predict, songs, monkeypatch
):
    def refuse(*_, **__):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    code, out, _ = predict("-", songs[0], "--format=jsonl")
    bad, good = map(json.loads, out.splitlines())
    assert code == 1 and good["path"] == str(songs[0])
    assert bad["error"].startswith("-: there is no folder to copy standard input to (No usable")
    assert "TMPDIR" in bad["error"]


def test_standard_input_cannot_be_names_and_audio_at_once(refusal):
    assert "both read standard input" in refusal("-", "--files-from", "-")


def test_tags_cannot_be_written_into_standard_input(refusal, songs):
    assert refusal("-", songs[0], "--write-tags").startswith("--write-tags cannot write into")


# Formats


@pytest.mark.parametrize("format_", STREAMS)
def test_text_goes_to_standard_output_or_a_file_alike(predict, songs, tmp_path, format_):
    code, out, err = predict(*songs, f"--format={format_}")
    assert code == 0 and "tag 1" in out and "tag 1" not in err
    code, nothing, _ = predict(*songs, f"--format={format_}", "-o", tmp_path / "new" / "out")
    assert (code, nothing) == (0, "")
    written = (tmp_path / "new" / "out").read_bytes()
    assert without_time(written) == without_time(out.encode())


@pytest.mark.parametrize("format_", FOLDERS)
def test_other_formats_write_a_file_for_each_input(predict, songs, tmp_path, format_):
    output = tmp_path / "out"
    assert predict(songs[0].parent, f"--format={format_}", "-o", output)[:2] == (0, "")
    names = {path.relative_to(output).with_suffix("") for path in output.rglob("*.*")}
    assert names == {Path("a"), Path("b"), Path("deeper/c")}


def test_files_may_be_written_into_the_working_directory(predict, songs, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):
        assert predict(songs[0], "--format=npz", "-o", ".")[0] == 0
    assert [path.name for path in Path().iterdir()] == ["a.npz"]


def test_parquet_has_the_rows_of_csv(predict, songs, tmp_path):
    import pyarrow.parquet

    predict(*songs, "--format=parquet", "-o", tmp_path / "a.parquet")
    _, out, _ = predict(*songs, "--format=csv")
    found = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    wanted = table_rows(out)
    assert [(row["path"], row["tag"], f"{row['score']:.6f}") for row in found] == [
        (row["path"], row["tag"], row["score"]) for row in wanted
    ]


@pytest.mark.parametrize("format_", ["parquet", *FOLDERS])
def test_what_is_no_text_for_a_terminal_needs_an_output(refusal, songs, format_):
    assert "give --output" in refusal(songs[0], f"--format={format_}")


def test_a_missing_output_is_told_before_the_model_is_looked_for(tmp_path, songs):
    done = program(tmp_path / "no-model", songs[0], "--format=npz")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"give --output FOLDER" in done.stderr


# Which tags


def test_top_k_limits_the_tags(predict, songs):
    _, out, _ = predict(songs[0], "--format=csv", "--top-k=2")
    assert len(table_rows(out)) == 2


def test_a_threshold_limits_the_tags(predict, model, songs):
    prediction = model.predict(songs[0])
    (best, _), (second, score) = (tag.values() for tag in prediction.top(2))
    _, out, _ = predict(songs[0], "--format=csv", f"--threshold={score}")
    assert [row["tag"] for row in table_rows(out)] == [best, second]


def test_the_automatic_threshold_is_the_models_own(predict, model, songs):
    prediction = model.predict(songs[0])
    wanted = {
        tag
        for tag, score, limit in zip(
            prediction.tags, prediction.scores, prediction.thresholds, strict=True
        )
        if score >= (0.5 if np.isnan(limit) else limit)
    }
    _, out, _ = predict(songs[0], "--format=csv", "--threshold=auto")
    assert {row["tag"] for row in table_rows(out)} == wanted


@pytest.mark.parametrize("value", ["much", "1.5", "-0.1", "nan", ""])
def test_a_threshold_that_is_no_score_is_one_line(refusal, songs, value):
    line = refusal(songs[0], f"--threshold={value}")
    assert line == f"--threshold {value}: give a score from 0 to 1, or auto"


def test_segments_are_the_windows_with_their_times(predict, songs):
    _, out, _ = predict(songs[1], "--format=csv", "--segments", "--top-k=1")
    times = [(float(row["start"]), float(row["end"])) for row in table_rows(out)]
    np.testing.assert_allclose(times, [(0, 0.96), (0.96, 1.92), (1.92, 2.88)], atol=0.02)


def test_merged_segments_are_neighbouring_windows_over_the_threshold(predict, songs):
    _, out, _ = predict(songs[1], "--format=csv", "--merge", "--threshold=0")
    rows = table_rows(out)
    assert len(rows) == 3
    assert {(row["start"], float(row["end"]) > 2.8) for row in rows} == {("0.000000", True)}


def test_the_middle_alone_has_times_within_the_file(predict, songs, tmp_path):
    sf.write(tmp_path / "long.wav", noise(20), RATE)
    _, out, _ = predict(tmp_path / "long.wav", "--window-middle=2", "--segments", "--format=csv")
    assert sorted({float(row["start"]) for row in table_rows(out)}) == [9, 9.96]


def test_of_a_file_that_is_cut_off_may_be_missing_what_is_said(predict, tmp_path):
    path = tmp_path / "cut.wav"
    sf.write(path, noise(10), RATE)
    path.write_bytes(path.read_bytes()[:100_000])
    assert predict(path)[0] == 1
    code, out, _ = predict(path, "--most-missing=0.8", "--format=json")
    assert code == 0 and json.loads(out)[0]["missing"] == pytest.approx(0.69, abs=0.01)


@pytest.mark.parametrize("value", ["2.0", "-0.1", "nan"])
def test_a_share_that_is_none_is_one_line(refusal, songs, value):
    line = refusal(songs[0], f"--most-missing={value}")
    assert line == f"--most-missing {value}: give a share from 0 to 1"


def test_an_endless_middle_is_one_line(refusal, songs):
    line = refusal(songs[0], "--window-middle=inf")
    assert line == "--window-middle inf: give a number of seconds"


@pytest.mark.parametrize(
    "option",
    [
        "--jobs=0",
        "--top-k=0",
        "--window-middle=0",
        "--window-middle=nan",
        "--no-such",
    ],
)
def test_an_impossible_option_shows_the_usage(predict, songs, option):
    code, out, err = predict(songs[0], option)
    assert (code, out) == (2, "") and "Usage: tagger predict-tags" in err


def test_the_number_of_jobs_changes_nothing(predict, songs):
    results = {predict(*songs, "--format=json", f"--jobs={jobs}")[1] for jobs in (1, 2, 5)}
    assert len(results) == 1


# Failures


@pytest.fixture
def bad(tmp_path):
    """Files that cannot be tagged."""
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.flac").write_text("no music here " * 50)
    sf.write(folder / "half.wav", noise(2), RATE)
    whole = (folder / "half.wav").read_bytes()
    (folder / "half.wav").write_bytes(whole[: len(whole) // 2])
    sf.write(folder / "nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    (folder / "nothing").mkdir()
    names = ["empty.wav", "text.flac", "half.wav", "nan.wav", "missing.wav", "nothing"]
    return [folder / name for name in names]


@pytest.mark.parametrize("format_", ["table", "json", "jsonl", "csv", "parquet"])
def test_files_that_fail_are_rows_with_an_error_and_stop_no_other(
    predict, songs, bad, tmp_path, format_
):
    inputs = [bad[0], songs[0], *bad[1:4], songs[1], *bad[4:], songs[2]]
    output = tmp_path / "out"
    code, _, err = predict(*inputs, f"--format={format_}", "-o", output)
    assert code == 1
    failed = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == len(bad)
    for path, line in zip(bad, failed, strict=True):
        assert line.startswith(f"failed: {path}: ") and ";" in line
    content = output.read_bytes()
    if format_ == "table":
        lines = content.decode().splitlines()
        found = dict(itertools.pairwise(lines))
        errors = [found[f"{path} (failed)"].strip() for path in bad]
    elif format_ == "parquet":
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(output).to_pylist()
        errors = [row["error"] for row in rows if row["error"]]
    elif format_ == "csv":
        errors = [row["error"] for row in table_rows(content.decode()) if row["error"]]
    else:
        text = content.decode()
        records = json.loads(text) if format_ == "json" else map(json.loads, text.splitlines())
        errors = [record["error"] for record in records if "error" in record]
    assert [f"failed: {error}" for error in errors] == failed
    for path in songs:
        assert format_ == "parquet" or str(path).encode() in content


def test_a_table_on_standard_output_shows_failures_itself(predict, songs, bad):
    code, out, err = predict(songs[0], bad[0])
    assert code == 1
    assert "failed: " not in err
    assert f"{bad[0]} (failed)\n  {bad[0]}: empty file" in out


def test_files_that_fail_have_no_file_of_their_own(predict, songs, bad, tmp_path):
    code, _, err = predict(bad[0], songs[0], "--format=npz", "-o", tmp_path / "out")
    assert code == 1 and "empty file" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.npz"]


def test_only_files_that_fail_still_give_a_whole_output(predict, bad, tmp_path):
    code, _, _ = predict(*bad, "--format=json", "-o", tmp_path / "out.json")
    assert code == 1
    assert len(json.loads((tmp_path / "out.json").read_text())) == len(bad)


def test_decoders_do_not_speak_for_themselves(run, tmp_path):
    rng, whole = np.random.default_rng(0), tmp_path / "whole.mp3"
    sf.write(whole, noise(4), RATE)
    paths = []
    for number in range(20):
        content = bytearray(whole.read_bytes())
        for place in rng.integers(len(content), size=20):
            content[place] = rng.integers(256)
        paths.append(tmp_path / f"{number}.mp3")
        paths[-1].write_bytes(content)
    done = program(run, *paths)
    lines = done.stderr.decode().splitlines()
    assert lines and all(line.startswith(("warning: ", "failed: ", "tag ")) for line in lines)


def test_a_short_file_is_padded_and_says_so(predict, tmp_path):
    sf.write(tmp_path / "short.wav", noise(0.3), RATE)
    code, out, err = predict(tmp_path / "short.wav")
    assert code == 0 and "(0.3 s, padded)" in out
    assert err == f"warning: {tmp_path / 'short.wav'}: shorter than a window (0.96 s), padded\n"


def test_an_output_that_cannot_be_written_is_one_line(refusal, songs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for format_ in FORMATS:
        output = tmp_path / "file" / "out"
        assert str(tmp_path / "file") in refusal(songs[0], f"--format={format_}", "-o", output)
    for format_ in (*STREAMS, "parquet"):
        assert "is a folder" in refusal(songs[0], f"--format={format_}", "-o", tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_behind_standard_output_is_one_line(run, songs):
    with Path("/dev/full").open("wb") as full:
        command = [*PROGRAM, "--model", run, songs[0]]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=ROOT)
    assert done.returncode not in (0, -signal.SIGSEGV)
    assert b"Traceback" not in done.stderr and b"No space left" in done.stderr


@pytest.mark.parametrize("format_", STREAMS)
def test_a_reader_that_closes_early_ends_the_run_without_a_word(run, songs, tmp_path, format_):
    for number in range(200):
        shutil.copy(songs[0], tmp_path / f"copy{number}.wav")
    command = [*PROGRAM, "--model", run, tmp_path, f"--format={format_}", "--segments"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(60) != 0
    assert [line for line in said.splitlines() if not line.startswith("tag ")] == []


# Tags in files


def genres(path):
    tags = mutagen.File(path).tags
    return [] if tags is None or "TCON" not in tags else list(tags["TCON"].text)


def samples(path):
    return sf.read(path, dtype="int16")[0]


def test_tags_are_written_into_the_files_and_taken_out_again(predict, songs):
    before = [samples(path) for path in songs]
    code, _, _ = predict(*songs, "--write-tags", "--threshold=0", "--top-k=2")
    assert code == 0
    assert [len(genres(path)) for path in songs] == [2, 2, 2]
    for path, audio in zip(songs, before, strict=True):
        np.testing.assert_array_equal(samples(path), audio)
    code, out, _ = predict(*songs, "--undo-write-tags")
    assert (code, out) == (0, "3 of 3 files have their tags of before back\n")
    assert [genres(path) for path in songs] == [[], [], []]
    for path, audio in zip(songs, before, strict=True):
        np.testing.assert_array_equal(samples(path), audio)


@pytest.mark.parametrize("segments", ["--merge", "--segments"])
def test_each_tag_is_written_once_however_many_segments_it_has(predict, model, tmp_path, segments):
    quiet, loud = 1e-4 * noise(4), noise(4)
    path = tmp_path / "song.wav"
    sf.write(path, np.concatenate([loud, quiet, loud, quiet, loud]), RATE)
    wanted = [tag["label"] for tag in model.predict(path).top(threshold=0.01)]
    predict(path, "--write-tags", segments, "--threshold=0.01")
    assert genres(path) == wanted


def test_only_tags_that_apply_are_written(predict, model, songs):
    prediction = model.predict(songs[0])
    limits = np.nan_to_num(prediction.thresholds, nan=0.5)
    applying = {
        tag
        for tag, score, limit in zip(prediction.tags, prediction.scores, limits, strict=True)
        if score >= limit
    }
    predict(songs[0], "--write-tags")
    assert set(genres(songs[0])) == applying


def test_a_read_only_file_is_a_failure_and_the_others_get_their_tags(predict, songs, tmp_path):
    songs[1].chmod(stat.S_IRUSR)
    code, _, err = predict(
        *songs, "--write-tags", "--threshold=0", "--format=jsonl", "-o", tmp_path / "out"
    )
    assert code == 1
    assert f"failed: {songs[1]}: is read-only" in err
    assert [bool(genres(path)) for path in songs] == [True, False, True]
    # It is tried again next time, and it alone.
    songs[1].chmod(0o644)
    code, _, _ = predict(
        *songs, "--write-tags", "--threshold=0", "--format=jsonl", "-o", tmp_path / "out"
    )
    assert code == 0 and genres(songs[1])


@pytest.mark.parametrize("option", ["--write-tags", "--undo-write-tags"])
def test_files_of_a_home_folder_or_a_listed_folder_are_written_to_only_with_yes(
    refusal, predict, songs, tmp_path, monkeypatch, option
):
    before = [path.read_bytes() for path in songs]
    home = songs[0].parent
    (tmp_path / "list").write_text(f"{home}\n")
    with monkeypatch.context() as patch:
        patch.setenv("HOME", str(home))
        assert "is a home folder" in refusal(home, option)
    assert "within the list" in refusal("--files-from", tmp_path / "list", option)
    assert [path.read_bytes() for path in songs] == before
    code, _, _ = predict("--files-from", tmp_path / "list", option, "--yes", "--threshold=0")
    assert code == 0
    assert all(genres(path) for path in songs) == (option == "--write-tags")


def test_a_dry_run_says_what_would_become_of_each_file_and_changes_none(predict, songs, tmp_path):
    before = [path.read_bytes() for path in songs]
    code, out, err = predict(*songs, "--dry-run", "--threshold=0", "--top-k=2")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 3
    assert re.fullmatch(rf"{songs[0]}: genre: \(empty\) -> tag \d; tag \d", lines[0])
    assert "would change the genre of 3 of 3 files" in err
    assert [path.read_bytes() for path in songs] == before
    predict(*songs, "--write-tags", "--threshold=0", "--top-k=2")
    code, out, err = predict(*songs, "--dry-run", "--threshold=0", "--top-k=2")
    assert all(line.endswith("(stays)") for line in out.splitlines())
    assert "would change the genre of 0 of 3 files" in err
    # A table besides, where one is asked for.
    code, out, _ = predict(*songs, "--dry-run", "--format=csv", "-o", tmp_path / "a.csv")
    assert len(out.splitlines()) == 3 and (tmp_path / "a.csv").read_text().count("\n") > 3


def moods(path):
    tags = mutagen.File(path).tags
    return [] if tags is None or "TMOO" not in tags else list(tags["TMOO"].text)


def test_tags_go_where_and_as_they_are_wanted(predict, songs, tmp_path):
    predict(*songs, "--write-tags", "--threshold=0", "--top-k=1")
    genre = genres(songs[0])
    names = tmp_path / "names.yaml"
    names.write_text("tag 0: [Calm, Blue]\ntag 1: Loud\n")
    options = ("--write-tags", "--threshold=0", "--field", "mood", "--map", names)
    code, _, err = predict(*songs, *options)
    assert code == 0 and "changed the mood of 3 of 3 files" in err
    # Tags that the map lacks are not written; values stand one by one; the genre stays.
    assert set(moods(songs[0])) == {"Calm", "Blue", "Loud"} and genres(songs[0]) == genre
    code, _, err = predict(*songs, *options, "--only-if-empty")
    assert code == 0
    code, _, _ = predict(*songs, "--undo-write-tags")
    assert (moods(songs[0]), genres(songs[0])) == ([], [])


def test_tags_may_stand_behind_what_is_there_or_leave_filled_files_alone(predict, songs):
    for path in songs[:2]:
        audio = mutagen.File(path)
        if audio.tags is None:
            audio.add_tags()
        audio.tags.add(mutagen.id3.TCON(encoding=3, text=["Mine"]))
        audio.save()
    written = ("--write-tags", "--threshold=0", "--top-k=1")
    predict(*songs, *written, "--only-if-empty")
    assert [len(genres(path)) for path in songs] == [1, 1, 1]
    assert genres(songs[0]) == ["Mine"] != genres(songs[2])
    for _ in range(2):
        predict(*songs, *written, "--append")
        assert genres(songs[0])[0] == "Mine" and len(genres(songs[0])) == 2
    predict(*songs, "--undo-write-tags")
    assert [genres(path) for path in songs] == [["Mine"], ["Mine"], []]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no lines such as"),
        ("[a, b]", "holds no lines such as"),
        ("tag 0: 5", "tag 0: give a name"),
        ("tag 0: []", "tag 0: give a name"),
        ("tga 0: Calm", "'tga 0' is no tag of this model (did you mean tag 0?)"),
    ],
)
def test_a_map_that_is_none_is_one_line(refusal, songs, tmp_path, content, message):
    path = tmp_path / "map.yaml"
    path.write_text(content)
    before = songs[0].read_bytes()
    assert message in refusal(songs[0], "--write-tags", "--map", path)
    assert "cannot be read" in refusal(songs[0], "--write-tags", "--map", tmp_path / "gone.yaml")
    assert songs[0].read_bytes() == before


def test_options_of_writing_mean_nothing_without_it(refusal, songs):
    assert "add --write-tags or --dry-run" in refusal(songs[0], "--append")
    assert "--field colour: choose one of genre" in refusal(songs[0], "--field", "colour")


def test_many_files_are_changed_after_a_question_alone(refusal, predict, songs, many, monkeypatch):
    folder = many[0].parent
    before = [path.read_bytes() for path in many]
    message = refusal(folder, "--write-tags", "--threshold=0")
    assert "150 files would be changed; look at it first with --dry-run, or give --yes" in message
    # Somebody is there, and says no; then yes.
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked = []

    def confirm(question, **_):
        asked.append(question)
        raise typer.Abort

    monkeypatch.setattr("tagger.cli.tagging._somebody_is_there", lambda: True)
    monkeypatch.setattr("typer.confirm", confirm)
    code, _, _ = predict(folder, "--write-tags", "--threshold=0")
    assert code != 0 and asked == [
        "150 files would be changed; look at it first with --dry-run. Go on?"
    ]
    assert [path.read_bytes() for path in many] == before


def test_undoing_names_files_that_cannot_be_changed(predict, songs, tmp_path):
    code, out, err = predict(songs[0], tmp_path / "gone.wav", "--undo-write-tags")
    assert (code, out) == (1, "0 of 2 files have their tags of before back\n")
    assert err == f"failed: {tmp_path / 'gone.wav'}: no such file; check the path\n"


# Pictures


def test_a_picture_of_one_file_has_the_name_that_is_given(predict, songs, tmp_path):
    code, out, _ = predict(songs[0], "--taggram", tmp_path / "pictures" / "one.png")
    assert code == 0 and "tag 0" in out
    assert (tmp_path / "pictures" / "one.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_of_several_files_lie_in_a_folder(predict, songs, tmp_path):
    code, _, _ = predict(songs[0].parent, "--taggram", tmp_path / "pictures")
    assert code == 0
    names = {str(p.relative_to(tmp_path / "pictures")) for p in tmp_path.rglob("*.png")}
    assert names == {"a.png", "b.png", "deeper/c.png"}


def test_one_picture_of_several_files_is_one_line(refusal, songs, tmp_path):
    line = refusal(*songs, "--taggram", tmp_path / "a.png")
    assert line == f"--taggram {tmp_path / 'a.png'} is one picture; give a folder for several"


def test_pictures_that_cannot_be_written_are_one_line(refusal, songs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in refusal(songs[0], "--taggram", tmp_path / "file" / "pictures")


# Going on


def spoil(path):
    """Make a file undecodable without a change of its size or time."""
    status = path.stat()
    path.write_bytes(b"\0" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def many(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    content = io.BytesIO()
    paths = [folder / f"{number:03}.wav" for number in range(150)]
    for number, path in enumerate(paths):
        if number % 10 == 0:
            content = io.BytesIO()
            sf.write(content, noise(20 + number / 10, seed=number), RATE, format="WAV")
        path.write_bytes(content.getvalue())
    return paths


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache in which nothing is kept yet."""
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def n_kept(cache):
    """Files of which something is kept."""
    if not (cache / FILE).exists():
        return 0
    with contextlib.closing(sqlite3.connect(cache / FILE)) as database:
        try:
            return database.execute("SELECT COUNT(*) FROM kept").fetchone()[0]
        except sqlite3.OperationalError:
            # It is being made.
            return 0


def kill_half_way(run, many, output, cache, *options):
    """Kill a run with SIGKILL after it has done some of its files; how many."""
    command = [*PROGRAM, "--model", run, many[0].parent, "-o", output, "--jobs=1", *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while n_kept(cache) < 20 and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    n_done = n_kept(cache)
    assert 20 <= n_done < len(many)
    return n_done


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals of POSIX")
@pytest.mark.parametrize(
    "format_",
    quick_some(["csv", "json", "jsonl", "table", "parquet", "npz", "audacity"], ["jsonl"]),
)
def test_a_killed_run_goes_on_where_it_was_and_ends_as_if_it_never_had(
    run, predict, many, tmp_path, cache, format_
):
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert predict(many[0].parent, f"--format={format_}", "-o", whole)[0] == 0
    shutil.rmtree(cache)
    n_done = kill_half_way(run, many, output, cache, f"--format={format_}")
    if format_ not in FOLDERS:
        assert not output.exists()
    # They are done in order.
    for path in sorted(many)[:n_done]:
        spoil(path)
    code, _, err = predict(many[0].parent, f"--format={format_}", "-o", output)
    # Files that were done would fail now.
    assert code == 0 and "failed:" not in err
    if format_ == "parquet":
        import pyarrow.parquet

        found, wanted = (pyarrow.parquet.read_table(path) for path in (output, whole))
        assert found.equals(wanted)
    elif format_ in FOLDERS:
        names = {path.name for path in whole.iterdir()}
        assert {path.name for path in output.iterdir()} >= names and len(names) == len(many)
        for name in names:
            if format_ == "npz":
                found, wanted = np.load(output / name), np.load(whole / name)
                np.testing.assert_array_equal(found["taggram"], wanted["taggram"])
            else:
                assert (output / name).read_bytes() == (whole / name).read_bytes()
    else:
        assert without_time(output.read_bytes()) == without_time(whole.read_bytes())


@pytest.fixture
def again(predict, songs, tmp_path, cache, monkeypatch):
    """Tag the songs into the same output once more: which of them were tagged anew."""
    output = tmp_path / "out.jsonl"
    attempt = Tagger.attempt_many

    def call(*options):
        asked = []

        def remember(self, paths, **more):
            asked.extend(paths)
            return attempt(self, paths, **more)

        monkeypatch.setattr(Tagger, "attempt_many", remember)
        code, _, err = predict(*songs, "--format=jsonl", "-o", output, *options)
        assert code == 0
        assert paths_of(output.read_text()) == list(map(str, songs))
        assert re.search(rf"wrote \d+ rows of 3 files to {output}", err)
        return [Path(path).name for path in asked]

    return call


def test_what_is_done_is_not_tagged_again(again):
    assert again() == ["a.wav", "b.wav", "c.wav"]
    assert again() == []


def test_a_file_that_has_changed_is_tagged_again_and_it_alone(again, songs):
    again()
    status = songs[1].stat()
    os.utime(songs[1], ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    assert again() == ["b.wav"]


def test_overwriting_tags_all_files_again(again):
    again()
    assert again("--overwrite") == ["a.wav", "b.wav", "c.wav"]


def test_another_choice_of_the_same_scores_tags_nothing_again(again, predict, songs, tmp_path):
    again()
    for option in ("--top-k=1", "--threshold=0.1", "--segments", "--merge"):
        assert again(option) == []
    for path in songs:
        spoil(path)
    output = tmp_path / "other.csv"
    code, _, err = predict(*songs, "--format=csv", "-o", output, "--top-k", "2")
    assert code == 0 and f"wrote 6 rows of 3 files to {output}" in err


def test_other_audio_of_the_files_is_tagged(again):
    again()
    assert again("--window-middle=1") == ["a.wav", "b.wav", "c.wav"]
    assert again("--window-middle=1") == []


def test_nothing_lies_beside_a_finished_output(again, tmp_path):
    again()
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"out.jsonl"}


def test_tags_asked_for_later_are_written_into_files_that_are_done(again, songs):
    again()
    again("--write-tags")
    with_tags = [genres(path) for path in songs]
    assert any(with_tags)
    assert again("--write-tags") == []


def test_pictures_asked_for_later_are_drawn_of_files_that_are_done(again, tmp_path):
    again()
    again("--taggram", str(tmp_path / "pictures"))
    assert len(list((tmp_path / "pictures").iterdir())) == 3
    assert again("--taggram", str(tmp_path / "pictures")) == []


def test_a_file_that_failed_is_tried_again(predict, songs, tmp_path):
    output = tmp_path / "out.jsonl"
    kept = songs[1].read_bytes()
    songs[1].write_bytes(b"no audio")
    assert predict(*songs, "--format=jsonl", "-o", output)[0] == 1
    songs[1].write_bytes(kept)
    assert predict(*songs, "--format=jsonl", "-o", output)[0] == 0
    assert all("error" not in json.loads(line) for line in output.read_text().splitlines())


def test_ctrl_c_ends_with_130_and_leaves_no_half_output(run, many, tmp_path, cache):
    output = tmp_path / "out.csv"
    command = [*PROGRAM, "--model", run, many[0].parent, "-o", output, "--format=csv", "--jobs=1"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while n_kept(cache) < 5 and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert {path.name for path in tmp_path.iterdir()} == {"many", "cache"}


# Hours of audio, and many files

PEAK = """
import re, sys
from pathlib import Path
from tagger.cli.main import main
try:
    main(["predict-tags"])
except SystemExit as stop:
    assert not stop.code, stop.code
print("PEAK", re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory as Linux tells it")
@pytest.mark.parametrize("n_files", quick_some([1, 3], [1]))
def test_files_of_three_hours_take_less_than_600_mb(run, tmp_path, n_files):
    n_frames = 3 * 3600 * RATE
    sf.write(tmp_path / "0.wav", np.zeros(1, np.int16), RATE, subtype="PCM_16")
    header = bytearray((tmp_path / "0.wav").read_bytes()[:44])
    header[4:8] = (36 + 2 * n_frames).to_bytes(4, "little")
    header[40:44] = (2 * n_frames).to_bytes(4, "little")
    for number in range(n_files):
        # A hole in the file, which takes no room on the disk.
        with (tmp_path / f"{number}.wav").open("wb") as file:
            file.write(header)
            file.truncate(44 + 2 * n_frames)
    command = [sys.executable, "-c", PEAK, tmp_path, "--model", run, "--format=jsonl", "--jobs=4"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    *records, peak = done.stdout.splitlines()
    assert [json.loads(line)["seconds"] for line in records] == [3 * 3600] * n_files
    assert int(peak.removeprefix("PEAK ")) < 600_000
    for number in range(n_files):
        (tmp_path / f"{number}.wav").unlink()


# Which model


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory without runs, and no model in the environment."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TAGGER_MODEL", raising=False)
    return folder


@pytest.fixture
def bare(monkeypatch, capfd):
    """Run the verb without --model."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tagger", "predict-tags", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return (caught.value.code or 0, *capfd.readouterr())

    return call


def test_the_environment_names_the_model(elsewhere, bare, run, songs, monkeypatch):
    monkeypatch.setenv("TAGGER_MODEL", str(run))
    code, out, err = bare(songs[0])
    assert (code, err) == (0, f"model: {run}\n") and "tag 0" in out


def test_without_any_run_the_published_model_is_used_and_named(
    elsewhere, bare, songs, musicnn_cache, monkeypatch
):
    monkeypatch.setenv("TAGGER_CACHE", str(musicnn_cache))
    code, out, err = bare(songs[2], "--format=json")
    assert (code, err) == (0, "model: musicnn-mtt\n")
    (found,) = json.loads(out)
    assert len(found["tags"]) == 10


def test_a_model_that_does_not_exist_is_one_line(predict, songs, tmp_path, refusal):
    line = refusal(songs[0], "--model", tmp_path / "gone")
    assert line.startswith(f"{tmp_path / 'gone'}: no such folder, and no registered model")


def test_a_quantization_that_is_none_is_one_line(refusal, songs):
    assert refusal(songs[0], "--quantize=int3").startswith("--quantize int3: choose one of none")
