"""Each contract with a second implementation that is one file: no other file is touched."""

import importlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import soundfile
from small_store import make_store, small_config

from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.clips.splits import PARTS, split_parts
from preprocess.signal.features import FrontEnd
from preprocess.signal.windows import windows_of_waveform
from preprocess.store.store import Store, StoredClip, StoreSpec, StoreWriter, write_clip
from tagger.base.errors import ConfigError
from tagger.base.registry import Params, _installed
from tagger.config import load_config
from tagger.evaluate.score_clips import scores_of_store
from tagger.network.backbones import BACKBONES
from tagger.runs.folder import RunFolder
from tagger.scoring.clip_heads import CLIP_HEADS, load_clip_head, pooling_head, save_clip_head
from tagger.scoring.model import Model
from tagger.tagging.tagger import Tagger
from tagger.train.loop import train

CLIP_HEAD = '''
"""Quantile over time of the scores of windows; which one suits a tag is learned."""

import numpy as np

from tagger.base.registry import Params
from tagger.scoring.clip_heads import ClipHead


class QuantileParams(Params):
    """Quantiles to choose from."""

    quantiles: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)


class Quantile(ClipHead):
    """The quantile whose scores differ most between clips with a tag and clips without."""

    Params = QuantileParams
    outputs = ("scores",)

    def features(self, outputs):
        return np.quantile(outputs["scores"], self.params.quantiles, axis=0).ravel()

    def fit(self, features, labels, *, validation, groups=()):
        shape = (len(features), len(self.params.quantiles), labels.shape[1])
        found = features.reshape(shape)
        share = labels[:, np.newaxis] / labels.sum(axis=0)
        without = (1 - labels[:, np.newaxis]) / (1 - labels).sum(axis=0)
        self.chosen = ((share - without) * found).sum(axis=0).argmax(axis=0)
        return f"quantiles {self.chosen.tolist()}, {len(set(groups))} groups"

    def scores(self, features):
        found = features.reshape(len(features), len(self.params.quantiles), -1)
        return found[:, self.chosen, np.arange(found.shape[2])].astype(np.float32)

    def arrays(self):
        return {"chosen": self.chosen}

    def restore(self, arrays, *, sizes, n_tags):
        if arrays["chosen"].shape != (n_tags,):
            raise ValueError("of other tags")
        self.chosen = arrays["chosen"]


ENTRY = Quantile
'''
SPLIT = '''
"""Clips dealt to several folds, each of which tests once."""

import numpy as np

from preprocess.clips.splits import DTYPE, Split
from tagger.base.registry import Params


class DealtParams(Params):
    """How many folds."""

    n_folds: int = 3


class Dealt(Split):
    """Fold k tests every n-th clip from the k-th on; the one after it validates."""

    Params = DealtParams

    @property
    def n_folds(self):
        return self.params.n_folds

    def parts(self, index, *, seed, fold):
        place = (np.arange(len(index)) - fold) % self.n_folds
        parts = np.full(len(index), "train", dtype=DTYPE)
        parts[place == 0], parts[place == 1] = "test", "validation"
        return parts


ENTRY = Dealt
'''


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Give a package one more module, as if the file lay in it."""

    def add(package: str, name: str, code: str) -> None:
        folder = tmp_path / "added" / package
        folder.mkdir(parents=True)
        (folder / f"{name}.py").write_text(code)
        module = importlib.import_module(package)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(folder)])
        importlib.invalidate_caches()

    return add


# Entries of installed packages


def test_an_installed_package_adds_an_entry_under_the_name_that_it_gives():
    assert "tiny" in BACKBONES.names()
    assert BACKBONES.get("tiny").__module__ == "tiny_backbone"
    assert BACKBONES.create("tiny", {"n_filters": 3}).name == "tiny"
    config = load_config(None, ["model.backbone.name=tiny"])
    assert config.model.backbone.params == {"n_filters": 8, "batch_norm": True, "pooling": "mean"}


def test_a_package_that_cannot_be_imported_is_named_with_the_remedy(tmp_path, monkeypatch):
    described = tmp_path / "torn-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: torn\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(
        "[tagger.network.backbones]\ntorn = no_such_module:Backbone\nvggish = no_such_module:V\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    _installed.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"'torn': no_such_module:Backbone cannot be import"):
            BACKBONES.get("torn")
        # What this package has itself is never taken from elsewhere.
        assert BACKBONES.get("vggish").__module__ == "tagger.network.backbones.vggish"
    finally:
        _installed.cache_clear()


# Clip heads


def test_a_new_clip_head_is_fitted_kept_and_scores_clips_in_prediction(
    added, tmp_path, remembered_conversions
):
    added("tagger.scoring.clip_heads", "quantile", CLIP_HEAD)
    make_store(tmp_path / "store", n_clips=64)
    head = ["model.clip_head.name=quantile", "model.clip_head.params.quantiles=[0.1, 0.9]"]
    train(small_config(tmp_path, "train.epochs=1", "stream.steps_per_epoch=6", *head))
    tagger = Tagger.load(tmp_path / "run")
    assert tagger.model.clip_head.name == "quantile"
    samples = 0.1 * np.random.default_rng(0).standard_normal(16000 * 30).astype(np.float32)
    prediction = tagger.predict(samples, 16000)
    scores = tagger.model.make_scorer(["scores"])(tagger.front_end.windows(samples))["scores"]
    both = np.quantile(scores, [0.1, 0.9], axis=0)
    chosen = tagger.model.clip_head.chosen
    np.testing.assert_allclose(prediction.scores, both[chosen, np.arange(3)], atol=1e-6)
    # Of a clip of 30 s a window has the scores of the ten seconds around it.
    assert prediction.taggram.shape == scores.shape
    assert not np.allclose(prediction.taggram, prediction.scores)


def test_any_pooling_can_score_a_run_that_was_trained_with_another(tmp_path, without_export):
    make_store(tmp_path / "store", n_clips=32)
    train(small_config(tmp_path, "train.epochs=1", "model.clip_head.name=max"))
    run = RunFolder(tmp_path / "run")
    kept = run.load_clip_head(sizes={"scores": 3}, n_tags=3)
    assert kept is not None and kept.name == "max"


@pytest.mark.parametrize("name", ["mean", "max", "autopool"])
def test_every_head_comes_back_from_its_file(tmp_path, name):
    alpha = np.array([0.0, 5.0], np.float32) if name == "autopool" else None
    head = pooling_head(name, alpha)
    save_clip_head(head, tmp_path / "head.npz")
    outputs = {"scores": np.random.default_rng(0).random((7, 2)).astype(np.float32)}
    again = load_clip_head(tmp_path / "head.npz", sizes={"scores": 2}, n_tags=2)
    np.testing.assert_array_equal(again(outputs), head(outputs))


def test_heads_are_found_by_name():
    assert CLIP_HEADS.names() == ["autopool", "classifier", "linear", "max", "mean"]


# Splits


def index_of(n_clips: int) -> ClipIndex:
    clips = [ClipRecord(str(number), f"0/{number}.mp3") for number in range(n_clips)]
    return ClipIndex(("a",), clips, np.ones((n_clips, 1), np.uint8))


def test_a_new_split_gives_folds_in_which_every_clip_tests_once(added):
    added("preprocess.clips.splits", "dealt", SPLIT)
    folds = [
        split_parts(index_of(20), "dealt", params={"n_folds": 4}, fold=fold) for fold in range(4)
    ]
    assert (sum(parts == "test" for parts in folds) == 1).all()
    assert all(set(parts) == set(PARTS) for parts in folds)
    settings = ["data.split=dealt", "data.split_params.n_folds=4", "data.split_fold=3"]
    np.testing.assert_array_equal(load_config(None, settings).parts_of(index_of(20)), folds[3])
    with pytest.raises(ConfigError, match=r"split_fold=4: the split 'dealt' has 4; give 0 to 3"):
        load_config(None, [*settings[:2], "data.split_fold=4"])


def test_shares_of_a_split_are_parameters():
    config = load_config(None, ["data.split=random", "data.split_params.train=0.5"])
    parts = config.parts_of(index_of(40))
    assert [int((parts == part).sum()) for part in PARTS] == [18, 2, 20]


# Models


class WholeClip(FrontEnd):
    """One window per clip, of whatever length: its level and how often it crosses zero."""

    Params = Params
    sample_rate = 8000
    window_seconds = None
    hop_seconds = None
    input_shapes: ClassVar = {"features": (2,)}

    def windows(self, waveform):
        crossings = np.mean(np.diff(np.sign(waveform)) != 0) if len(waveform) > 1 else 0
        row = [np.sqrt(np.mean(waveform**2)), crossings]
        return {"features": np.array([row], np.float32)}


@dataclass
class Fitted:
    """A classifier of scikit-learn on a vector per clip; trained in no epochs."""

    classifier: object
    tags: tuple[str, ...] = ("quiet", "loud")
    name, version, runs_on = "fitted", "1", "scikit-learn"
    decides_one = False
    front_end = WholeClip(Params())
    output_sizes: ClassVar = {"scores": 2}
    clip_head = pooling_head("mean", None)
    calibration = thresholds = None

    def make_scorer(self, names, *, n_threads=1):
        return lambda windows: {
            "scores": self.classifier.predict_proba(windows["features"]).astype(np.float32)
        }


@pytest.fixture(scope="module")
def fitted() -> Model:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    levels = np.repeat([0.01, 0.3], 20)
    front_end = WholeClip(Params())
    rows = [front_end.windows(rng.normal(0, level, 4000))["features"][0] for level in levels]
    return Fitted(LogisticRegression(C=1e4).fit(rows, levels > 0.1))


@pytest.mark.parametrize("seconds", [0.1, 1.0, 95.0])
def test_a_classifier_that_was_fitted_tags_files_of_any_length(fitted, tmp_path, seconds):
    rng = np.random.default_rng(1)
    soundfile.write(tmp_path / "a.wav", rng.normal(0, 0.3, round(8000 * seconds)), 8000)
    prediction = Tagger(fitted).predict(tmp_path / "a.wav")
    assert prediction.top(1)[0]["label"] == "loud"
    # One window, which is the clip.
    assert prediction.taggram.shape == (1, 2)
    assert prediction.window_seconds == pytest.approx(prediction.seconds) == seconds
    assert not prediction.padded


def test_windows_of_whole_clips_make_segments_of_whole_clips(fitted):
    from tagger.tagging.records import Selection, make_record

    rng = np.random.default_rng(1)
    prediction = Tagger(fitted).predict(rng.normal(0, 0.3, 24000).astype(np.float32), 8000)
    rows = make_record(prediction, Selection(segments="windows", threshold=0.5)).rows
    assert [(row.start, row.end, row.label) for row in rows] == [(0.0, 3.0, "loud")]


def test_a_store_keeps_one_window_of_each_clip_and_its_model_scores_them(fitted, tmp_path):
    rng = np.random.default_rng(2)
    levels = {"0/a.wav": (0.3, 1.0), "0/b.wav": (0.01, 7.5), "0/c.wav": (0.3, 0.2)}
    spec = StoreSpec.of(fitted.front_end, "float32")
    writer = StoreWriter(tmp_path, spec, tags=("loud",))
    clips, labels = [], np.array([[1], [0], [1]], np.uint8)
    for (path, (level, seconds)), label in zip(levels.items(), labels, strict=True):
        waveform = rng.normal(0, level, round(8000 * seconds)).astype(np.float32)
        windows, padded = windows_of_waveform(waveform, fitted.front_end)
        assert not padded
        clip = ClipRecord(path, path)
        written = write_clip(tmp_path, clip, windows=windows, label=label, dtype="float32")
        writer.add(StoredClip(clip, source_bytes=1, source_mtime_ns=1, **written))
        clips.append(clip)
    writer.close(ClipIndex(("loud",), clips, labels))
    store = Store(tmp_path)
    assert store.n_windows.tolist() == [1, 1, 1]
    scores = np.stack(list(scores_of_store(Tagger(fitted), store, [0, 1, 2], title="score")))
    np.testing.assert_array_equal(scores.argmax(axis=1), labels[:, 0])


def test_a_head_that_only_the_network_can_learn_is_refused_before_there_is_a_run(tmp_path):
    make_store(tmp_path / "store", n_clips=32)
    with pytest.raises(ConfigError, match=r"clip_head.name=autopool: .* model.aggregate to autop"):
        train(small_config(tmp_path, "model.clip_head.name=autopool"))
    assert not (tmp_path / "run").exists()
