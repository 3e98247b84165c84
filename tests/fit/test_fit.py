"""Promises of learning one's own labels on what a pretrained model says."""

import contextlib
import csv
import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from signals import RATE, noise, sine
from small_bundle import make_bundle

from tagger.base.errors import ConfigError, ModelError
from tagger.bundle.find import find_bundle, newest_run
from tagger.bundle.read import Bundle
from tagger.config import load_config
from tagger.fit.fit_run import fit_run
from tagger.tagging.kept import FILE
from tagger.tagging.tagger import Tagger

SOUNDS = {
    "high": lambda seed: sine(3000 + 60 * seed, 2.0, amplitude=0.5),
    "low": lambda seed: sine(200 + 5 * seed, 2.0, amplitude=0.5),
    "noise": lambda seed: noise(2.0, seed=seed, amplitude=0.2),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A bundle with fresh weights: even these tell a whistle from a hum."""
    root = tmp_path_factory.mktemp("base") / "bundle"
    make_bundle(root)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("TAGGER_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """Three labels with eight clips each."""
    root = tmp_path_factory.mktemp("music")
    for label, sound in SOUNDS.items():
        (root / label).mkdir()
        for number in range(8):
            clip = sound(number) + noise(2.0, seed=50 + number, amplitude=0.02)
            sf.write(root / label / f"{number}.wav", clip, RATE)
    return root


@pytest.fixture(scope="module")
def tags_csv(music):
    """The same clips with several tags each, or none."""
    rows = [("path", "tags", "artist")]
    for label in SOUNDS:
        for number in range(8):
            tags = {"high": ["tone", "high"], "low": ["tone"], "noise": []}[label]
            rows.append((f"{label}/{number}.wav", ";".join(tags), f"{label} {number // 2}"))
    path = music / "mine.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def train(command, base, tmp_path):
    def call(source, *arguments, run=tmp_path / "run"):
        return command("train", source, "--output", run, "--on", base, *arguments)

    return call


def test_folders_of_music_become_a_model_of_labels_with_a_verdict(
    train, music, tmp_path, command, without_pictures
):
    run = tmp_path / "run"
    code, out, err = train(music)
    assert code == 0
    assert "task: single_label, as each clip has one label" in err
    assert "24 clips, 3 labels; linear on" in err
    *_, verdict, following = out.strip().splitlines()
    assert re.match(r"accuracy (0\.9\d|1\.00), always the most frequent label 0\.33: good", verdict)
    assert "3 of 3 labels have fewer than 10 clips" in verdict
    assert following == f"next: tagger tag SONG --model {run}"
    code, out, _ = command("predict-tags", "--model", run, music / "low/3.wav", "--format", "jsonl")
    (line,) = (json.loads(line) for line in out.splitlines() if "path" in line)
    assert code == 0
    assert [tag["label"] for tag in line["tags"]] in (["low"], ["unknown"])
    metrics = json.loads((run / "evaluation/folds/metrics.json").read_text())
    assert metrics["accuracy"] > 0.9 and len(metrics["confusion"]) == 3
    assert (run / "evaluation/folds/report.html").exists()


def test_several_tags_become_a_model_of_tags_by_artist(train, tags_csv, tmp_path):
    code, out, err = train(tags_csv)
    assert code == 0, err
    assert "task: multilabel, as clips have several tags or none" in err
    assert "PR-AUC" in out.strip().splitlines()[-2]
    rows = list(csv.DictReader((tmp_path / "run/split.csv").open()))
    folds = {}
    for row in rows:
        label, _, name = row["path"].partition("/")
        folds.setdefault((label, int(name[0]) // 2), set()).add(row["part"])
    assert len(folds) == 12
    assert {len(parts) for parts in folds.values()} == {1}


def test_the_middle_of_clips_is_all_that_is_learned_from_and_the_next_command_says_so(
    train, music, tmp_path, command, without_pictures
):
    code, out, _ = train(music, "--window-middle", "1", "--set", "model.clip_head.name=classifier")
    assert code == 0
    following = out.strip().splitlines()[-1]
    model = f"--model {tmp_path / 'run'}"
    assert following == f"next: tagger tag SONG {model} --window-middle 0.96"
    assert load_config(tmp_path / "run/config.yaml").fit.middle_seconds == 1
    for wrong, message in [
        (("--window-middle", "nan"), "--window-middle"),
        (("--window-middle", "1", "--set", "fit.middle_windows=1"), "say the same"),
    ]:
        code, _, err = train(music, *wrong, run=tmp_path / "other")
        assert code == 2 and message in err, err


def test_clips_are_heard_once(train, music, monkeypatch, tmp_path, without_pictures):
    assert train(music)[0] == 0
    first = np.load(tmp_path / "run/evaluation/folds/scores.npz")["est"]

    def nothing(*_, **__):
        raise AssertionError("heard again")

    monkeypatch.setattr(Tagger, "attempt_outputs", nothing)
    assert train(music)[0] == 0
    np.testing.assert_array_equal(
        np.load(tmp_path / "run/evaluation/folds/scores.npz")["est"], first
    )


def test_a_clip_that_has_changed_is_heard_again(train, music, tmp_path, cache, without_pictures):
    copied = tmp_path / "copied"
    for label in SOUNDS:
        (copied / label).mkdir(parents=True)
        for path in (music / label).iterdir():
            (copied / label / path.name).write_bytes(path.read_bytes())
    assert train(copied)[0] == 0
    database = cache / FILE
    n_kept = n_rows(database)
    sf.write(copied / "low/0.wav", sine(150, 2.5), RATE)
    assert train(copied)[0] == 0
    assert n_rows(database) == n_kept + 1


def n_rows(database):
    with contextlib.closing(sqlite3.connect(database)) as opened:
        return opened.execute("SELECT COUNT(*) FROM kept").fetchone()[0]


def test_a_clip_that_cannot_be_read_is_named_and_stops_no_other(
    train, music, tmp_path, without_pictures
):
    rows = ["path,tags", "gone.wav,low"]
    rows += [f"{label}/{n}.wav,{label}" for label in SOUNDS for n in range(8)]
    (music / "with_one_gone.csv").write_text("\n".join(rows) + "\n")
    code, out, err = train(music / "with_one_gone.csv")
    assert code == 1
    assert len([line for line in err.splitlines() if line.startswith("failed: ")]) == 1
    assert "gone.wav" in err
    assert "24 clips, 3 labels" in " ".join(out.split())


def test_the_bundle_is_one_like_any_other(train, music, base, tmp_path, command, without_pictures):
    assert train(music)[0] == 0
    run = tmp_path / "run"
    bundle = find_bundle(run)
    assert bundle.tags() == ("high", "low", "noise")
    assert bundle.vocabulary().members == (("high",), ("low",), ("noise",))
    tagger = Tagger.load(run)
    found = tagger.predict(music / "high/1.wav")
    assert found.scores.sum() == pytest.approx(1, abs=1e-3)
    assert found.tags[int(found.scores.argmax())] == "high"
    kept = Tagger.load(base).embed(music / "high/1.wav").values
    np.testing.assert_array_equal(tagger.embed(music / "high/1.wav").values, kept)
    code, out, _ = command("evaluate", run, "--draws", "0")
    assert (code, "24 clips, 3 labels" in " ".join(out.split())) == (0, True)
    code, out, _ = command("compare", run, run, "--draws", "300")
    assert code == 0 and "McNemar" in out
    for model, form in ((run, "litert"), (run / "bundle", "savedmodel")):
        code, out, err = command("export", model, "--format", form)
        assert code == 0, err
    assert {export.format for export in Bundle(run / "bundle").exports} == {"litert", "savedmodel"}
    for described in (run, run / "bundle"):
        assert "clip head: linear on" in command("info", described)[1]
    code, _, err = command("calibrate", run)
    assert code == 2 and "fit it again (tagger train MUSIC)" in err


@pytest.mark.parametrize(
    ("head", "settings"),
    [("xgboost", []), ("rbf_svm", ["--set", "model.clip_head.params.over=windows"])],
)
def test_a_bundle_with_a_classifier_is_one_like_any_other(
    train, music, base, tmp_path, command, without_pictures, monkeypatch, head, settings
):
    run = tmp_path / "run"
    code, out, err = train(music, "--head", head, *settings)
    assert code == 0, err
    assert re.search(r"accuracy (0\.9\d|1\.00)", out.splitlines()[-2])
    parity = f"{head} with .*; ONNX and scikit-learn differ by at most .*, with 0 of"
    assert re.search(parity, err) and re.search(parity, command("info", run / "bundle")[1])
    for name in ("max_depth",) if head == "xgboost" else ("C",):
        assert f"{head} with {name}" in (run / "bundle/MODEL_CARD.md").read_text()
    tagger = Tagger.load(run)
    found = tagger.predict(music / "high/1.wav")
    assert found.tags[int(found.scores.argmax())] == "high"
    assert found.taggram.shape[1] == 3 and found.scores.sum() == pytest.approx(1, abs=1e-3)
    kept = Tagger.load(base).embed(music / "high/1.wav").values
    np.testing.assert_array_equal(tagger.embed(music / "high/1.wav").values, kept)
    code, out, _ = command("predict-tags", "--model", run, music / "low/3.wav", "--segments")
    assert code == 0 and "low" in out
    assert command("embed", "--model", run, "-o", tmp_path / "e.npz", music / "low/3.wav")[0] == 0
    assert command("evaluate", run, "--draws", "0")[0] == 0
    assert command("compare", run, run, "--evaluation", "folds", "--draws", "300")[0] == 0
    assert (run / "evaluation/folds/report.html").exists()
    code, _, err = command("export", run / "bundle", "--format", "savedmodel")
    assert code == 0, err
    assert Tagger.load(run).predict(music / "high/1.wav").scores == pytest.approx(found.scores)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, err = command("predict-tags", "--model", run, music / "low/3.wav")
    assert code == 2 and re.search(r"needs onnxruntime, .*\[classifiers\]'", err)


def test_several_tags_are_learned_by_a_classifier_that_a_config_chooses(
    train, tags_csv, tmp_path, without_pictures
):
    config = tmp_path / "svm.yaml"
    config.write_text(
        "model: {clip_head: {name: classifier, params: {classifier: linear_svm, over: vote,\n"
        "  classifier_params: {c: [0.01]}, layers: [penultimate]}}}\n"
    )
    code, out, err = train(tags_csv, "--config", config)
    assert code == 0, err
    assert "PR-AUC" in out.strip().splitlines()[-2]
    head = find_bundle(tmp_path / "run").clip_head()
    assert head.params.classifier_params == {"pca": None, "c": (0.01,)}
    assert (head.params.over, head.params.link) == ("vote", "sigmoid")
    assert head.outputs == ("penultimate",)
    # Another classifier begins with its own parameters.
    other = load_config(config, ["model.clip_head.params.classifier=xgboost"])
    assert "depth" in other.model.clip_head.params["classifier_params"]


def test_an_unknown_head_is_refused_with_those_that_there_are(train, music):
    code, _, err = train(music, "--head", "svm")
    assert code == 2 and "unknown head 'svm'; known: linear, gradient_boosting" in err


def test_a_fitted_run_is_hinted_at(train, music, tmp_path, monkeypatch):
    assert train(music, run=tmp_path / "runs/mine")[0] == 0
    monkeypatch.chdir(tmp_path)
    assert newest_run() == Path("runs/mine")


def test_no_tensorflow_is_needed(music, base, tmp_path):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['tensorflow', 'tf_keras', 'keras'])); "
        "from tagger.cli import main; main.main()"
    )
    arguments = ["train", str(music), "--output", str(tmp_path / "run"), "--on", str(base)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "next: tagger tag" in done.stdout


def test_a_config_says_all_of_it(music, base, tmp_path, command, without_pictures):
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"data: {{name: folders, root: {music}}}\n"
        f"run: {{root: {tmp_path / 'run'}}}\n"
        f"fit: {{model: {base}, folds: 3, tested_folds: 1}}\n"
        "task: {name: single_label}\n"
        "model: {clip_head: {name: linear, params: {layers: [penultimate], link: softmax}}}\n"
    )
    code, out, _ = command("train", "--config", path)
    assert code == 0
    assert "8 clips, 3 labels" in " ".join(out.split())
    again = load_config(tmp_path / "run/config.yaml")
    assert again.fit.folds == 3 and again.model.clip_head.params["layers"] == ("penultimate",)
    assert again.model.backbone.name == "tiny"


def refusal(*arguments, command):
    code, _, err = command(*arguments)
    assert code == 2
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    return line


def test_what_cannot_be_learned_from_is_refused(music, base, tmp_path, command, tags_csv):
    def said(source, *options):
        return refusal("train", source, *options, "--on", base, command=command)

    run = ("--output", tmp_path / "run")
    assert "no such folder or file" in said(tmp_path / "gone", *run)
    assert "needs --output" in said(music)
    (tmp_path / "list.txt").write_text("a")
    assert "or a .csv file with the columns" in said(tmp_path / "list.txt", *run)
    assert "labels, and" in said(tags_csv, *run, "--task", "single_label")
    assert "unknown task" in said(music, *run, "--task", "genre")
    assert "ask for fewer folds" in said(music, *run, "--set", "fit.folds=40")
    assert "has no embedding 'gone'" in said(
        music,
        *run,
        "--set",
        "model.clip_head.name=linear",
        "--set",
        "model.clip_head.params.layers=[gone]",
    )
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_something_else_is_left_alone(train, music, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/song.wav").write_bytes(b"mine")
    code, _, err = train(music)
    assert code == 2 and "is no run and not empty; choose another folder" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["song.wav"]


def test_a_trained_run_is_never_written_over(train, music, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text('{"format_version": 1}')
    code, _, err = train(music)
    assert code == 2 and "holds a run that was trained, not fitted" in err


def test_a_base_without_embeddings_or_that_is_gone_is_named(music, tmp_path):
    config = load_config(
        None,
        [f"data.root={music}", "data.name=folders", f"run.root={tmp_path / 'run'}"]
        + [f"fit.model={tmp_path / 'gone'}", "task.name=single_label"],
    )
    with pytest.raises(ModelError, match="gone: no such folder"):
        fit_run(config)
    with pytest.raises(ConfigError):
        load_config(None, ["fit.folds=1"])
