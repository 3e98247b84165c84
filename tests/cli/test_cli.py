"""Promises of the command line: exit codes, what goes where, and errors of one line."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from small_store import make_store, small_config

from preprocess.clips.vocabulary import resolve_vocabulary
from tagger.cli import main as cli
from tagger.runs import folder as run_folder
from tagger.runs.folder import RunFolder

# What a report shows is tested elsewhere.
pytestmark = pytest.mark.usefixtures("without_pictures")

ROOT = Path(__file__).parents[2]
VERBS = [
    "preprocess",
    "train",
    "evaluate",
    "compare",
    "calibrate",
    "tag",
    "embed",
    "export",
    "models",
    "study",
    "search",
    "config",
    "cache",
    "info",
    "demo-corpus",
    "fetch-magnatagatune",
]


@pytest.fixture
def tagger(monkeypatch, capfd):
    """Run a command line in this process: exit code, stdout, stderr."""

    def run(*arguments, first=()):
        monkeypatch.setattr(sys, "argv", ["tagger", *map(str, arguments)])
        capfd.readouterr()
        try:
            cli.main(list(first))
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def refusal(tagger):
    """Run a command that must fail: the one line that it says."""

    def run(*arguments):
        code, out, err = tagger(*arguments)
        lines = err.splitlines()
        assert (code, out, len(lines)) == (2, "", 1), err
        assert lines[0].startswith("error: ")
        return lines[0]

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with first weights on a small store, as if it had been trained."""
    from tagger.network.model import build_model

    folder = tmp_path_factory.mktemp("cli")
    store = make_store(folder / "store", n_clips=32)
    config = small_config(folder)
    vocabulary = resolve_vocabulary(store.index, "all")
    run = RunFolder(folder / "run")
    run.start(
        config,
        vocabulary,
        index=store.index,
        parts=np.array(["train", "validation", "test", "test"] * 8),
        description={
            "n_clips": 32,
            "device": {"kind": "CPU", "description": "some CPU"},
            "precision": "float32",
        },
    )
    build_model(config, config.make_front_end(), vocabulary.tags).save_weights(run.best_weights)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run that a test may damage."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def scores(tmp_path):
    """A file of scores of three tags, the second without positives."""
    labels = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]], np.uint8)
    path = tmp_path / "scores.npz"
    np.savez(path, est=labels * 0.5 + 0.2, gt=labels, tags=np.array(["a", "b", "c"]))
    return path


# Help


HELP = """
import sys
sys.argv = ["tagger", *sys.argv[1:], "--help"]
from tagger.cli.main import main
try:
    main()
finally:
    print({name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""
# What help of any verb may need besides Python's own.
LIGHT = {
    *("__main__", "tagger", "preprocess", "typer", "shellingham", "annotated_doc"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
}


@pytest.mark.parametrize(
    "verb", [[], ["predict-tags"], *([verb] for verb in VERBS)], ids=lambda verb: "".join(verb)
)
def test_help_imports_nothing_heavy(verb):
    done = subprocess.run(
        [sys.executable, "-c", HELP, *verb], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "Usage: tagger" in done.stdout
    brought = ast.literal_eval(done.stderr) - sys.stdlib_module_names - LIGHT
    # Names of what an installation adds to every start of Python begin so.
    assert {name for name in brought if not name.startswith("_")} == set()


def test_help_names_every_verb(tagger):
    code, out, _ = tagger("--help")
    assert code == 0
    assert all(f"\n  {verb} " in out for verb in VERBS)


@pytest.mark.parametrize(
    ("module", "verb"), [("preprocess", "preprocess"), ("tagger.train", "train")]
)
def test_a_module_run_by_itself_is_the_same_command(module, verb):
    said = [
        subprocess.run(
            [sys.executable, "-m", *command, "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        ).stdout
        for command in ([module], ["tagger", verb])
    ]
    assert said[0] == said[1] != ""


# Exit codes and streams


def test_a_command_that_succeeds_exits_with_0_and_says_nothing_on_stderr(tagger, scores):
    code, out, err = tagger("evaluate", scores)
    assert (code, err) == (0, "")
    assert "2 of 3 tags scored (1 without positives or negatives left out)" in " ".join(out.split())


def test_json_on_stdout_is_one_document(tagger, scores):
    code, out, err = tagger("evaluate", scores, "--format", "json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert content["roc_auc_macro"] == 1.0
    assert [tag["tag"] for tag in content["tags"]] == ["a", "b", "c"]


def test_a_file_name_that_is_no_unicode_is_shown_escaped(scores):
    path = os.fsencode(scores.parent) + b"/sc\xffres.npz"
    shutil.copyfile(scores, path)
    command = [sys.executable, "-m", "tagger", "evaluate", path, "--format", "json"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert os.fsencode(json.loads(done.stdout)["source"]) == path


def test_results_go_to_stdout_and_progress_to_stderr(tagger, trained, run):
    code, out, err = tagger("evaluate", run, "--format", "json")
    assert code == 0
    content = json.loads(out)
    assert (content["part"], content["n_clips"], content["n_tags"]) == ("test", 16, 3)
    assert "score test" in err and "scores: " in err
    assert json.loads((run / "evaluation" / "test" / "metrics.json").read_text()) == content


def test_an_evaluation_can_be_evaluated_again_as_a_file_of_scores(tagger, run):
    _, out, _ = tagger("evaluate", run, "--format", "json", "--part", "validation")
    _, again, _ = tagger(
        "evaluate", run / "evaluation" / "validation" / "scores.npz", "--format", "json"
    )
    first, second = json.loads(out), json.loads(again)
    assert first["tags"] == second["tags"]
    assert first["roc_auc_macro"] == second["roc_auc_macro"]


@pytest.mark.parametrize(
    "arguments",
    [["evaluate"], ["tga"], ["evaluate", "a", "--colour"], ["embed", "a.wav"], ["models", "pull"]],
)
def test_a_command_line_that_cannot_be_parsed_exits_with_2(tagger, arguments):
    code, out, err = tagger(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: tagger" in err and "Traceback" not in err


def test_what_is_described_is_on_stdout(tagger, trained, run):
    code, out, err = tagger("info", trained / "store")
    assert (code, err) == (0, "")
    assert "clips: 32 (0 padded), windows: 192" in out and "tag 0, tag 1, tag 2" in out
    code, out, err = tagger("info", run)
    assert (code, err) == (0, "")
    assert "trained on: CPU (some CPU), float32" in out and "parameters: " in out
    code, out, err = tagger("info", "--set", "model.backbone.params.width=0.05")
    assert (code, err) == (0, "")
    assert "conv4_2" in out and "tensorflow 2." in out


# Checking a data set


def test_checking_a_clean_corpus_exits_with_0(tagger, tiny_corpus):
    for name in ("16", "17"):
        drop_row(tiny_corpus, name)
    code, out, err = tagger("preprocess", "--check", "--set", f"data.root={tiny_corpus}")
    *labels, total = out.splitlines()
    assert code == 0 and all(line.startswith("labels: ") for line in labels)
    assert total.startswith("6 clips, 3 tags: 0 missing, 0 empty, 0 unreadable")
    assert "check" in err


def drop_row(corpus, clip_id):
    table = corpus / "annotations_final.csv"
    lines = table.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(f'"{clip_id}"'.encode())]
    table.write_bytes(b"".join(kept))


def test_checking_a_corpus_lists_bad_clips_on_stdout_and_exits_with_1(tagger, tiny_corpus):
    clips = sorted(tiny_corpus.rglob("*.mp3"))
    clips[0].unlink()
    clips[1].write_bytes(b"")
    clips[2].write_bytes(b"no audio")
    code, out, err = tagger("preprocess", "--check", "--set", f"data.root={tiny_corpus}")
    assert code == 1
    *findings, total = out.splitlines()
    for kind, clip in zip(("missing", "empty", "unreadable"), clips, strict=False):
        (line,) = [line for line in findings if line.startswith(f"{kind}: ")]
        assert str(clip.relative_to(tiny_corpus)) in line and "left out of the store" in line
    assert "1 missing, 1 empty, 1 unreadable, 1 too short, 0 duplicate, 1 unlabelled" in total
    assert "Traceback" not in err


def test_preprocessing_names_failed_clips_and_exits_with_1(tagger, tiny_corpus, tmp_path):
    next(tiny_corpus.rglob("*.mp3")).write_bytes(b"no audio")
    store = tmp_path / "store"
    settings = ["--set", f"data.root={tiny_corpus}", "--set", f"store.root={store}"]
    code, out, err = tagger("preprocess", *settings, "--set", "store.workers=1")
    assert code == 1
    assert "7 clips (7 written" in out and "1 failed" in out
    assert err.count("failed: ") == 1 and "padded with zeros" in err
    assert (store / "manifest.json").exists()


# Errors of one line


@pytest.mark.parametrize("verb", ["preprocess", "train", "info"])
def test_an_unknown_config_key_is_one_line(refusal, verb, tmp_path):
    assert "train.epoch: unknown key" in refusal(verb, "--set", "train.epoch=5")
    (tmp_path / "a.yaml").write_text("trian: {}\n")
    line = refusal(verb, "--config", tmp_path / "a.yaml")
    assert f"{tmp_path / 'a.yaml'}: trian: unknown key (did you mean train?); tagger" in line


@pytest.mark.parametrize("verb", ["preprocess", "train", "info"])
def test_a_missing_config_is_one_line(refusal, verb, tmp_path):
    line = refusal(verb, "--config", tmp_path / "no.yaml")
    assert line == f"error: {tmp_path / 'no.yaml'}: no such config file; check --config"


def test_a_missing_data_set_is_one_line(refusal, tmp_path):
    line = refusal("preprocess", "--set", f"data.root={tmp_path / 'gone'}")
    assert str(tmp_path / "gone") in line and "data.root" in line


def test_broken_synonyms_are_one_line(refusal, trained, tmp_path):
    (tmp_path / "synonyms.yaml").write_text("a: [b\nc: d")
    line = refusal(
        "train",
        "--set",
        f"data.synonyms={tmp_path / 'synonyms.yaml'}",
        "--set",
        f"store.root={trained / 'store'}",
        "--set",
        f"run.root={tmp_path / 'new'}",
    )
    assert f"{tmp_path / 'synonyms.yaml'}: not valid YAML" in line


@pytest.mark.parametrize("command", [["evaluate"], ["info"]])
@pytest.mark.parametrize("kind", ["gone", "empty", "file"])
def test_a_missing_run_is_one_line(refusal, command, kind, tmp_path):
    path = tmp_path / kind
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("not a folder")
    line = refusal(*command, path)
    assert f"{path}: no training run here; give the folder that 'tagger train' wrote" in line


COMMANDS = [["evaluate"], ["info"]]
MODEL_COMMANDS = [
    ["predict-tags", "x.wav", "--model"],
    ["embed", "x.wav", "-o", "x.npz", "--model"],
    ["export"],
    ["models", "info"],
]


@pytest.mark.parametrize("command", MODEL_COMMANDS, ids=lambda command: command[0])
def test_a_model_that_does_not_exist_is_one_line_with_the_names_there_are(
    refusal, command, tmp_path
):
    line = refusal(*command, tmp_path / "gone")
    assert str(tmp_path / "gone") in line and "musicnn-mtt" in line


@pytest.mark.parametrize("command", MODEL_COMMANDS, ids=lambda command: command[0])
def test_a_folder_that_is_no_model_is_one_line(refusal, command, tmp_path):
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refusal(*command, tmp_path / "empty")


@pytest.mark.parametrize(
    "command", [command for command in MODEL_COMMANDS if command != ["export"]], ids=lambda c: c[0]
)
def test_a_run_that_was_not_exported_is_one_line_with_the_remedy(refusal, command, run):
    assert f"{run}: has no exported model yet; make it with: tagger export {run}" in refusal(
        *command, run
    )


def test_a_name_that_is_not_registered_cannot_be_pulled(refusal):
    line = refusal("models", "pull", "no-such-model")
    assert line.startswith("error: no-such-model: no registered model; choose one of ")


def test_registered_models_are_listed_with_a_line_each(tagger, tmp_path, monkeypatch):
    from tagger.bundle.models import registered_models

    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path))
    code, out, err = tagger("models", "list")
    assert (code, err) == (0, "")
    names = [line.split()[0] for line in out.splitlines()[1:]]
    assert names == list(registered_models())


def test_a_registered_model_that_is_not_here_is_described_without_fetching_it(
    tagger, tmp_path, monkeypatch
):
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path))
    code, out, err = tagger("models", "info", "musicnn-mtt")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "not here yet; fetch it with: tagger models pull musicnn-mtt"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_of_another_format_version_is_one_line(refusal, command, run):
    description = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**description, "format_version": 99}))
    line = refusal(*command, run)
    assert f"{run}: run of format version 99" in line and "train again" in line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b'{"format_version": 1'])
def test_a_damaged_run_is_one_line(refusal, command, run, content):
    (run / "run.json").write_bytes(content)
    assert str(run) in refusal(*command, run)


def test_a_run_without_weights_is_one_line(refusal, run):
    (run / "best.weights.h5").unlink()
    line = refusal("evaluate", run)
    assert f"{run / 'best.weights.h5'}: no such weight file; train first" in line


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("vocabulary.json", None),
        ("vocabulary.json", b"[]"),
        ("split.csv", None),
        ("split.csv", b"a,b\n1,2\n"),
        ("split.csv", b"\xff\xfe\xff"),
        ("config.yaml", None),
        ("config.yaml", b"a: ["),
        ("vocabulary.json", b"[" * 100_000),
        ("best.weights.h5", b"no weights"),
    ],
)
def test_a_missing_or_damaged_file_of_a_run_is_named(refusal, run, file, content):
    (run / file).unlink()
    if content is not None:
        (run / file).write_bytes(content)
    assert str(run / file) in refusal("evaluate", run)


def test_thresholds_that_no_number_is_large_enough_for_are_named(refusal, run):
    (run / "thresholds.json").write_text('{"thresholds": [1' + "0" * 400 + "]}")
    assert str(run / "thresholds.json") in refusal("evaluate", run)


@pytest.mark.parametrize("content", [b"epoch,x\n1,two\n", b"\xff\xfe", b"epoch\n1,2\n"])
def test_damaged_metrics_of_a_run_are_named(refusal, run, content):
    (run / "metrics.csv").write_bytes(content)
    assert str(run / "metrics.csv") in refusal("info", run)


def test_a_model_whose_scores_are_not_finite_is_one_line(tagger, run):
    import h5py

    with h5py.File(run / "best.weights.h5", "r+") as h5:
        h5["block2_dense/bias"][...] = np.nan
    code, out, err = tagger("evaluate", run)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {run}: the scores hold NaN or infinity")


def test_a_part_without_clips_is_one_line(refusal, run):
    (run / "split.csv").write_text("clip_id,path,part\n0,a.mp3,train\n")
    assert "no clip of its test part" in refusal("evaluate", run)


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_a_missing_store_is_one_line(refusal, command, run, tmp_path):
    source = [run] if command == "evaluate" else ["--set", f"run.root={tmp_path / 'new'}"]
    line = refusal(command, *source, "--set", f"store.root={tmp_path / 'gone'}")
    assert f"{tmp_path / 'gone'}: no complete patch store here" in line
    assert "run 'tagger preprocess'" in line


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_a_store_of_another_front_end_is_one_line(refusal, command, run, trained, tmp_path):
    source = [run] if command == "evaluate" else ["--set", f"run.root={tmp_path / 'new'}"]
    settings = [f"store.root={trained / 'store'}", "front_end.params.hop_seconds=0.48"]
    line = refusal(command, *source, "--set", settings[0], "--set", settings[1])
    assert f"{trained / 'store'}: made by front end 'vggish'" in line
    assert "hop_seconds=0.96 instead of 0.48" in line


def test_a_damaged_manifest_is_one_line(refusal, run, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    (store / "manifest.json").write_text('{"schema_version": 1}')
    assert f"{store / 'manifest.json'}: damaged" in refusal("info", store)
    assert "damaged" in refusal("evaluate", run, "--set", f"store.root={store}")


def test_scores_of_another_kind_are_one_line(refusal, tmp_path):
    text = tmp_path / "scores.csv"
    text.write_text("a,b\n")
    assert f"{text}: no training run here" in refusal("evaluate", text)
    archive = tmp_path / "scores.npz"
    archive.write_text("no archive")
    assert f"{archive}: not a NumPy .npz archive" in refusal("evaluate", archive)
    np.savez(archive, est=np.zeros((2, 2)))
    assert f"{archive}: lacks the array gt" in refusal("evaluate", archive)
    np.savez(archive, est=np.zeros((2, 2)), gt=np.zeros((3, 2)))
    assert "labels of shape (3, 2) and scores of shape (2, 2); fix" in refusal("evaluate", archive)
    assert "no such file" in refusal("evaluate", tmp_path / "gone.npz")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["evaluate", "a.npz", "--format", "xml"], "--format xml: choose one of table, json"),
        (["evaluate", "a.npz", "--part", "all"], "--part all: choose one of train, validation"),
        (["predict-tags", "a.mp3", "--format", "xml"], "--format xml: choose one of audacity, csv"),
        (["demo-corpus", "x", "--n-clips", "17"], "--n-clips 17 is not a multiple of 16"),
        (["predict-tags", "a.mp3", "b.mp3", "--taggram", "a.png"], "--taggram a.png"),
        (["predict-tags", "a.mp3", "--quantize", "int3"], "--quantize int3: choose one of none"),
        (["export", "run", "--format", "xml"], "--format xml: choose one of litert, onnx"),
        (["export", "run", "--quantize", "int3"], "--quantize int3: choose one of none, dynamic"),
    ],
)
def test_an_impossible_value_of_an_option_is_one_line(refusal, arguments, named):
    assert named in refusal(*arguments)


def test_missing_weights_are_one_line(refusal, tmp_path):
    settings = ["--set", f"model.backbone.weights={tmp_path / 'gone.ckpt'}"]
    line = refusal("info", *settings, "--set", "model.backbone.params.width=0.05")
    assert f"{tmp_path / 'gone.ckpt'}: no such weight file" in line


def test_a_package_that_is_installed_under_another_name_is_no_error(tagger, monkeypatch):
    monkeypatch.setattr(run_folder, "_PACKAGES", ("numpy", "no-such-package"))
    code, out, _ = tagger("info", "--set", "model.backbone.params.width=0.05")
    assert code == 0
    assert f"numpy {np.__version__}, no-such-package unknown" in out


def test_the_config_of_a_run_is_readable_yaml(run):
    content = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert content["model"]["backbone"]["name"] == "tiny"
