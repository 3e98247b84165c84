import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from campaigns import quick_some
from small_model import small_training
from small_store import make_store, small_config

import tagger.bundle.export
import tagger.train.validation
from preprocess.store.store import Store
from tagger.base.errors import ConfigError, ModelError, StoreError
from tagger.bundle.export import export_run
from tagger.bundle.find import newest_run
from tagger.config import TrainConfig, load_config
from tagger.runs.folder import RunFolder
from tagger.tagging.tagger import Tagger
from tagger.train.augment import mixup_plan
from tagger.train.checkpoint import Checkpoints
from tagger.train.learner import Learner
from tagger.train.loop import train
from tagger.train.optimizer import learning_rate
from tagger.train.progress import Progress

# What a training learns is the same whether or not a bundle is made of it.
pytestmark = pytest.mark.usefixtures("without_export", "without_pictures")

RUN_FILES = {
    "run.json",
    "config.yaml",
    "vocabulary.json",
    "split.csv",
    "metrics.csv",
    "best.weights.h5",
    "last.weights.h5",
}


def weights(path: Path) -> dict[str, np.ndarray]:
    import h5py

    found = {}
    with h5py.File(path) as h5:
        h5.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a store and a short finished run, which nobody changes."""
    return small_training(tmp_path_factory)


def test_training_learns_tags_that_can_be_heard(tmp_path):
    make_store(tmp_path / "store", n_clips=96)
    result = train(
        small_config(
            tmp_path, "train.epochs=4", "stream.steps_per_epoch=25", "train.learning_rate=0.01"
        )
    )
    assert max(row["validation_roc_auc_macro"] for row in result.history) > 0.95
    assert result.history[-1]["train_loss"] < 0.6 * result.history[0]["train_loss"]


def test_a_run_folder_holds_everything(trained):
    run = trained / "run"
    assert {path.name for path in run.iterdir()} >= RUN_FILES
    assert list((run / "tensorboard").iterdir())
    description = json.loads((run / "run.json").read_text())
    assert description["versions"].keys() >= {"python", "tensorflow", "tf-keras", "commit"}
    assert description["n_clips"] == {"train": 32, "validation": 16, "test": 16}
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    with (run / "split.csv").open(newline="") as file:
        assert {row["part"] for row in csv.DictReader(file)} == {"train", "validation", "test"}


def test_the_saved_config_reruns_to_the_same_weights(trained, tmp_path):
    train(load_config(trained / "run" / "config.yaml", [f"run.root={tmp_path / 'again'}"]))
    for name in ("best.weights.h5", "last.weights.h5"):
        assert_same_weights(trained / "run" / name, tmp_path / "again" / name)


def test_another_seed_trains_other_weights(trained, tmp_path):
    again = [f"run.root={tmp_path / 'again'}", "train.seed=1"]
    train(load_config(trained / "run" / "config.yaml", again))
    folders = (trained / "run", tmp_path / "again")
    one, other = (weights(folder / "last.weights.h5") for folder in folders)
    assert not np.array_equal(one["conv1/kernel"], other["conv1/kernel"])


def test_the_best_weights_are_those_of_the_best_epoch(trained):
    from tagger.evaluate.evaluate import evaluate_run

    with (trained / "run" / "metrics.csv").open(newline="") as file:
        best = max(float(row["validation_pr_auc_macro"]) for row in csv.DictReader(file))
    evaluation = evaluate_run(trained / "run", part="validation")
    assert evaluation.measured.metrics.summary["pr_auc_macro"] == pytest.approx(best, abs=1e-6)


def test_a_run_folder_that_is_taken_is_refused(trained):
    with pytest.raises(ConfigError, match=r"already holds a run; add --resume"):
        train(load_config(trained / "run" / "config.yaml"))


def test_resuming_a_finished_run_changes_nothing(trained):
    before = weights(trained / "run" / "last.weights.h5")
    result = train(load_config(trained / "run" / "config.yaml"), resume=True)
    assert result.finished
    assert len(result.history) == 2
    after = weights(trained / "run" / "last.weights.h5")
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_resuming_with_other_settings_is_refused_by_key(trained):
    with pytest.raises(ConfigError, match=r"train.learning_rate=0.5 \(the run has 0.001\)"):
        train(
            load_config(trained / "run" / "config.yaml", ["train.learning_rate=0.5"]), resume=True
        )


def test_resuming_on_a_changed_store_is_refused(tmp_path):
    """Otherwise a clip that was to test might train."""
    make_store(tmp_path / "store", n_clips=32)
    config = small_config(tmp_path, "train.epochs=1", "data.split=random")
    train(config)
    make_store(tmp_path / "store", n_clips=48)
    with pytest.raises(ConfigError, match=r"clips, tags or split of .* have changed"):
        train(config, resume=True)


def test_states_of_a_run_that_is_gone_are_not_taken_for_a_new_ones(tmp_path):
    make_store(tmp_path / "store", n_clips=32)
    train(small_config(tmp_path, "train.epochs=2"))
    (tmp_path / "run" / "run.json").unlink()
    config = small_config(tmp_path, "train.epochs=1", "train.seed=1")
    train(config)
    result = train(config, resume=True)
    assert len(result.history) == 1
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


def test_another_number_of_epochs_is_refused_where_the_cosine_depends_on_it(trained, tmp_path):
    make_store(tmp_path / "store", n_clips=32)
    cosine = ["train.final_learning_rate=0.0001", "train.epochs=1"]
    train(small_config(tmp_path, *cosine))
    with pytest.raises(ConfigError, match=r"train.epochs=2 \(the run has 1\)"):
        train(small_config(tmp_path, cosine[0], "train.epochs=2"), resume=True)
    with pytest.raises(ConfigError, match="has 2 epochs already"):
        train(load_config(trained / "run" / "config.yaml", ["train.epochs=1"]), resume=True)


def test_a_plateau_never_raises_a_rate_below_the_floor():
    config = TrainConfig(learning_rate=1e-8, reduce_on_plateau={"patience": 1}, monitor="loss")
    progress = Progress()
    for value in (1.0, 2.0, 3.0):
        progress.end_epoch(config, {"validation_loss": value}, larger_is_better=False)
    assert progress.rate_factor == 1.0


def test_the_latest_weights_are_kept_where_the_metric_never_can_be_computed():
    progress = Progress()
    for _ in range(3):
        row = {"validation_pr_auc_macro": float("nan")}
        assert progress.end_epoch(TrainConfig(), row, larger_is_better=True)
    assert progress.best_epoch == 3


def test_resuming_where_nothing_was_starts_a_run(tmp_path):
    make_store(tmp_path / "store", n_clips=32)
    result = train(small_config(tmp_path, "train.epochs=1"), resume=True)
    assert result.finished


def test_more_epochs_can_be_added_by_resuming(trained, tmp_path):
    """As if the number of epochs had been larger from the start."""
    longer, straight = tmp_path / "longer", tmp_path / "straight"
    shutil.copytree(trained / "run", longer)
    config = trained / "run" / "config.yaml"
    train(load_config(config, ["train.epochs=3", f"run.root={longer}"]), resume=True)
    train(load_config(config, ["train.epochs=3", f"run.root={straight}"]))
    assert_same_weights(longer / "last.weights.h5", straight / "last.weights.h5")


# The slow parts of a step differ in what they draw: dropout, mixup, schedules, bags.
RICH = (
    "model.head.params.dropout=0.5",
    "train.mixup_alpha=0.4",
    "train.weight_decay=0.001",
    "train.warmup_epochs=0.5",
    "train.average_decay=0.9",
    "augment.gain_db=3",
    "augment.equaliser_db=1",
    "augment.mask_frames=10",
    "augment.mask_bands=4",
    "stream.balance=0.5",
    "train.final_learning_rate=0.0001",
    "train.reduce_on_plateau.patience=1",
    "model.aggregate=autopool",
    "stream.patches_per_bag=3",
    "stream.rate=3",
    "train.epochs=3",
    "stream.steps_per_epoch=20",
)
RESUME_SCRIPT = """
import sys
from pathlib import Path
from tagger.config import load_config
import tagger.bundle.export
from tagger.train.loop import train
tagger.bundle.export.export_run = lambda run, **_: []
overrides = [f"run.root={sys.argv[2]}", *sys.argv[3:]]
result = train(load_config(Path(sys.argv[1]), overrides), resume=True)
sys.exit(0 if result.finished else 130)
"""


def start(config: Path, run: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RESUME_SCRIPT, str(config), str(run), *overrides],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Config with everything that draws, and the run that was never interrupted."""
    folder = tmp_path_factory.mktemp("rich")
    make_store(folder / "store", n_clips=64)
    config = small_config(folder, *RICH)
    config.save(folder / "config.yaml")
    train(load_config(folder / "config.yaml", [f"run.root={folder / 'straight'}"]))
    return folder / "config.yaml", folder / "straight"


def wait_until(come: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not come():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@pytest.mark.parametrize("number", quick_some([signal.SIGINT, signal.SIGTERM], [signal.SIGTERM]))
def test_a_run_stopped_by_a_signal_goes_on_as_if_it_never_had(rich, tmp_path, number):
    config, straight = rich
    run = tmp_path / "run"
    process = start(config, run)
    # After the first epoch: somewhere in the middle of the second.
    wait_until((run / "metrics.csv").exists, process)
    process.send_signal(number)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 130, messages
    assert "Traceback" not in messages
    assert "--resume" in messages
    assert train(load_config(config, [f"run.root={run}"]), resume=True).finished
    for name in ("last.weights.h5", "best.weights.h5"):
        assert_same_weights(run / name, straight / name)
    assert metrics_without_times(run) == metrics_without_times(straight)


@pytest.mark.campaign
def test_a_killed_run_goes_on_as_if_it_never_had(rich, tmp_path):
    config, straight = rich
    run = tmp_path / "run"
    process = start(config, run)
    wait_until((run / "metrics.csv").exists, process)
    process.kill()
    process.communicate()
    resumed = start(config, run)
    _, messages = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, messages
    assert_same_weights(run / "last.weights.h5", straight / "last.weights.h5")
    assert metrics_without_times(run) == metrics_without_times(straight)


def test_a_run_stopped_at_the_last_step_of_an_epoch_goes_on(trained, tmp_path, monkeypatch):
    make_store(tmp_path / "store", n_clips=64)
    config = small_config(tmp_path, "stream.steps_per_epoch=6")
    take_step = Learner.step

    def signalled(self, values, progress):
        if progress.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return take_step(self, values, progress)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "step", signalled)
        stopped = train(config)
    assert not stopped.finished
    assert stopped.history == []
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["00000006"]
    assert train(config, resume=True).finished
    assert_same_weights(tmp_path / "run/last.weights.h5", trained / "run/last.weights.h5")


def test_a_signal_during_validation_stops_it_and_validation_is_what_comes_first_then(
    trained, tmp_path, monkeypatch
):
    make_store(tmp_path / "store", n_clips=64)
    config = small_config(tmp_path, "stream.steps_per_epoch=6", "stream.evaluation_batch_size=8")
    states = []
    score, save = tagger.train.validation.score_clips, Checkpoints.save

    def signalled(*arguments, stop, **options):
        signals = [False, True]
        asked = iter(signals)

        def stop_after_two():
            assert not stop()
            if next(asked):
                os.kill(os.getpid(), signal.SIGTERM)
            return stop()

        return score(*arguments, stop=stop_after_two, **options)

    def noted(self, step, progress):
        states.append((progress["epoch"], step))
        save(self, step, progress)

    with monkeypatch.context() as patched:
        patched.setattr("tagger.train.validation.score_clips", signalled)
        patched.setattr(Checkpoints, "save", noted)
        stopped = train(config)
    assert not stopped.finished
    assert states == [(0, 6)]
    result = train(config, resume=True)
    assert [row["steps"] for row in result.history] == [6, 12]
    assert_same_weights(tmp_path / "run/last.weights.h5", trained / "run/last.weights.h5")
    ours, theirs = metrics_without_times(tmp_path / "run"), metrics_without_times(trained / "run")
    assert ours == theirs


def test_a_signal_after_the_state_was_saved_does_not_save_it_again(tmp_path, monkeypatch):
    make_store(tmp_path / "store", n_clips=64)
    states = []
    save = Checkpoints.save

    def noted(self, step, progress):
        states.append((progress["epoch"], step))
        save(self, step, progress)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "save", noted)
    assert not train(small_config(tmp_path, "stream.steps_per_epoch=6")).finished
    assert states == [(1, 6)]


def test_a_signal_at_the_last_state_stops_before_the_export(tmp_path, monkeypatch):
    make_store(tmp_path / "store", n_clips=64)
    config = small_config(tmp_path, "stream.steps_per_epoch=3", "train.epochs=1")
    monkeypatch.setattr(tagger.bundle.export, "export_run", export_run)
    save = Checkpoints.save

    def noted(self, step, progress):
        save(self, step, progress)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", noted)
        assert not train(config).finished
    assert not (tmp_path / "run" / "bundle").exists()
    assert train(config, resume=True).finished
    assert (tmp_path / "run" / "bundle" / "bundle.json").exists()


@pytest.mark.campaign
def test_a_run_killed_within_an_epoch_goes_on_from_a_state_within_it(rich, tmp_path, capsys):
    config, straight = rich
    run = tmp_path / "run"
    process = start(config, run, "train.checkpoint_minutes=0.00001")
    states = run / "checkpoints"

    def within_the_second_epoch() -> bool:
        return any(20 < int(state.name) < 36 for state in states.glob("[0-9]*"))

    wait_until(within_the_second_epoch, process)
    process.kill()
    process.communicate()
    capsys.readouterr()
    assert train(load_config(config, [f"run.root={run}"]), resume=True).finished
    messages = capsys.readouterr().err
    assert int(re.search(r"resuming after epoch 1, step (\d+)", messages)[1]) > 20
    assert_same_weights(run / "last.weights.h5", straight / "last.weights.h5")
    assert metrics_without_times(run) == metrics_without_times(straight)


def metrics_without_times(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "patches_per_second")} for row in rows
    ]


@pytest.mark.campaign
def test_a_damaged_state_falls_back_to_the_one_before(rich, tmp_path, capsys):
    config, straight = rich
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    newest = max((run / "checkpoints").iterdir())
    data = next(newest.glob("variables.data*"))
    data.write_bytes(data.read_bytes()[:1000])
    assert train(load_config(config, [f"run.root={run}"]), resume=True).finished
    assert "damaged state" in capsys.readouterr().err
    assert_same_weights(run / "last.weights.h5", straight / "last.weights.h5")


def test_the_rest_of_a_state_that_was_being_removed_goes_as_well(rich, tmp_path):
    config, straight = rich
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    states = {state.name for state in (run / "checkpoints").iterdir()}
    rest = run / "checkpoints" / "00000001"
    rest.mkdir()
    (rest / "variables.index").write_bytes(b"x")
    assert train(load_config(config, [f"run.root={run}"]), resume=True).finished
    assert {state.name for state in (run / "checkpoints").iterdir()} == states


def test_no_readable_state_is_refused(rich, tmp_path):
    _, straight = rich
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    for state in (run / "checkpoints").iterdir():
        (state / "progress.json").write_text("{")
    config = load_config(run / "config.yaml", [f"run.root={run}"])
    with pytest.raises(ModelError, match="no saved state can be read"):
        train(config, resume=True)


def test_another_front_ends_store_is_refused_by_name(trained, tmp_path):
    config = small_config(trained, "front_end.params.hop_seconds=0.48", f"run.root={tmp_path}/r")
    with pytest.raises(StoreError, match=r"hop_seconds=0.96 instead of 0.48"):
        train(config)


def test_a_training_that_diverges_says_so(tmp_path, monkeypatch):
    # A rate that no config can name, as Adam with batch normalisation survives even 1e30.
    monkeypatch.setattr("tagger.train.learner.learning_rate", lambda *_, **__: float("nan"))
    make_store(tmp_path / "store", n_clips=32)
    with pytest.raises(ModelError, match=r"diverged in epoch 1.*lower train.learning_rate"):
        train(small_config(tmp_path))


def test_a_part_without_clips_is_refused(tmp_path):
    make_store(tmp_path / "store", n_clips=8)
    with pytest.raises(ConfigError, match="no clip in the validation part"):
        train(small_config(tmp_path))


def test_early_stopping_waits_for_its_patience():
    config = TrainConfig(early_stopping={"patience": 2}, monitor="loss")
    progress = Progress()
    stops = []
    for value in (1.0, 0.5, 0.6, 0.7, 0.8):
        progress.end_epoch(config, {"validation_loss": value}, larger_is_better=False)
        stops.append(progress.stops_early(config))
    assert stops == [False, False, False, True, True]
    assert (progress.best, progress.best_epoch) == (0.5, 2)


def test_the_rate_falls_on_a_plateau_and_not_below_its_floor():
    config = TrainConfig(
        learning_rate=1.0,
        reduce_on_plateau={"patience": 2, "factor": 0.1, "min_learning_rate": 0.05},
    )
    progress = Progress()
    factors = []
    for value in (0.5, 0.4, 0.4, 0.4, 0.4, 0.6):
        progress.end_epoch(config, {"validation_pr_auc_macro": value}, larger_is_better=True)
        factors.append(progress.rate_factor)
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.05, 0.05])


def test_a_metric_that_cannot_be_computed_is_never_the_best():
    progress = Progress()
    for value in (float("nan"), 0.1, float("nan")):
        row = {"validation_pr_auc_macro": value}
        progress.end_epoch(TrainConfig(), row, larger_is_better=True)
    assert (progress.best, progress.best_epoch) == (0.1, 2)


def test_the_cosine_goes_from_the_first_rate_to_the_last():
    config = TrainConfig(learning_rate=0.1, final_learning_rate=0.01)
    rates = [learning_rate(config, step=s, n_steps=100, factor=1.0) for s in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[50] == pytest.approx(0.055)
    assert rates[100] == pytest.approx(0.01)
    assert all(a > b for a, b in itertools.pairwise(rates))


def test_mixup_draws_differ_between_steps_and_repeat_with_the_seed():
    first = mixup_plan(0, 1, batch_size=32, alpha=0.4)
    again = mixup_plan(0, 1, batch_size=32, alpha=0.4)
    later = mixup_plan(0, 2, batch_size=32, alpha=0.4)
    assert first[1] == again[1] != later[1]
    np.testing.assert_array_equal(first[0], again[0])
    assert sorted(first[0]) == list(range(32))
    assert mixup_plan(0, 1, batch_size=4, alpha=0)[1] == 1.0


def test_progress_survives_its_way_through_json():
    progress = Progress(epoch=2, step=7, best=0.5, history=[{"epoch": 1, "loss": 0.25}])
    assert Progress.from_dict(json.loads(json.dumps(asdict(progress)))) == progress


@pytest.mark.parametrize(
    "precision", quick_some(["mixed_bfloat16", "mixed_float16"], ["mixed_float16"])
)
def test_mixed_precision_trains(tmp_path, precision):
    make_store(tmp_path / "store", n_clips=32)
    result = train(small_config(tmp_path, f"train.precision={precision}"))
    assert np.isfinite([row["train_loss"] for row in result.history]).all()
    stored = weights(tmp_path / "run" / "last.weights.h5")
    assert stored["conv1/kernel"].dtype == np.float32


def test_autopool_of_the_body_moves_in_training(tmp_path):
    make_store(tmp_path / "store", n_clips=32)
    vggish = ["model.backbone.name=vggish", "model.backbone.params.width=0.05"]
    train(small_config(tmp_path, *vggish, "model.backbone.params.pooling=autopool"))
    alpha = weights(tmp_path / "run" / "last.weights.h5")["grid_pooling/kernel"]
    assert (alpha != 0).any()


def test_a_model_loads_what_training_saved(trained):
    tagger = Tagger.load(trained / "run")
    assert tagger.tags == ("tag 0", "tag 1", "tag 2")


def test_a_run_of_another_version_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(tagger.bundle.export, "export_run", export_run)
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    description = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**description, "format_version": 99}))
    with pytest.raises(ModelError, match=r"run of format version 99.*reads 1"):
        export_run(run)


def test_the_newest_run_is_found(trained, tmp_path):
    for name in ("older", "newer"):
        shutil.copytree(trained / "run", tmp_path / name)
        os.utime(tmp_path / name / "best.weights.h5", (1, {"older": 1, "newer": 2}[name]))
    assert newest_run(tmp_path) == tmp_path / "newer"
    assert newest_run(tmp_path / "nowhere") is None


def test_a_subset_of_the_stores_tags_can_be_learned(tmp_path):
    make_store(tmp_path / "store", n_clips=32)
    (tmp_path / "synonyms.yaml").write_text(yaml.safe_dump({"low": ["tag 0", "tag 1"]}))
    train(
        small_config(
            tmp_path,
            f"data.synonyms={tmp_path / 'synonyms.yaml'}",
            "data.tags=[tag 2, low]",
            "train.epochs=1",
        )
    )
    vocabulary = RunFolder(tmp_path / "run").load_vocabulary()
    assert vocabulary.tags == ("tag 2", "low")
    store = Store(tmp_path / "store")
    labels = vocabulary.labels(store.index.labels, store.index.tags)
    expected = store.index.labels[:, [0, 1]].max(axis=1)
    np.testing.assert_array_equal(labels[:, 1], expected)
