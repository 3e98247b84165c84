import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from campaigns import quick_some
from hypothesis import given, settings
from hypothesis import strategies as st
from small_store import make_store, small_config

from tagger.base.errors import ConfigError, ModelError
from tagger.bundle.export import export_run
from tagger.bundle.read import Bundle
from tagger.config import load_config, with_overrides
from tagger.evaluate.evaluate import evaluate_run
from tagger.runs.folder import RunFolder
from tagger.scoring.clip_heads import ClipHead, load_clip_head, pooling_head, save_clip_head
from tagger.scoring.clip_heads.linear import (
    N_STATISTICS,
    PENALTIES,
    Linear,
    LinearParams,
    logistic_regressions,
)
from tagger.tagging.tagger import Tagger
from tagger.train.fit_clip_head import settle_clip_head
from tagger.train.loop import train

RNG = np.random.default_rng(0)
LINEAR = "model.clip_head.name=linear"


def linear(weights: np.ndarray, bias: np.ndarray, *, backbone: str = "a checksum") -> Linear:
    head = Linear(LinearParams(layers=("pooled",)))
    head.weights, head.bias, head.backbone = weights, bias, backbone
    return head


def a_head(n_dimensions: int = 4, n_tags: int = 3) -> Linear:
    return linear(
        RNG.normal(size=(N_STATISTICS * n_dimensions, n_tags)).astype(np.float32),
        RNG.normal(size=n_tags).astype(np.float32),
    )


# What it computes


def test_features_are_mean_maximum_and_deviation_of_each_layer():
    one, two = RNG.normal(size=(5, 2)), RNG.normal(size=(5, 3))
    head = Linear(LinearParams(layers=("one", "two")))
    features = head.features({"two": two, "one": one, "scores": one})
    expected = [f(axis=0) for x in (one, two) for f in (x.mean, x.max, x.std)]
    np.testing.assert_allclose(features, np.concatenate(expected), rtol=1e-6)
    assert features.dtype == np.float32


def test_the_order_of_windows_makes_no_difference():
    embeddings = RNG.normal(size=(20, 4)).astype(np.float32)
    head = a_head()
    np.testing.assert_allclose(
        head({"pooled": embeddings[::-1]}), head({"pooled": embeddings}), rtol=1e-5
    )


def test_a_clip_of_one_window_has_scores():
    scores = a_head()({"pooled": RNG.normal(size=(1, 4)).astype(np.float32)})
    assert scores.shape == (3,) and ((scores > 0) & (scores < 1)).all()


def test_huge_logits_are_certain_scores_without_a_warning():
    head = linear(np.full((3, 2), 1e6, dtype=np.float32), np.zeros(2, np.float32))
    certain = head.scores(np.array([[1, 1, 1], [-1, -1, -1]], dtype=np.float32))
    np.testing.assert_array_equal(certain, [[1, 1], [0, 0]])


def test_with_a_head_the_scores_of_windows_are_not_asked_for():
    assert pooling_head("mean", None).outputs == ("scores",)
    assert a_head().outputs == ("pooled",)


@pytest.mark.parametrize(("n_windows", "hop", "length"), [(30, 0.96, 10), (600, 2.0, 5)])
def test_a_window_has_the_scores_of_the_ten_seconds_around_it(n_windows, hop, length):
    embeddings = RNG.normal(size=(n_windows, 4)).astype(np.float32)
    head = a_head()
    found = head.over_time({"pooled": embeddings}, hop_seconds=hop)
    assert found.shape == (n_windows, 3)
    for window in (0, 3, n_windows // 2, n_windows - 1):
        start = min(max(window - length // 2, 0), n_windows - length)
        alone = head({"pooled": embeddings[start : start + length]})
        np.testing.assert_allclose(found[window], alone, rtol=1e-5)


def test_stretches_all_at_once_have_the_scores_of_stretches_one_by_one():
    outputs = {"pooled": RNG.normal(size=(700, 4)).astype(np.float32)}
    head = a_head()
    np.testing.assert_allclose(
        head.over_time(outputs, hop_seconds=0.96),
        ClipHead.over_time(head, outputs, hop_seconds=0.96),
        rtol=1e-5,
    )


@pytest.mark.parametrize("n_windows", [1, 4, 10])
def test_each_window_of_a_short_clip_has_the_scores_of_the_clip(n_windows):
    outputs = {"pooled": RNG.normal(size=(n_windows, 4)).astype(np.float32)}
    head = a_head()
    found = head.over_time(outputs, hop_seconds=0.96)
    np.testing.assert_allclose(found, [head(outputs)] * n_windows, rtol=1e-6)


# Its file


def test_a_saved_head_is_read_as_it_was(tmp_path):
    head = a_head()
    save_clip_head(head, tmp_path / "head.npz")
    read = load_clip_head(tmp_path / "head.npz", sizes={"pooled": 4, "other": 7}, n_tags=3)
    assert (read.name, read.params, read.backbone) == ("linear", head.params, "a checksum")
    np.testing.assert_array_equal(read.weights, head.weights)
    np.testing.assert_array_equal(read.bias, head.bias)


def saved(**changes: object) -> bytes:
    head = a_head()
    content = {
        "head": np.array("linear"),
        "params": np.array('{"layers": ["pooled"]}'),
        "array_weights": head.weights,
        "array_bias": head.bias,
        "backbone": np.array("x"),
    }
    file = io.BytesIO()
    np.savez(file, **(content | changes))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        saved()[:-40],
        pickle.dumps({"array_weights": 1}),
        saved(array_weights=np.array([object()], dtype=object)),
        saved(params=np.array('{"layers": ["unknown"]}')),
        saved(params=np.array('{"layers"')),
        saved(head=np.array("of another package")),
        saved(array_weights=np.zeros((11, 3), np.float32)),
        saved(array_weights=np.zeros((12, 3))),
        saved(array_bias=np.zeros(2, np.float32)),
        saved(array_bias=np.array([0, np.nan, 0], np.float32)),
    ],
    ids=[
        "missing",
        "empty",
        "cut",
        "pickle",
        "objects",
        "layer",
        "params",
        "head",
        "size",
        "type",
        "bias",
        "nan",
    ],
)
def test_a_file_that_is_no_head_of_the_network_is_refused(tmp_path, content):
    path = tmp_path / "head.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"head.npz: (missing or damaged|does not fit)"):
        load_clip_head(path, sizes={"pooled": 4}, n_tags=3)


# How it is fitted


@pytest.mark.parametrize("n_features", [5, 80], ids=["more clips", "more features"])
@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_the_regression_is_that_of_scikit_learn(n_features, penalty):
    from sklearn.linear_model import LogisticRegression

    # Of its own: the shared one would make other data in another order of the tests.
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, n_features))
    labels = (features[:, :3] + rng.normal(size=(60, 3)) > 0).astype(np.float64)
    *_, found = logistic_regressions(features, labels, penalties=[1.0, penalty])
    for tag in range(3):
        known = LogisticRegression(C=1 / (60 * penalty), tol=1e-8, max_iter=5000)
        known.fit(features, labels[:, tag])
        np.testing.assert_allclose(found[:-1, tag], known.coef_[0], atol=5e-3)
        np.testing.assert_allclose(found[-1, tag], known.intercept_[0], atol=5e-3)


@pytest.mark.parametrize("n_features", [5, 80], ids=["more clips", "more features"])
def test_the_regression_of_labels_is_that_of_scikit_learn(n_features):
    from sklearn.linear_model import LogisticRegression

    features = RNG.normal(size=(60, n_features))
    label = (features[:, :3] + RNG.normal(size=(60, 3))).argmax(axis=1)
    (found,) = logistic_regressions(features, np.eye(3)[label], penalties=[0.05], softmax=True)
    known = LogisticRegression(C=1 / (60 * 0.05), tol=1e-8, max_iter=5000).fit(features, label)
    np.testing.assert_allclose(found[:-1].T, known.coef_, atol=3e-3)


def fitted_to(features, labels) -> Linear:
    half = len(features) // 2
    head = Linear(LinearParams(layers=("pooled",)))
    head.fit(features[:half], labels[:half], validation=(features[half:], labels[half:]))
    return head


def test_a_tag_that_no_clip_carries_gets_how_often_it_occurs():
    features = RNG.normal(size=(200, 6)).astype(np.float32)
    labels = np.stack([features[:, 0] > 0, features[:, 0] > 9, features[:, 0] > -9], axis=1)
    scores = fitted_to(features, labels.astype(np.uint8)).scores(features)
    np.testing.assert_allclose(scores[:, 1], 0.5 / 101, rtol=1e-4)
    np.testing.assert_allclose(scores[:, 2], 100.5 / 101, rtol=1e-4)
    assert np.ptp(scores[:, 0]) > 0.8


def test_a_feature_that_never_changes_takes_no_part():
    features = RNG.normal(size=(100, 6)).astype(np.float32)
    features[:, 2] = 7
    head = fitted_to(features, (features[:, :1] > 0).astype(np.uint8))
    assert (head.weights[2] == 0).all() and np.isfinite(head.bias).all()


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(0.01, 100), shift=st.floats(-50, 50))
def test_scores_do_not_depend_on_the_units_of_an_embedding(scale, shift):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(80, 4))
    labels = (features[:, :2] + rng.normal(size=(80, 2)) > 0).astype(np.uint8)
    other = (scale * features + shift).astype(np.float32)
    features = features.astype(np.float32)
    np.testing.assert_allclose(
        fitted_to(other, labels).scores(other),
        fitted_to(features, labels).scores(features),
        atol=0.02,
    )


def test_the_penalty_is_chosen_by_the_validation_clips():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(120, 300)).astype(np.float32)
    by_chance = (rng.random((120, 2)) < 0.5).astype(np.uint8)
    assert fitted_to(noise, by_chance).penalty == max(PENALTIES)
    clear = (noise[:, :2] > 0).astype(np.uint8)
    assert fitted_to(noise[:, :4] * 5, clear).penalty < max(PENALTIES)


def test_what_occurs_once_and_what_goes_on_are_both_found():
    rng = np.random.default_rng(3)
    embeddings = rng.normal(size=(300, 30, 8)).astype(np.float32)
    labels = (rng.random((300, 2)) < 0.4).astype(np.uint8)
    # Tag 0 is one loud moment; tag 1 a little more throughout.
    moments = rng.integers(0, 30, 300)
    embeddings[np.arange(300), moments, 0] += 6 * labels[:, 0]
    embeddings[:, :, 1] += 0.7 * labels[:, 1, np.newaxis]
    features = np.stack([a_head().features({"pooled": clip}) for clip in embeddings])
    scores = fitted_to(features, labels).scores(features[150:])
    assert ((scores > 0.5) == labels[150:]).mean() > 0.95


# In a run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a store and a short finished run that has a clip head."""
    folder = tmp_path_factory.mktemp("clip_head")
    make_store(folder / "store", n_clips=64)
    train(small_config(folder, "stream.steps_per_epoch=6", LINEAR))
    return folder


@pytest.fixture
def run(trained, tmp_path, remembered_conversions) -> Path:
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def head_of(folder: Path) -> ClipHead | None:
    bundle = Bundle(folder / "bundle")
    return RunFolder(folder).load_clip_head(sizes=bundle.outputs, n_tags=3)


def test_a_run_and_its_bundle_have_the_same_head(trained):
    head = head_of(trained / "run")
    assert head is not None and head.outputs == ("pooled", "penultimate")
    in_bundle = Bundle(trained / "run" / "bundle").clip_head()
    np.testing.assert_array_equal(in_bundle.weights, head.weights)


def test_thresholds_are_fitted_to_the_scores_of_the_head(trained):
    folder = trained / "run"
    evaluation = evaluate_run(folder, part="validation", n_draws=0)
    with np.load(folder / "validation_scores.npz") as kept:
        with np.load(evaluation.scores) as measured:
            np.testing.assert_allclose(kept["est"], measured["est"], atol=1e-5)
        middle = np.array(RunFolder(folder).load_thresholds())
        lowest, highest = kept["est"].min(axis=0), kept["est"].max(axis=0)
        assert ((middle > lowest) & (middle <= highest)).all()


def test_prediction_gives_the_scores_that_evaluation_measures(trained):
    tagger = Tagger.load(trained / "run")
    samples = (0.1 * np.random.default_rng(0).standard_normal(16000 * 4)).astype(np.float32)
    prediction = tagger.predict(samples, 16000)
    head = head_of(trained / "run")
    embeddings = {layer: tagger.embed(samples, 16000, layer=layer).values for layer in head.outputs}
    np.testing.assert_allclose(prediction.scores, head(embeddings), atol=1e-6)
    # No clip is longer than what is said of each of its windows.
    assert prediction.taggram.shape == (4, 3)
    np.testing.assert_allclose(prediction.taggram, [prediction.scores] * 4, atol=1e-6)


@pytest.mark.parametrize("segments", ["--segments", "--merge"])
def test_segments_of_a_clip_do_not_contradict_it(trained, command, tmp_path, segments):
    song = tmp_path / "song.wav"
    soundfile.write(song, 0.1 * np.random.default_rng(0).standard_normal(16000 * 6), 16000)
    call = ("predict-tags", "--model", trained / "run", song, "--format=json")
    whole = json.loads(command(*call)[1])[0]["tags"]
    scores = {tag["label"]: tag["score"] for tag in whole}
    found = json.loads(command(*call, segments, "--threshold=0")[1])[0]
    rows = found["tags"] if "tags" in found else found["segments"]
    assert rows
    for row in rows:
        assert row["score"] == pytest.approx(scores[row["label"]], abs=1e-5)


def test_the_bundle_names_the_figures_of_both_ways(trained):
    metrics = Bundle(trained / "run" / "bundle").metrics()
    assert set(metrics) == {"validation", "validation without clip head"}
    assert "validation_pr_auc_macro" in metrics["validation"]


def test_a_finished_run_gets_a_head_and_loses_it_again(run, trained):
    before = RunFolder(run).load_thresholds()
    config = load_config(trained / "run" / "config.yaml", [f"run.root={run}"])
    plain = with_overrides(config, {"model.clip_head.name": "none"})
    train(plain, resume=True)
    assert not (run / "clip_head.npz").exists()
    assert Bundle(run / "bundle").clip_head().name == "mean"
    assert RunFolder(run).load_thresholds() != before
    train(config, resume=True)
    assert head_of(run) is not None and RunFolder(run).load_thresholds() == before


def test_a_head_of_other_weights_counts_as_none_and_is_fitted_anew(run, trained):
    config = load_config(trained / "run" / "config.yaml", [f"run.root={run}"])
    right = head_of(run)
    content = Linear(right.params)
    content.weights, content.bias, content.backbone = right.weights * 0, right.bias, "others"
    save_clip_head(content, run / "clip_head.npz")
    assert head_of(run) is None
    train(config, resume=True)
    np.testing.assert_allclose(head_of(run).weights, right.weights, atol=1e-5)


def test_a_classifier_scores_clips_of_a_run_that_was_trained(run, trained):
    chosen = ["name=classifier", "params.classifier=logistic_regression", "params.over=windows"]
    overrides = [f"run.root={run}", *(f"model.clip_head.{setting}" for setting in chosen)]
    train(load_config(trained / "run" / "config.yaml", overrides), resume=True)
    head = head_of(run)
    assert head.name == "classifier" and head.outputs == ("pooled", "penultimate")
    evaluation = evaluate_run(run, part="validation", n_draws=0)
    with np.load(run / "validation_scores.npz") as kept, np.load(evaluation.scores) as measured:
        np.testing.assert_allclose(kept["est"], measured["est"], atol=1e-5)
    assert Bundle(run / "bundle").clip_head().describe() == head.describe()


@pytest.mark.parametrize("content", quick_some([None, b"no archive"], [None]))
def test_an_export_without_the_validation_scores_says_what_to_do(run, trained, content):
    shutil.rmtree(run / "bundle")
    (run / "validation_scores.npz").unlink()
    if content is not None:
        (run / "validation_scores.npz").write_bytes(content)
    with pytest.raises(ModelError, match=r"validation_scores.npz: missing or damaged .*--resume"):
        export_run(run)
    # And that helps.
    (run / "clip_head.npz").unlink()
    train(load_config(trained / "run" / "config.yaml", [f"run.root={run}"]), resume=True)
    assert Bundle(run / "bundle").clip_head().name == "linear"


def test_a_run_that_has_its_head_is_left_alone(run, trained):
    from tagger.train.data import prepare_data

    config = load_config(trained / "run" / "config.yaml", [f"run.root={run}"])
    content = (run / "clip_head.npz").read_bytes()
    changed = (run / "clip_head.npz").stat().st_mtime_ns
    settle_clip_head(RunFolder(run), config, prepare_data(config))
    assert (run / "clip_head.npz").stat().st_mtime_ns == changed
    assert (run / "clip_head.npz").read_bytes() == content


def test_an_embedding_that_the_network_lacks_is_refused_before_there_is_a_run(trained, tmp_path):
    overrides = [f"run.root={tmp_path / 'run'}", "model.clip_head.params.layers=[pooled, third]"]
    with pytest.raises(
        ConfigError,
        match=r"no embedding 'third'; it has pooled, penultimate, scores",
    ):
        train(load_config(trained / "run" / "config.yaml", overrides))
    assert not (tmp_path / "run").exists()
