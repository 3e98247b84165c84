"""Promises of what is said on stderr: a line per event, as text or as JSON."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from small_model import small_run

from preprocess.clips.demo_corpus import write_demo_corpus
from tagger.cli.main import _log_format_first

ROOT = Path(__file__).parents[2]
MAIN = "from tagger.cli.main import main; main()"

WITHOUT_EXPORT = """
import tagger.bundle.export
tagger.bundle.export.export_run = lambda run, **_: []
"""


def run(*arguments, program=MAIN, code=0, environment=None):
    """Run the command line in a process of its own: stdout, and the lines of stderr."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr.splitlines()


def events(lines):
    """Events of a log, each checked for what all have."""
    found = [json.loads(line) for line in lines]
    for event in found:
        assert datetime.fromisoformat(event["time"]).tzinfo is not None
        assert event["severity"] in {"INFO", "WARNING", "ERROR", "CRITICAL"}
        assert event["message"] and "\n" not in event["message"]
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Sixteen clips, of which one is broken and one shorter than a patch."""
    root = tmp_path_factory.mktemp("corpus")
    write_demo_corpus(root, n_clips=16, clip_seconds=2.0, seed=0)
    clips = sorted(root.glob("*/*.mp3"))
    clips[0].write_bytes(b"no audio\n")
    sf.write(clips[1], np.full(4000, 0.1), 16000, format="MP3")
    return root


def roots(corpus, folder):
    settings = (f"data.root={corpus}", f"store.root={folder}/store", f"run.root={folder}/run")
    demo = ("--config", ROOT / "configs/demo.yaml")
    return [*demo, *(word for setting in settings for word in ("--set", setting))]


def test_every_line_of_a_preprocess_is_a_json_object_workers_and_failures_included(
    corpus, tmp_path
):
    workers = ("--set", "store.workers=2")
    stdout, lines = run(
        *("--log-format", "json", "preprocess", *roots(corpus, tmp_path), *workers), code=1
    )
    found = events(lines)
    assert [event["event"] for event in found].count("failed") == 1
    padded = [event for event in found if "shorter than a patch" in event["message"]]
    assert [event["severity"] for event in padded] == ["WARNING"]
    progress = [event for event in found if event["event"] == "progress"]
    assert (progress[-1]["done"], progress[-1]["total"]) == (16, 16)
    # Results are for people and pipes, as ever.
    assert "15 clips" in stdout and "1 failed" in stdout


@pytest.mark.campaign
def test_a_training_tells_the_values_of_each_epoch(corpus, tmp_path):
    where = roots(corpus, tmp_path)
    run("preprocess", *where, code=1)
    _, lines = run(
        *("train", *where, "--log-format=json"),
        *("--set", "train.epochs=2", "--set", "model.backbone.params.width=0.0625"),
        program=WITHOUT_EXPORT + MAIN,
    )
    epochs = [event for event in events(lines) if event["event"] == "epoch"]
    assert [event["epoch"] for event in epochs] == [1, 2]
    assert all(event["train_loss"] > 0 for event in epochs)


def test_the_log_is_text_unless_asked(corpus, tmp_path):
    _, lines = run("preprocess", *roots(corpus, tmp_path), code=1)
    assert any(line.startswith("failed: ") for line in lines)
    assert not any(line.startswith("{") for line in lines)


def test_the_environment_chooses_the_format_too(tmp_path, tmp_path_factory):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    model = small_run(tmp_path_factory)
    _, lines = run(
        *("predict-tags", "--model", model, broken, "--format", "csv", "-o", tmp_path / "tags.csv"),
        code=1,
        environment={"TAGGER_LOG_FORMAT": "json"},
    )
    (failure,) = [event for event in events(lines) if event["event"] == "failed"]
    assert str(broken) in failure["message"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train", "--config", "none.yaml"], "none.yaml"),
        (["train", "--nope"], "--nope"),
        (["nosuch"], "nosuch"),
        (["compare", "one"], "B"),
    ],
)
def test_wrong_usage_is_an_event(words, named):
    _, lines = run(*words, "--log-format", "json", code=2)
    (event,) = events(lines)
    assert (event["severity"], event["event"]) == ("ERROR", "error")
    assert named in event["message"]


def test_help_and_results_are_as_ever_with_events():
    stdout, lines = run("train", "--help", "--log-format", "json")
    assert "--resume" in stdout
    assert lines == []


def test_another_format_is_refused(tmp_path):
    _, lines = run("info", "--log-format", "xml", code=2)
    assert lines == ["error: --log-format xml: choose one of text, json"]


def test_what_nobody_foresaw_is_one_event_with_its_traceback():
    program = (
        "import tagger.cli.info, tagger.cli.main as cli\n"
        "tagger.cli.info.describe = lambda *given: 1 / 0\n" + MAIN.replace("main()", "cli.main()")
    )
    _, lines = run("info", "--log-format", "json", program=program, code=1)
    (event,) = events(lines)
    assert event["severity"] == "CRITICAL"
    assert "ZeroDivisionError" in event["traceback"]


def test_a_warning_of_a_library_is_one_event():
    program = (
        "import tagger.cli.info, tagger.cli.main as cli, warnings\n"
        "tagger.cli.info.describe = lambda *given: warnings.warn('old\\nways') or []\n"
        "cli.main()"
    )
    _, lines = run("info", "--log-format", "json", program=program)
    assert [json.loads(line)["message"] for line in lines] == ["old\nways"]


def test_a_value_that_is_not_finite_is_null():
    program = (
        "from tagger.base.log import notice, set_log_format\n"
        "set_log_format('json')\n"
        "notice('an epoch', event='epoch', loss=float('nan'), steps=3)\n"
    )
    _, lines = run(program=program)
    (event,) = events(lines)
    assert (event["loss"], event["steps"]) == (None, 3)


@pytest.mark.parametrize(
    ("given", "put"),
    [
        (["train", "--log-format", "json"], ["--log-format", "json", "train"]),
        (["train", "--log-format=json", "--resume"], ["--log-format=json", "train", "--resume"]),
        (["predict-tags", "--", "--log-format"], ["predict-tags", "--", "--log-format"]),
        (["train", "--log-format"], ["--log-format", "train"]),
    ],
)
def test_the_format_may_stand_behind_the_verb(given, put):
    assert _log_format_first(given) == put
