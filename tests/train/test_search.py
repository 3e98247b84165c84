"""Promises of searches: declared spaces, every trial kept, going on where one stopped."""

import csv
import subprocess
import sys

import pytest
import yaml
from small_store import make_store, small_config

from tagger.base.errors import ConfigError, ModelError
from tagger.config import load_config
from tagger.network.keras import tf
from tagger.runs.folder import RunFolder
from tagger.train.keeper import TrainResult
from tagger.train.search import read_space, search

SPACE = {
    "train.learning_rate": {"low": 0.001, "high": 0.1, "log": True},
    "model.head.params.units": [4, 8],
    "stream.n_active": {"low": 2, "high": 6, "step": 2},
}


def prepared(folder):
    """A folder with a store, a config and a space."""
    make_store(folder / "store", n_clips=32, n_windows=3)
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    small_config(folder, "train.epochs=2", "stream.steps_per_epoch=3").save(folder / "config.yaml")
    return folder


@pytest.fixture
def folder(tmp_path):
    return prepared(tmp_path)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A folder like the one above in which three trials were trained, and what they gave."""
    folder = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tagger.bundle.export.export_run", lambda run, **_: [])
        return prepared(folder), run_search(folder, 3)


def run_search(folder, n_trials, **changes):
    config = load_config(folder / "config.yaml")
    options = {"folder": folder / "found", "n_trials": n_trials} | changes
    return search(config, folder / "space.yaml", **options)


@pytest.fixture
def quick(monkeypatch):
    """Trials that take no time and have the value that a function makes of their config."""

    def values_are(value_of):
        def train(config, **_):
            history = [{"validation_pr_auc_macro": value_of(config)}]
            return TrainResult(config.run.root, True, 1, history)

        monkeypatch.setattr("tagger.train.loop.train", train)

    return values_are


def rows(folder):
    with (folder / "found" / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_trials_lie_within_the_space_and_each_is_a_run_that_can_be_used(searched):
    folder, result = searched
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


def test_the_best_trial_comes_first_and_its_config_is_kept(searched):
    folder, result = searched
    values = [trial.value for trial in result.trials]
    assert values == sorted(values, reverse=True)
    best = load_config(folder / "found" / "best.yaml")
    assert best.train.learning_rate == result.trials[0].settings["train.learning_rate"]
    assert best.run.root == load_config(folder / "config.yaml").run.root
    lines = result.table().splitlines()
    assert len(lines) == 4
    assert lines[0].split() == ["trial", "pr_auc_macro", *sorted(SPACE)]
    assert lines[1].split()[:2] == [str(result.trials[0].number), f"{values[0]:.4f}"]


def test_a_search_goes_on_with_what_it_has(folder, quick):
    quick(lambda config: config.train.learning_rate)
    first = run_search(folder, 1)
    again = run_search(folder, 2)
    assert len(again.trials) == 2
    assert first.trials[0] in again.trials
    nothing_more = run_search(folder, 2)
    assert nothing_more.trials == again.trials


KILLED = """
import os, sys
from pathlib import Path
import tagger.bundle.export
import tagger.train.loop
from tagger.config import load_config
from tagger.train.search import search

def dies(config, *, resume=False, profile_input=False, whole=tagger.train.loop.train):
    # After the first of its two epochs.
    whole(config.model_copy(update={"train": config.train.model_copy(update={"epochs": 1})}))
    os._exit(9)

tagger.train.loop.train = dies
tagger.bundle.export.export_run = lambda run, **_: []
folder = Path(sys.argv[1])
search(load_config(folder / "config.yaml"), folder / "space.yaml", folder=folder / "found",
       n_trials=2)
"""


def test_a_trial_that_was_killed_goes_on_where_it_was(folder, capsys, without_export):
    killed = subprocess.run([sys.executable, "-c", KILLED, folder], capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    result = run_search(folder, 2)
    assert "resuming after epoch 1" in capsys.readouterr().err
    assert [trial.number for trial in sorted(result.trials, key=lambda t: t.number)] == [0, 1]
    config = RunFolder(folder / "found" / "trials" / "0000").load_config()
    (first,) = [trial for trial in result.trials if trial.number == 0]
    assert config.train.learning_rate == first.settings["train.learning_rate"]


def test_a_trial_that_fails_is_counted_and_stops_no_other(folder, quick, capsys):
    calls = []

    def first_fails(config):
        calls.append(config)
        if len(calls) == 1:
            raise ModelError("diverged")
        return 0.5

    quick(first_fails)
    result = run_search(folder, 2)
    assert result.n_failed == 1
    assert result.trials[-1].value is None
    assert "trial 0 failed: diverged" in capsys.readouterr().err
    assert rows(folder)[-1]["pr_auc_macro"] == ""
    assert "failed" in result.table()


def test_a_trial_that_runs_out_of_memory_stops_no_other(folder, quick, capsys):
    def too_large(config):
        if config.model.head.params["units"] == 4:
            raise tf.errors.ResourceExhaustedError(None, None, "failed to allocate")
        return 0.5

    quick(too_large)
    result = run_search(folder, 8)
    failed = [trial for trial in result.trials if trial.value is None]
    assert {trial.settings["model.head.params.units"] for trial in failed} == {4}
    assert len(result.trials) == 8
    assert f"trial {failed[0].number} failed: out of memory" in capsys.readouterr().err


def test_a_search_is_the_same_however_often_it_is_stopped(folder, quick):
    # Ten trials are random; those after them depend on the ones before.
    quick(lambda config: config.train.learning_rate)
    straight = run_search(folder, 14)
    (folder / "found").rename(folder / "straight")
    for n_trials in (1, 2, 7, 12, 14):
        stopped = run_search(folder, n_trials)
    assert stopped.trials == straight.trials
    assert len({str(trial.settings) for trial in straight.trials}) == 14


def test_a_first_trial_that_cannot_begin_leaves_the_folder_free_for_a_mended_config(
    folder, without_export
):
    path = folder / "config.yaml"
    right = path.read_text()
    # What only the store can tell.
    small_config(folder, "augment.mask_bands=65").save(path)
    with pytest.raises(ConfigError, match="mask_bands=65"):
        run_search(folder, 2)
    path.write_text(right)
    assert [trial.number for trial in run_search(folder, 1).trials] == [0]


def test_two_searches_in_one_folder_are_refused(folder, quick):
    def second(config):
        with pytest.raises(ConfigError, match=r"found: another search is running in it"):
            run_search(folder, 2)
        return 0.5

    quick(second)
    assert run_search(folder, 1).n_failed == 0


def test_a_journal_that_cannot_be_read_is_named(folder, quick):
    quick(lambda config: 0.5)
    run_search(folder, 2)
    journal = folder / "found" / "optuna.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    for damaged in ("not json\n", "[]\n", "{}\n", '{"op_code": 99}\n', "\xff\n"):
        journal.write_text("".join([*lines[:2], damaged, *lines[2:]]), encoding="latin-1")
        with pytest.raises(ConfigError, match=r"optuna\.jsonl: the journal .* cannot be read"):
            run_search(folder, 3)


def test_a_search_goes_on_after_a_line_that_was_half_written(folder, quick):
    quick(lambda config: 0.5)
    run_search(folder, 1)
    journal = folder / "found" / "optuna.jsonl"
    with journal.open("a") as file:
        file.write('{"op_code": 4, "wor')
    assert len(run_search(folder, 3).trials) == 3
    assert len(run_search(folder, 4).trials) == 4


def test_keys_that_need_one_another_are_tried_together(folder, quick):
    (folder / "space.yaml").write_text(
        "stream.patches_per_bag: [2, 3]\n"
        "front_end.params.n_lags: [60]\n"
        "model.aggregate: [autopool]\n"
        "front_end.name: [vggish_tempo]\n"
    )
    configs = []
    quick(lambda config: configs.append(config) or 0.5)
    run_search(folder, 2)
    for config in configs:
        assert config.model.aggregate == "autopool"
        assert config.front_end.name == "vggish_tempo"
        assert config.front_end.params["n_lags"] == 60


@pytest.mark.parametrize("key", ["run.root", "train.monitor", "task.name"])
def test_what_all_trials_have_in_common_is_refused_in_a_space(tmp_path, key):
    path = tmp_path / "space.yaml"
    path.write_text(f"{key}: [a, b]")
    with pytest.raises(ConfigError, match=rf"{key} is the same in all trials"):
        read_space(path)


def test_another_space_in_the_same_folder_is_refused(folder, quick):
    quick(lambda config: 0.5)
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


def test_the_command_prints_the_table(folder, command, quick):
    quick(lambda config: 0.5)
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


@pytest.mark.parametrize("text", ["[" * 3000, "a: &a [*a]", "!!timestamp x"])
def test_a_space_that_cannot_be_walked_through_is_refused(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"space\.yaml: not valid YAML"):
        read_space(path)
