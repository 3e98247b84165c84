"""Promises of the verb embed: one file with the embeddings of all inputs, or none."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from signals import RATE, noise
from small_model import small_run

from tagger.tagging.tagger import Tagger

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run(tmp_path_factory)


@pytest.fixture(scope="module")
def model(run):
    return Tagger.load(run)


@pytest.fixture
def songs(tmp_path):
    paths = [tmp_path / name for name in ("a.wav", "b.wav")]
    for number, path in enumerate(paths):
        sf.write(path, noise(2 + number, seed=number), RATE)
    return paths


@pytest.fixture
def embed(run, command):
    """Run the verb in this process: exit code, stdout, stderr."""
    return partial(command, "embed", "--model", run)


def read(path):
    """Rows of either format: paths, starts, vectors, and the errors by path."""
    if path.suffix == ".npz":
        with np.load(path) as content:
            errors = dict(zip(content["failed_paths"], content["errors"], strict=True))
            return list(content["paths"]), content["start_seconds"], content["embeddings"], errors
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(path).to_pylist()
    good = [row for row in rows if row["error"] is None]
    return (
        [row["path"] for row in good],
        np.array([row["start_seconds"] for row in good]),
        np.array([row["embedding"] for row in good], np.float32),
        {row["path"]: row["error"] for row in rows if row["error"] is not None},
    )


@pytest.fixture(params=[".npz", ".parquet"])
def output(request, tmp_path):
    return tmp_path / "new" / f"out{request.param}"


def test_each_window_has_a_row_in_the_order_of_the_inputs(embed, model, songs, output):
    code, out, _ = embed(songs[1], songs[0], "-o", output)
    assert (code, out) == (0, f"{output}: 2 files, 0 failed\n")
    paths, starts, values, errors = read(output)
    wanted = [model.embed(path) for path in (songs[1], songs[0])]
    assert paths == [str(songs[1])] * 3 + [str(songs[0])] * 2
    np.testing.assert_array_equal(values, np.concatenate([found.values for found in wanted]))
    np.testing.assert_array_equal(starts, np.concatenate([found.times for found in wanted]))
    assert errors == {}


def test_the_mean_is_one_row_for_each_file(embed, model, songs, output):
    embed(*songs, "--mean", "-o", output)
    paths, starts, values, _ = read(output)
    assert paths == list(map(str, songs))
    np.testing.assert_array_equal(starts, [0, 0])
    np.testing.assert_array_equal(values, [model.embed(path).mean() for path in songs])


def test_another_layer_may_be_asked_for(embed, model, songs, output):
    embed(songs[0], "--layer=pooled", "-o", output)
    np.testing.assert_array_equal(read(output)[2], model.embed(songs[0], layer="pooled").values)


def test_the_middle_alone_has_times_within_the_file(embed, tmp_path, output):
    sf.write(tmp_path / "long.wav", noise(20), RATE)
    embed(tmp_path / "long.wav", "--window-middle=2", "-o", output)
    np.testing.assert_allclose(read(output)[1], [9, 9.96])


def test_files_that_fail_are_named_and_stop_no_other(embed, songs, tmp_path, output):
    gone = tmp_path / "gone.wav"
    code, out, err = embed(gone, *songs, "-o", output)
    assert (code, out) == (1, f"{output}: 2 files, 1 failed\n")
    assert f"failed: {gone}: no such file; check the path\n" in err
    paths, _, _, errors = read(output)
    assert set(paths) == set(map(str, songs))
    assert errors == {str(gone): f"{gone}: no such file; check the path"}


def test_only_files_that_fail_still_give_a_whole_output(embed, model, tmp_path, output):
    assert embed(tmp_path / "gone.wav", "-o", output)[0] == 1
    paths, _, _, errors = read(output)
    assert (paths, len(errors)) == ([], 1)


def test_an_archive_without_rows_has_their_width(embed, model, tmp_path):
    embed(tmp_path / "gone.wav", "-o", tmp_path / "out.npz")
    width = model.model.output_sizes["penultimate"]
    assert read(tmp_path / "out.npz")[2].shape == (0, width)


def test_an_output_says_which_model_and_layer_it_is_of(embed, model, songs, tmp_path):
    import pyarrow.parquet

    wanted = f"{model.model.name} {model.model.version}"
    embed(songs[0], "-o", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as content:
        assert (str(content["layer"]), str(content["model"])) == ("penultimate", wanted)
    embed(songs[0], "-o", tmp_path / "out.parquet")
    metadata = pyarrow.parquet.read_schema(tmp_path / "out.parquet").metadata
    assert (metadata[b"layer"], metadata[b"model"]) == (b"penultimate", wanted.encode())


@pytest.mark.parametrize("content", ["audio", b"no audio"])
def test_audio_may_come_through_standard_input(run, songs, output, content):
    audio = songs[0].read_bytes() if content == "audio" else content
    command = [sys.executable, "-m", "tagger", "embed", "--model", run, "-", songs[1], "-o", output]
    done = subprocess.run(command, input=audio, capture_output=True, cwd=ROOT)
    paths, _, _, errors = read(output)
    if content == "audio":
        assert done.returncode == 0
        assert paths == ["-"] * 2 + [str(songs[1])] * 3
    else:
        assert done.returncode == 1
        assert paths == [str(songs[1])] * 3
        assert list(errors) == ["-"] and errors["-"].startswith("-: not decodable audio")


def test_names_that_are_no_unicode_are_escaped(run, songs, output):
    path = os.fsencode(songs[0].parent) + b"/s\xffng.wav"
    songs[0].rename(os.fsdecode(path))
    command = [sys.executable, "-m", "tagger", "embed", "--model", run, path, "-o", output]
    assert subprocess.run(command, capture_output=True, cwd=ROOT).returncode == 0
    assert {name.rpartition("/")[2] for name in read(output)[0]} == {"s\\udcffng.wav"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out.csv"], "--output out.csv: name a file that ends in .npz or .parquet"),
        (["-o", "out.npz", "--layer=first"], "has no embedding 'first'; choose one of"),
        (["-o", "out.npz", "--layer=scores"], "has no embedding 'scores'; choose one of"),
        (["-o", "out.npz", "--quantize=int3"], "--quantize int3: choose one of none"),
        (["-o", "out.npz", "--window-middle=inf"], "--window-middle inf: give a number"),
        (["-o", "out.npz", "--model=gone"], "gone: no such folder, and no registered model"),
        (["-o", "out.npz", "-", "--files-from=-"], "both read standard input"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_no_file(
    embed, songs, tmp_path, monkeypatch, arguments, message
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, out, err = embed(songs[0], *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: ") and message in err
    assert list(Path().iterdir()) == []


def test_an_output_is_needed(embed, songs):
    code, out, err = embed(songs[0])
    assert (code, out) == (2, "") and "--output" in err


def test_an_output_that_cannot_be_written_is_one_line(embed, songs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for name in ("out.npz", "out.parquet"):
        code, out, err = embed(songs[0], "-o", tmp_path / "file" / name)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert str(tmp_path / "file") in err


def test_an_output_that_is_broken_off_is_absent(embed, songs, output, monkeypatch):
    from tagger.tagging.tagger import Tagger

    def broken(*_, **__):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Tagger, "attempt_embed_many", broken)
    code, out, err = embed(*songs, "-o", output)
    assert (code, out) == (130, "")
    assert list(output.parent.iterdir()) == []
    assert "Exception ignored" not in err


@pytest.mark.parametrize("given", [["penultimate", "pooled"], ["pooled", "embedding"]])
def test_by_default_it_is_the_penultimate_layer_or_else_the_first(model, monkeypatch, given):
    monkeypatch.setattr(model, "embeddings", given)
    assert model.default_layer == given[0]
