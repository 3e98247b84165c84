"""Promises of phases, of the penalty on kernels, and of inputs that are standardised."""

import os
import signal
import subprocess
import sys
from dataclasses import asdict

import h5py
import numpy as np
import pytest
from small_store import make_store, small_config

from tagger.base.errors import ConfigError
from tagger.config import TrainConfig, load_config
from tagger.train.learner import Learner
from tagger.train.loop import train
from tagger.train.progress import Progress

pytestmark = pytest.mark.usefixtures("without_export", "without_pictures")

PHASES = (
    "stream.steps_per_epoch=4",
    "model.backbone.freeze=all",
    "train.epochs=2",
    "train.phases=[{epochs: 2, learning_rate: 0.01, freeze: none}]",
)


def weights(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def backbone_of(path):
    return {name: value for name, value in weights(path).items() if "block" not in name}


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of two phases that nobody stops, and the weights after each of its epochs."""
    folder = tmp_path_factory.mktemp("phases")
    make_store(folder / "store", n_clips=64)
    kept = []
    step = Learner.step

    def watched(self, values, progress):
        if progress.step % 4 == 0:
            embedding = self.model.embedding_model.get_weights()
            rate = self.rate(progress, progress.step)
            kept.append((progress.phase, rate, embedding))
        return step(self, values, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", watched)
        result = train(small_config(folder, *PHASES))
    assert result.finished and len(result.history) == 4
    return folder, kept


def test_a_phase_trains_what_it_does_not_freeze_at_its_own_rate(straight):
    _, epochs = straight
    assert [(phase, rate) for phase, rate, _ in epochs] == [
        (0, 0.001),
        (0, 0.001),
        (1, 0.01),
        (1, 0.01),
    ]
    first, second, third, fourth = (embedding for _, _, embedding in epochs)
    assert all(map(np.array_equal, first, second)) and all(map(np.array_equal, second, third))
    assert not all(map(np.array_equal, third, fourth))


@pytest.mark.parametrize("stopped_at", [3, 8, 9, 13])
def test_a_run_of_phases_that_was_stopped_goes_on_as_if_it_never_had(
    straight, tmp_path, monkeypatch, stopped_at
):
    make_store(tmp_path / "store", n_clips=64)
    config = small_config(tmp_path, *PHASES)
    step = Learner.step

    def signalled(self, values, progress):
        if progress.step == stopped_at - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, values, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", signalled)
        assert not train(config).finished
    assert train(config, resume=True).finished
    assert same(
        weights(tmp_path / "run/last.weights.h5"), weights(straight[0] / "run/last.weights.h5")
    )


def test_a_phase_that_frees_a_layer_that_is_not_there_is_told_before_there_is_a_run(tmp_path):
    make_store(tmp_path / "store", n_clips=64)
    config = small_config(tmp_path, "train.phases=[{epochs: 1, freeze: conv99}]")
    with pytest.raises(ConfigError, match=r"train.phases\[0\].freeze='conv99' is not a layer"):
        train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "settings", [["train.final_learning_rate=0.0001"], ["train.cache_embeddings=true"]]
)
def test_phases_go_with_no_cosine_and_no_cached_embeddings(settings):
    with pytest.raises(ConfigError, match="leave out final_learning_rate and cache_embeddings"):
        load_config(None, ["train.phases=[{epochs: 1}]", *settings])


def test_early_stopping_ends_a_phase_and_the_next_one_begins_anew():
    config = TrainConfig(
        epochs=10,
        phases=[{"epochs": 3, "learning_rate": 1e-4}],
        early_stopping={"patience": 2},
        reduce_on_plateau={"patience": 1, "factor": 0.5},
        monitor="accuracy",
    )
    progress, said = Progress(), []
    for value in (0.5, 0.4, 0.3, 0.2, 0.6):
        assert not progress.is_over(config)
        progress.end_epoch(config, {"validation_accuracy": value}, larger_is_better=True)
        said.append((progress.phase, progress.rate_factor))
    # Two epochs without improvement end the first phase; the second counts them anew.
    assert said == [(0, 1.0), (0, 0.5), (1, 1.0), (1, 0.5), (1, 0.5)]
    assert not progress.is_over(config) and progress.best_epoch == 5
    progress.end_epoch(config, {"validation_accuracy": 0.1}, larger_is_better=True)
    assert progress.is_over(config)
    assert Progress.from_dict(asdict(progress)) == progress


def test_states_of_before_phases_are_read():
    state = asdict(Progress(epoch=3))
    del state["phase"], state["phase_began"]
    assert Progress.from_dict(state) == Progress(epoch=3)


def test_a_penalty_on_kernels_makes_them_smaller(tmp_path):
    make_store(tmp_path / "store", n_clips=64)
    sums = []
    for l2 in (0.0, 1.0):
        root = tmp_path / f"run{l2}"
        options = (f"run.root={root}", f"train.l2={l2}", "train.learning_rate=0.01")
        train(small_config(tmp_path, *options))
        found = weights(root / "last.weights.h5")
        sums.append(sum(np.square(v).sum() for n, v in found.items() if n.endswith("kernel")))
    assert sums[1] < 0.5 * sums[0]


# Networks of the reports in training

RECURRENT = (
    "stream.steps_per_epoch=4",
    "model.backbone.name=crnn_stacked",
    "model.backbone.params={input: log_mel, filters: 8, units: 8, dropout: 0.3}",
)


def test_a_recurrent_network_that_was_stopped_goes_on_as_if_it_never_had(tmp_path, monkeypatch):
    step = Learner.step

    def signalled(self, values, progress):
        if progress.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, values, progress)

    found = []
    for name in ("straight", "stopped"):
        folder = tmp_path / name
        make_store(folder / "store", n_clips=64)
        config = small_config(folder, *RECURRENT)
        if name == "stopped":
            with monkeypatch.context() as patch:
                patch.setattr(Learner, "step", signalled)
                assert not train(config).finished
        assert train(config, resume=name == "stopped").finished
        found.append(weights(folder / "run/last.weights.h5"))
    assert same(*found)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_recurrent_network_trains_in_mixed_precision(tmp_path, precision):
    make_store(tmp_path / "store", n_clips=64)
    result = train(small_config(tmp_path, *RECURRENT, f"train.precision={precision}"))
    assert np.isfinite([row["train_loss"] for row in result.history]).all()
    assert weights(tmp_path / "run/last.weights.h5")["conv1/kernel"].dtype == np.float32


def test_two_devices_train_a_recurrent_network(tmp_path):
    make_store(tmp_path / "store", n_clips=64)
    code = """
import os
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import tensorflow as tf
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
from tagger.cli.main import main
main(["train"])
"""
    settings = [
        f"store.root={tmp_path / 'store'}",
        f"run.root={tmp_path / 'run'}",
        "model.head.params.units=16",
        "stream.batch_size=8",
        "train.epochs=1",
        "train.strategy=mirrored",
        *RECURRENT,
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run/bundle/model.tflite").exists()
