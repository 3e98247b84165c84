"""Promises of how commands are found, described and completed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_bundle import make_bundle

from tagger.base.version import VERSION
from tagger.cli.main import app
from tagger.cli.shape import config_keys

RATE = 16000


@pytest.fixture
def song(tmp_path, monkeypatch):
    """A folder to work in, with a song and a model that is used by default."""
    monkeypatch.chdir(tmp_path)
    make_bundle(tmp_path / "model")
    monkeypatch.setenv("TAGGER_MODEL", str(tmp_path / "model"))
    soundfile.write("song.wav", 0.1 * np.sin(np.arange(3 * RATE)), RATE)
    return Path("song.wav")


def test_a_file_or_folder_without_a_verb_is_tagged(song, command):
    Path("music").mkdir()
    song.rename("music/song.wav")
    answers = [
        command(*words)
        for words in (
            ["tag", "music/song.wav"],
            ["predict-tags", "music/song.wav"],
            ["music/song.wav"],
            ["music"],
            ["music", "--format", "table"],
        )
    ]
    assert all(code == 0 for code, _, _ in answers)
    assert len({out for _, out, _ in answers}) == 1 and "tag 0" in answers[0][1]
    code, out, _ = command("gone.mp3")
    assert code == 1 and "gone.mp3: no such file" in out


def test_a_mistyped_verb_is_not_taken_for_a_file(command):
    code, _, err = command("trian")
    assert code == 2 and "Did you mean 'train'?" in err


def test_a_config_that_stands_alone_is_understood_or_named(song, command, tmp_path):
    Path("mine.yaml").write_text("train: {epochs: 77}\n")
    code, out, err = command("config", "show", "mine.yaml")
    assert code == 0 and "epochs: 77" in out and "config: mine.yaml" in err
    code, out, _ = command("config", "show", "--set", "train.seed=5", "mine.yaml")
    assert code == 0 and "epochs: 77" in out and "seed: 5" in out
    code, _, err = command("mine.yaml")
    assert code == 2 and "a config needs a verb before it, e.g. tagger train mine.yaml" in err
    # What an option takes is no config.
    Path("space.yaml").write_text("train.epochs: [1]\n")
    code, _, err = command("search", "--space", "space.yaml", "--output", "found", "--trials", "0")
    assert code == 2 and "config: space.yaml" not in err


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_both_names_of_help_are_known_everywhere(command, option):
    for words in ([], ["tag"], ["models"], ["models", "pull"], ["study", "run"]):
        code, out, _ = command(*words, option)
        assert code == 0 and out.startswith("Usage: tagger")


def test_the_version_is_shown(command):
    assert command("--version")[:2] == (0, f"tagger {VERSION}\n")


def commands_of(group, context, name=""):
    for part in group.list_commands(context):
        found = group.get_command(context, part)
        if hasattr(found, "list_commands"):
            yield from commands_of(found, context, f"{name}{part} ")
        else:
            yield f"{name}{part}", found


def all_commands():
    import click
    import typer

    group = typer.main.get_command(app)
    return dict(commands_of(group, click.Context(group)))


def test_every_verb_has_examples_that_begin_with_it_and_a_line_of_its_own():
    for name, found in all_commands().items():
        examples = re.findall(r"^  tagger (.*)$", found.epilog, re.MULTILINE)
        allowed = {"predict-tags": "tag"}.get(name, name)
        assert examples, name
        assert any(example.startswith(allowed) for example in examples), name
        # What would be cut off in the list of verbs.
        assert 0 < len(found.short_help) <= 56, name


def test_the_options_that_examples_use_are_there():
    found = all_commands()
    for name, one in found.items():
        options = {option for param in one.params for option in param.opts}
        for example in re.findall(rf"^  tagger {name} (.*)$", one.epilog, re.MULTILINE):
            assert set(re.findall(r"--[\w-]+", example)) <= options, example


def test_verbs_come_in_the_order_in_which_people_meet_them(command):
    _, out, _ = command("--help")
    verbs = re.findall(r"^  ([\w-]+) {2,}\w", out.partition("Commands:")[2], re.MULTILINE)
    assert verbs[:6] == ["tag", "embed", "models", "train", "serve", "listen"]
    assert "predict-tags" not in verbs


def test_options_come_in_groups(command):
    _, out, _ = command("tag", "--help")
    titles = re.findall(r"^([A-Z][\w ]+):$", out, re.MULTILINE)
    assert titles[0] == "Arguments" and titles[-1] == "Options"
    assert {"Model", "What is shown", "Output", "Tags in the files themselves"} <= set(titles)
    assert "<" not in out.replace("<-", "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("tagger tag --format j", {"json", "jsonl", "jams"}),
        ("tagger tag --model musicnn-m", {"musicnn-mtt", "musicnn-msd"}),
        ("tagger train --head x", {"xgboost"}),
        ("tagger train --config magnatagatune_h", {"magnatagatune_h200"}),
        ("tagger train --set train.early_stopping.p", {"train.early_stopping.patience="}),
        ("tagger ex", {"export"}),
    ],
)
def test_a_shell_completes_verbs_and_values(words, found, tmp_path):
    environment = {
        **os.environ,
        "_TAGGER_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from tagger.cli.main import main; main()"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert set(done.stdout.split()) == found, done.stderr


def test_every_key_of_a_config_is_completed():
    keys = config_keys()
    assert {"train.epochs=", "model.backbone.name=", "data.root="} <= set(keys)
    assert all(key.endswith("=") for key in keys)


def test_a_run_that_is_not_there_names_one_beside_it(tmp_path, command):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/run.json").write_text("{}")
    code, _, err = command("evaluate", tmp_path / "mime")
    assert code == 2 and f"(did you mean {tmp_path / 'mine'}?)" in err
