"""A new front end, backbone, head or task is one file and one config; nothing else is touched."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tagger.config import load_config

REPOSITORY = Path(__file__).parents[2]

FRONT_END = '''
"""Two inputs: levels over time, and a feature vector."""

import numpy as np
from preprocess.signal.features import FrontEnd
from tagger.base.registry import Params


class TwoInputParams(Params):
    """Nothing but a length."""

    window_seconds: float = 0.5


class TwoInputs(FrontEnd):
    """Levels of 10 parts of each half second, and mean and deviation of its samples."""

    Params = TwoInputParams
    sample_rate = 8000
    input_shapes = {"levels": (10,), "vector": (2,)}

    @property
    def window_seconds(self):
        return self.params.window_seconds

    hop_seconds = window_seconds

    def windows(self, waveform):
        length = round(self.window_seconds * self.sample_rate)
        waveform = np.pad(waveform, (0, max(0, length - len(waveform))))
        parts = waveform[: len(waveform) // length * length].reshape(-1, 10, length // 10)
        levels = np.log(np.square(parts).mean(axis=2) + 1e-6)
        flat = parts.reshape(len(parts), -1)
        vector = np.stack([np.abs(np.diff(flat)).mean(1), flat.std(1)], axis=1)
        return {"levels": levels.astype(np.float32), "vector": vector.astype(np.float32)}


ENTRY = TwoInputs
'''
BACKBONE = '''
"""Joins both inputs of two_inputs."""

from tagger.network.backbones import Backbone
from tagger.base.registry import Params


class JoinedParams(Params):
    """A size."""

    units: int = 16


class Joined(Backbone):
    """A branch for each input, joined."""

    Params = JoinedParams

    def build(self, inputs):
        from tagger.network.keras import keras

        branches = [
            keras.layers.Dense(self.params.units, activation="relu", name=f"branch_{name}")(tensor)
            for name, tensor in sorted(inputs.items())
        ]
        return keras.layers.Concatenate(name="joined")(branches)


ENTRY = Joined
'''
HEAD = '''
"""A single layer."""

from tagger.network.heads import Head
from tagger.base.registry import Params


class Linear(Head):
    """Logits straight from the embedding."""

    Params = Params

    def build(self, embedding, n_outputs):
        from tagger.network.keras import keras

        return keras.layers.Dense(n_outputs, name="linear")(embedding)


ENTRY = Linear
'''
TASK = '''
"""One label per clip: softmax and categorical cross-entropy."""

from tagger.base.registry import Params
from tagger.network.task import Task


class SingleLabel(Task):
    """Accuracy decides."""

    Params = Params
    monitors = {"accuracy": True, "loss": False}

    def scores(self, logits):
        from tagger.network.keras import keras

        return keras.layers.Activation("softmax", dtype="float32", name="scores")(logits)

    def loss(self, labels, scores):
        from tagger.network.keras import keras, tf

        return tf.reduce_mean(keras.losses.categorical_crossentropy(labels, scores))

    def metrics(self, labels, scores):
        import numpy as np

        right = labels.argmax(axis=1) == scores.argmax(axis=1)
        chosen = np.take_along_axis(scores, labels.argmax(axis=1)[:, None], axis=1)
        return {"loss": float(-np.log(chosen + 1e-9).mean()), "accuracy": float(right.mean())}


ENTRY = SingleLabel
'''
WRITER = '''
"""One tag per line."""

from tagger.tagging.writers import TextWriter


class Bare(TextWriter):
    """The best tag alone."""

    suffix = ".txt"

    def write(self, record, prediction=None):
        self.put(record.rows[0].label + "\\n")


ENTRY = Bare
'''
CONFIG = """
data: {name: tag_csv, split: column}
front_end: {name: two_inputs}
model:
  backbone: {name: joined, params: {units: 8}}
  head: {name: linear}
task: {name: one_of_two}
stream: {batch_size: 16, steps_per_epoch: 40}
train: {monitor: accuracy, epochs: 4, learning_rate: 0.02}
"""


@pytest.fixture
def extended(tmp_path, monkeypatch):
    """Each package with one more module, as if the file lay in it."""
    files = {
        "preprocess.signal.features": ("two_inputs", FRONT_END),
        "tagger.network.backbones": ("joined", BACKBONE),
        "tagger.network.heads": ("linear", HEAD),
        "tagger.tasks": ("one_of_two", TASK),
        "tagger.tagging.writers": ("bare", WRITER),
    }
    import importlib

    for package, (name, code) in files.items():
        folder = tmp_path / "extensions" / package
        folder.mkdir(parents=True)
        (folder / f"{name}.py").write_text(textwrap.dedent(code))
        module = importlib.import_module(package)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(folder)])
    importlib.invalidate_caches()
    return tmp_path


def test_a_new_front_end_backbone_head_and_task_train_and_predict(extended, capsys):
    """From files of sound to tags, single-label and with two inputs, through the real verbs."""
    import sys

    from preprocess.clips.datasets import DATASETS
    from preprocess.engines.run import preprocess
    from tagger.evaluate.evaluate import evaluate_run
    from tagger.tagging.records import Selection, make_record
    from tagger.tagging.tagger import Tagger
    from tagger.tagging.writers import WRITERS, Header
    from tagger.train.loop import train

    rng = np.random.default_rng(0)
    (extended / "clips").mkdir()
    lines = ["path,tags,part"]
    for number in range(48):
        loud = number % 2
        part = ["train", "train", "validation", "test"][number // 2 % 4]
        sound = rng.normal(0, 0.3 if loud else 0.01, 16000)
        soundfile.write(extended / "clips" / f"{number}.wav", sound, 8000)
        lines.append(f"{number}.wav,{'loud' if loud else 'quiet'},{part}")
    (extended / "clips" / "clips.csv").write_text("\n".join(lines) + "\n")
    (extended / "new.yaml").write_text(CONFIG)
    config = load_config(
        extended / "new.yaml",
        [
            f"data.root={extended / 'clips'}",
            f"store.root={extended / 'store'}",
            f"run.root={extended / 'run'}",
        ],
    )
    index = DATASETS.create(config.data.name, config.data.params).index(config.data.root)
    # One process: the modules of this test exist in no other.
    result = preprocess(
        index,
        config.make_front_end(),
        audio_root=config.data.root,
        store_root=config.store.root,
        n_workers=1,
    )
    assert result.n_clips == 48
    trained = train(config)
    assert trained.history[-1]["validation_accuracy"] == 1.0
    # The task says what is measured, and how it is told.
    evaluation = evaluate_run(config.run.root)
    assert evaluation.measured.summary["accuracy"] == 1.0
    assert evaluation.to_json()["accuracy"] == 1.0
    assert "accuracy                   1.0000" in evaluation.table()
    report = evaluation.files["report as Markdown"].read_text()
    assert "| accuracy | 1.0000 |" in report and "## Learning" in report
    assert "ROC-AUC" not in evaluation.table() + report
    header = Header("new", "1", "0", "now")
    prediction = Tagger.load(config.run.root).predict(extended / "clips" / "1.wav")
    assert prediction.scores.sum() == pytest.approx(1)
    WRITERS.get("bare")(sys.stdout, header).write(make_record(prediction, Selection()))
    assert capsys.readouterr().out == "loud\n"
