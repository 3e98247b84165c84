"""Promises of searches: declared spaces, every trial kept, going on where one stopped."""

import csv
import subprocess
import sys

import pytest
import yaml
from small_store import make_store, small_config

from tagger.config import load_config
from tagger.errors import ConfigError, ModelError
from tagger.run_folder import RunFolder
from tagger.search import read_space, search

SPACE = {
    "train.learning_rate": {"low": 0.001, "high": 0.1, "log": True},
    "model.head.params.units": [4, 8],
    "stream.n_active": {"low": 2, "high": 6, "step": 2},
}


@pytest.fixture
def folder(tmp_path):
    make_store(tmp_path / "store", n_clips=32, n_windows=3)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    small_config(tmp_path, "train.epochs=2", "stream.steps_per_epoch=3").save(
        tmp_path / "config.yaml"
    )
    return tmp_path


def run_search(folder, n_trials, **changes):
    config = load_config(folder / "config.yaml")
    options = {"folder": folder / "found", "n_trials": n_trials} | changes
    return search(config, folder / "space.yaml", **options)


def rows(folder):
    with (folder / "found" / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_trials_lie_within_the_space_and_each_is_a_run_that_can_be_used(folder):
    result = run_search(folder, 3)
    assert result.finished and result.n_failed == 0
    assert len(result.trials) == 3 == len(rows(folder))
    for trial in result.trials:
        assert set(trial.settings) == set(SPACE)
        assert 0.001 <= trial.settings["train.learning_rate"] <= 0.1
        assert trial.settings["model.head.params.units"] in (4, 8)
        assert trial.settings["stream.n_active"] in (2, 4, 6)
        run = RunFolder(folder / "found" / "trials" / f"{trial.number:04d}")
        config = run.load_config()
        assert config.train.learning_rate == trial.settings["train.learning_rate"]
        assert config.stream.n_active == trial.settings["stream.n_active"]
        with run.metrics.open() as file:
            values = [float(row["validation_pr_auc_macro"]) for row in csv.DictReader(file)]
        assert trial.value == max(values)
    assert len({str(trial.settings) for trial in result.trials}) == 3


def test_the_best_trial_comes_first_and_its_config_is_kept(folder):
    result = run_search(folder, 3)
    values = [trial.value for trial in result.trials]
    assert values == sorted(values, reverse=True)
    best = load_config(folder / "found" / "best.yaml")
    assert best.train.learning_rate == result.trials[0].settings["train.learning_rate"]
    assert best.run.root == load_config(folder / "config.yaml").run.root
    lines = result.table().splitlines()
    assert len(lines) == 4
    assert lines[0].split() == ["trial", "pr_auc_macro", *sorted(SPACE)]
    assert lines[1].split()[:2] == [str(result.trials[0].number), f"{values[0]:.4f}"]


def test_a_search_goes_on_with_what_it_has(folder):
    first = run_search(folder, 1)
    again = run_search(folder, 2)
    assert len(again.trials) == 2
    assert first.trials[0] in again.trials
    nothing_more = run_search(folder, 2)
    assert nothing_more.trials == again.trials


KILLED = """
import os, sys
from pathlib import Path
import tagger.train
from tagger.config import load_config
from tagger.search import search

def dies(config, *, resume=False, profile_input=False, whole=tagger.train.train):
    # After the first of its two epochs.
    whole(config.model_copy(update={"train": config.train.model_copy(update={"epochs": 1})}))
    os._exit(9)

tagger.train.train = dies
folder = Path(sys.argv[1])
search(load_config(folder / "config.yaml"), folder / "space.yaml", folder=folder / "found",
       n_trials=2)
"""


def test_a_trial_that_was_killed_goes_on_where_it_was(folder, capsys):
    killed = subprocess.run([sys.executable, "-c", KILLED, folder], capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    result = run_search(folder, 2)
    assert "resuming after epoch 1" in capsys.readouterr().err
    assert [trial.number for trial in sorted(result.trials, key=lambda t: t.number)] == [0, 1]
    config = RunFolder(folder / "found" / "trials" / "0000").load_config()
    (first,) = [trial for trial in result.trials if trial.number == 0]
    assert config.train.learning_rate == first.settings["train.learning_rate"]


def test_a_trial_that_fails_is_counted_and_stops_no_other(folder, monkeypatch, capsys):
    import tagger.train

    whole, calls = tagger.train.train, []

    def first_fails(config, **options):
        calls.append(config)
        if len(calls) == 1:
            raise ModelError("diverged")
        return whole(config, **options)

    monkeypatch.setattr(tagger.train, "train", first_fails)
    result = run_search(folder, 2)
    assert result.n_failed == 1
    assert result.trials[-1].value is None
    assert "trial 0 failed: diverged" in capsys.readouterr().err
    assert rows(folder)[-1]["pr_auc_macro"] == ""
    assert "failed" in result.table()


def test_another_space_in_the_same_folder_is_refused(folder):
    run_search(folder, 1)
    (folder / "space.yaml").write_text("train.learning_rate: [0.1, 0.2]")
    with pytest.raises(ConfigError, match="another config or space; choose another --output"):
        run_search(folder, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write 'key"),
        ("{}", "names no key"),
        ("[1, 2]", "write 'key"),
        ("train.epochs: []", "write 'key"),
        ("train.epochs: {low: 3, high: 2}", "low must be less than high"),
        ("train.epochs: {low: 0, high: 2, log: true}", "log needs a low above 0"),
        ("train.epochs: {low: 1, high: 2, hihg: 3}", "hihg"),
        ("train.epochs: {low: .inf, high: 2}", "finite"),
        ("a: [1", "not valid YAML"),
    ],
)
def test_a_space_that_is_none_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_space(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("key", ["train.epochz", "model.backbone.params.weidth", "nowhere"])
def test_a_key_that_the_config_does_not_have_is_refused_before_anything_runs(folder, key):
    (folder / "space.yaml").write_text(f"{key}: [1, 2]")
    with pytest.raises(ConfigError, match=r"space\.yaml: .*lists every key"):
        run_search(folder, 1)
    assert not (folder / "found").exists()


def test_the_command_prints_the_table(folder, command):
    code, output, _ = command(
        "search",
        "--config",
        folder / "config.yaml",
        "--space",
        folder / "space.yaml",
        "--trials",
        "1",
        "-o",
        folder / "found",
    )
    assert code == 0
    assert output.splitlines()[0].split()[:2] == ["trial", "pr_auc_macro"]


def test_the_command_needs_a_space_and_a_folder(folder, command):
    code, _, errors = command("search", "--config", folder / "config.yaml")
    assert code == 2
    assert "--space FILE and --output FOLDER" in errors
