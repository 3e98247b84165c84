"""Promises of the metrics and of the aggregation over time, against definitions by hand."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from small_model import small_run

from tagger.base.errors import ConfigError, ModelError
from tagger.evaluate.evaluate import evaluate_run, evaluate_scores
from tagger.evaluate.report.curves import precision_over_recall
from tagger.metrics.figures import (
    best_f1_thresholds,
    binary_cross_entropy,
    d_prime,
    multilabel_metrics,
    thresholds_for_precision,
)
from tagger.scoring.clip_heads import pooling_head

REFERENCE = "magnatagatune/reference/musicnn_mtat_won_test.npz"


def roc_auc_by_pairs(labels, scores):
    """Share of (positive, negative) pairs in the right order; ties count half."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    difference = positive[:, None] - negative[None, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean()


def average_precision_by_hand(labels, scores):
    """Sum of precision times the step in recall, over thresholds from high to low."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        said = scores >= threshold
        precision = labels[said].mean()
        recall = labels[said].sum() / labels.sum()
        total += precision * (recall - recall_before)
        recall_before = recall
    return total


def random_case(seed, *, n_clips=60, n_tags=4, ties=False):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n_clips, n_tags)) < rng.uniform(0.1, 0.9, n_tags)).astype(np.uint8)
    scores = rng.random((n_clips, n_tags))
    # In tenths: several clips have the same score.
    return labels, (scores.round(1) if ties else scores).astype(np.float32)


# Metrics


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_per_tag_metrics_equal_their_definitions(seed, ties):
    labels, scores = random_case(seed, ties=ties)
    metrics = multilabel_metrics(labels, scores)
    for tag in range(labels.shape[1]):
        column = labels[:, tag], scores[:, tag]
        assert metrics.roc_auc[tag] == pytest.approx(roc_auc_by_pairs(*column), abs=1e-12)
        assert metrics.pr_auc[tag] == pytest.approx(average_precision_by_hand(*column), abs=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_macro_is_the_mean_over_tags_and_micro_pools_all_decisions(ties):
    labels, scores = random_case(7, ties=ties)
    summary = multilabel_metrics(labels, scores).summary
    columns = list(zip(labels.T, scores.T, strict=True))
    assert summary["roc_auc_macro"] == pytest.approx(
        np.mean([roc_auc_by_pairs(*column) for column in columns])
    )
    assert summary["pr_auc_macro"] == pytest.approx(
        np.mean([average_precision_by_hand(*column) for column in columns])
    )
    flat = labels.ravel(), scores.ravel()
    assert summary["roc_auc_micro"] == pytest.approx(roc_auc_by_pairs(*flat))
    assert summary["pr_auc_micro"] == pytest.approx(average_precision_by_hand(*flat))
    assert abs(summary["pr_auc_macro"] - summary["pr_auc_micro"]) > 0.001


@given(
    seed=st.integers(0, 2**31),
    at_once=st.sampled_from([1, 7, 50, 10**6]),
    digits=st.sampled_from([1, 2, 9]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
)
@settings(max_examples=100, deadline=None)
@pytest.mark.campaign
def test_micro_figures_do_not_depend_on_how_much_is_ranked_at_once(seed, at_once, digits, dtype):
    from sklearn.metrics import average_precision_score, roc_auc_score

    from tagger.metrics import figures as metrics

    labels, scores = random_case(seed, n_clips=40, n_tags=5)
    labels[0], labels[1] = 0, 1
    scores = scores.round(digits).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_SCORES_AT_ONCE", at_once)
        patch.setattr(metrics, "_SAMPLED_SCORES", 8)
        found = multilabel_metrics(labels, scores)
    flat = labels.ravel(), scores.ravel()
    assert found.summary["roc_auc_micro"] == pytest.approx(roc_auc_score(*flat), abs=1e-12)
    assert found.summary["pr_auc_micro"] == pytest.approx(average_precision_score(*flat), abs=1e-12)
    for tag in range(5):
        column = labels[:, tag], scores[:, tag]
        assert found.roc_auc[tag] == pytest.approx(roc_auc_score(*column), abs=1e-12)
        assert found.pr_auc[tag] == pytest.approx(average_precision_score(*column), abs=1e-12)


THRESHOLDS = [0.3, None, 0.6, 0.5]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_precision_recall_and_f1_at_the_stored_thresholds_are_those_of_scikit_learn(seed, ties):
    from sklearn.metrics import precision_recall_fscore_support

    labels, scores = random_case(seed, ties=ties)
    metrics = multilabel_metrics(labels, scores, thresholds=THRESHOLDS)
    decided = [0, 2, 3]
    said = np.stack([scores[:, tag] >= np.float32(THRESHOLDS[tag]) for tag in decided], axis=1)
    for how in ("macro", "weighted", "micro"):
        expected = precision_recall_fscore_support(
            labels[:, decided], said, average=how, zero_division=0
        )
        names = [f"{name}_{how}" for name in ("precision", "recall", "f1")]
        assert [metrics.summary[name] for name in names] == pytest.approx(expected[:3])
    by_tag = precision_recall_fscore_support(labels[:, decided], said, zero_division=0)
    found = (metrics.precision, metrics.recall, metrics.f1)
    for values, expected in zip(found, by_tag[:3], strict=True):
        assert values[decided] == pytest.approx(expected)
        assert np.isnan(values[1])
    assert metrics.summary["n_tags_thresholded"] == 3


def test_without_stored_thresholds_there_is_no_precision():
    labels, scores = random_case(0)
    metrics = multilabel_metrics(labels, scores)
    assert np.isnan(metrics.precision).all() and np.isnan(metrics.summary["f1_macro"])
    assert metrics.summary["n_tags_thresholded"] == 0


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_no_threshold_has_a_higher_f1_than_the_best_one(seed, ties):
    from sklearn.metrics import f1_score

    labels, scores = random_case(seed, ties=ties)
    metrics = multilabel_metrics(labels, scores)
    for tag in range(4):
        column = scores[:, tag]
        at_best = f1_score(labels[:, tag], column >= np.float32(metrics.best_f1_threshold[tag]))
        others = [f1_score(labels[:, tag], column >= value) for value in np.unique(column)]
        assert metrics.best_f1[tag] == pytest.approx(at_best)
        assert metrics.best_f1[tag] == pytest.approx(max(others))


def test_d_prime_is_that_of_the_normal_quantile():
    from scipy.stats import norm

    for area in (0.01, 0.5, 0.9109, 0.999):
        assert d_prime(area) == pytest.approx(np.sqrt(2) * norm.ppf(area), abs=1e-12)
    assert (d_prime(1.0), d_prime(0.0)) == (np.inf, -np.inf)
    assert np.isnan(d_prime(float("nan")))


def test_d_prime_of_normal_scores_is_their_distance_in_deviations():
    rng = np.random.default_rng(0)
    labels = (np.arange(200_000) % 2).astype(np.uint8)[:, None]
    metrics = multilabel_metrics(labels, rng.normal(size=labels.shape) + 1.5 * labels)
    assert metrics.d_prime[0] == pytest.approx(1.5, abs=0.02)
    assert metrics.summary["d_prime_macro"] == metrics.d_prime[0]


def test_lift_is_how_much_better_than_chance_a_pr_auc_is():
    labels, scores = random_case(1)
    metrics = multilabel_metrics(labels, scores)
    assert metrics.lift == pytest.approx(metrics.pr_auc / labels.mean(axis=0))
    assert metrics.summary["lift_macro"] == pytest.approx(metrics.lift.mean())


def test_weighted_averages_count_a_tag_as_often_as_it_is_carried():
    labels, scores = random_case(2)
    metrics = multilabel_metrics(labels, scores)
    for name in ("roc_auc", "pr_auc"):
        expected = np.average(getattr(metrics, name), weights=labels.sum(axis=0))
        assert metrics.summary[f"{name}_weighted"] == pytest.approx(expected)


def test_hamming_loss_is_that_of_scikit_learn_and_stands_beside_that_of_saying_no():
    from sklearn.metrics import hamming_loss

    labels, scores = random_case(3)
    summary = multilabel_metrics(labels, scores).summary
    assert summary["hamming_loss"] == pytest.approx(hamming_loss(labels, scores >= 0.5))
    assert summary["hamming_loss_all_no"] == pytest.approx(labels.mean())


def test_tags_that_cannot_be_scored_are_left_out_and_counted():
    labels, scores = random_case(1, n_tags=5)
    labels[:, 1], labels[:, 3] = 0, 1
    metrics = multilabel_metrics(labels, scores)
    assert list(np.isnan(metrics.roc_auc)) == [False, True, False, True, False]
    assert list(np.isnan(metrics.pr_auc)) == [False, True, False, True, False]
    assert list(metrics.n_positive) == list(labels.sum(axis=0))
    assert (metrics.summary["n_tags"], metrics.summary["n_tags_scored"]) == (5, 3)
    kept = multilabel_metrics(labels[:, [0, 2, 4]], scores[:, [0, 2, 4]]).summary
    for name in ("roc_auc_macro", "pr_auc_macro", "roc_auc_micro", "pr_auc_micro", "positive_rate"):
        assert metrics.summary[name] == kept[name]


def test_without_any_tag_to_score_the_averages_are_nan():
    summary = multilabel_metrics(np.zeros((4, 2), np.uint8), np.full((4, 2), 0.3)).summary
    assert np.isnan([summary["roc_auc_macro"], summary["pr_auc_micro"]]).all()
    assert summary["n_tags_scored"] == 0


def test_saying_no_to_everything_has_the_accuracy_that_is_shown_beside():
    labels, _ = random_case(2)
    summary = multilabel_metrics(labels, np.full(labels.shape, 0.1)).summary
    assert summary["binary_accuracy"] == pytest.approx(summary["binary_accuracy_all_no"])
    assert summary["binary_accuracy_all_no"] == pytest.approx((labels == 0).mean())


def test_accuracy_counts_a_score_of_one_half_as_yes():
    labels = np.array([[1, 0], [0, 1]], np.uint8)
    scores = np.array([[0.5, 0.2], [0.49, 0.1]])
    assert multilabel_metrics(labels, scores).summary["binary_accuracy"] == 0.75


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(value):
    labels, scores = random_case(3)
    scores[5, 1] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        multilabel_metrics(labels, scores)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_nothing_to_score_is_refused(shape):
    with pytest.raises(ValueError, match="no clips or no tags"):
        multilabel_metrics(np.zeros(shape, np.uint8), np.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 3), (5, 2), (4,), (4, 2, 1)])
def test_shapes_that_do_not_fit_are_named(shape):
    with pytest.raises(ValueError, match="shape"):
        multilabel_metrics(np.ones((4, 2), np.uint8), np.ones(shape))


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([lambda x: 2 * x - 5, np.exp, lambda x: x**3]),
)
@settings(max_examples=20, deadline=None)
def test_only_the_order_of_scores_counts_for_a_tag(seed, monotone):
    labels, scores = random_case(seed, n_clips=20, n_tags=2)
    wide = scores.astype(np.float64)
    before, after = multilabel_metrics(labels, wide), multilabel_metrics(labels, monotone(wide))
    np.testing.assert_array_equal(before.roc_auc, after.roc_auc)
    np.testing.assert_array_equal(before.pr_auc, after.pr_auc)


def test_binary_cross_entropy_equals_that_of_keras():
    from tagger.network.keras import keras

    labels, scores = random_case(4)
    expected = keras.losses.binary_crossentropy(labels.astype(np.float32), scores).numpy().mean()
    assert binary_cross_entropy(labels, scores) == pytest.approx(expected, rel=1e-5)


def test_binary_cross_entropy_is_finite_where_a_model_is_sure_and_wrong():
    labels, scores = np.array([[1, 0]], np.uint8), np.array([[0, 1]], np.float32)
    assert binary_cross_entropy(labels, scores) == pytest.approx(-np.log(1e-7))
    assert binary_cross_entropy(labels, 1 - scores) == pytest.approx(0, abs=1e-6)


# Files of scores


def test_the_reference_scores_have_the_published_figures(shared):
    evaluation = evaluate_scores(shared / REFERENCE)
    summary = evaluation.measured.metrics.summary
    assert round(summary["roc_auc_macro"], 4) == 0.9109
    assert round(summary["pr_auc_macro"], 4) == 0.4509


def test_the_command_line_gives_the_published_figures(shared):
    command = [sys.executable, "-m", "tagger", "evaluate", str(shared / REFERENCE)]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(done.stdout)
    assert round(content["roc_auc_macro"], 4) == 0.9109
    assert round(content["pr_auc_macro"], 4) == 0.4509
    assert len(content["tags"]) == content["n_tags"] == 50


def save_scores(path, labels, scores, **more):
    np.savez(path, gt=labels, est=scores, **more)
    return path


def test_the_json_of_an_evaluation_has_null_for_what_cannot_be_computed(tmp_path):
    labels, scores = random_case(5, n_tags=3)
    labels[:, 1] = 0
    path = save_scores(tmp_path / "a.npz", labels, scores, tags=np.array(["x", "y", "ü"]))
    content = json.loads(json.dumps(evaluate_scores(path).to_json(), allow_nan=False))
    assert content["schema_version"] == 2 and content["source"] == str(path)
    assert [tag["tag"] for tag in content["tags"]] == ["x", "y", "ü"]
    figures = dict(content["tags"][1])
    assert (figures.pop("tag"), figures.pop("n_positive")) == ("y", 0)
    assert figures.pop("ece") is not None
    assert set(figures.values()) == {None}


def test_the_table_of_an_evaluation_names_scored_tags_best_first(tmp_path):
    labels, scores = random_case(5, n_tags=3)
    labels[:, 1] = 0
    scores[:, 2] = labels[:, 2]
    path = save_scores(tmp_path / "a.npz", labels, scores, tags=np.array(["x", "y", "z"]))
    table = evaluate_scores(path).table()
    assert "60 clips, 2 of 3 tags scored (1 without positives or negatives left out)" in table
    assert [line.split()[0] for line in table.splitlines()[-2:]] == ["z", "x"]


def test_the_table_names_the_tags_that_are_left_out_and_stays_narrow(tmp_path):
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 188)) < 0.3).astype(np.uint8)
    labels[:, 100:] = 0
    names = np.array([f"a tag of some length {number}" for number in range(188)])
    path = save_scores(tmp_path / "a.npz", labels, rng.random(labels.shape), tags=names)
    lines = evaluate_scores(path, n_draws=200).table().splitlines()
    assert "60 clips, 100 of 188 tags scored (88 without" in " ".join(lines[:3])
    assert any(line.startswith("left out: a tag of some length 100, ") for line in lines[:4])
    # Of a terminal; a path is not broken.
    assert all(len(line) <= 80 or line.startswith(str(tmp_path)) for line in lines)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"clip_ids": np.array(["a"])}, "clip_ids has 1 names for 2 rows"),
        ({"clip_ids": np.array(["a", "a"])}, "clip_ids holds a name twice"),
        ({"tags": np.array(["a", "a"])}, "tags holds a name twice"),
        ({"artists": np.array(["a", "b", "c"])}, "artists has 3 names for 2 rows"),
        ({"thresholds": np.zeros(3)}, "3 thresholds for 2 columns"),
        ({"thresholds": np.array(["a", "b"])}, "thresholds: could not convert"),
    ],
)
def test_names_and_thresholds_that_do_not_fit_are_named(tmp_path, arrays, said):
    path = save_scores(tmp_path / "a.npz", np.eye(2), np.eye(2), **arrays)
    with pytest.raises(ModelError) as caught:
        evaluate_scores(path)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_stored_thresholds_and_artists_of_an_archive_are_used(tmp_path):
    labels, scores = random_case(5)
    path = save_scores(
        tmp_path / "a.npz",
        labels,
        scores,
        thresholds=np.array([0.3, np.nan, 0.6, 0.5]),
        artists=np.array([f"artist {number % 12}" for number in range(60)]),
    )
    content = evaluate_scores(path, n_draws=200).to_json()
    assert content["n_tags_thresholded"] == 3 and content["tags"][0]["threshold"] == 0.3
    assert content["intervals"]["description"] == "clustered by artist, 12 artists"
    low, high = content["tags"][0]["pr_auc_interval"]
    assert low <= content["tags"][0]["pr_auc"] <= high


def test_an_evaluation_gives_labels_and_scores_again(tmp_path):
    labels, scores = random_case(5)
    evaluation = evaluate_scores(save_scores(tmp_path / "a.npz", labels, scores), n_draws=0)
    flags, values = evaluation.columns().column(2)
    np.testing.assert_array_equal(flags, labels[:, 2] != 0)
    np.testing.assert_array_equal(values, scores[:, 2])


def test_tags_without_names_are_numbered(tmp_path):
    labels, scores = random_case(6, n_tags=2)
    assert evaluate_scores(save_scores(tmp_path / "a.npz", labels, scores)).tags == (
        "tag 0",
        "tag 1",
    )


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "damaged", "npy", "pickled", "raw"])
def test_a_file_that_is_no_archive_of_scores_is_named(tmp_path, kind):
    import zipfile

    labels, scores = random_case(0)
    path = tmp_path / "scores.npz"
    np.savez_compressed(path, gt=labels, est=scores)
    whole = path.read_bytes()
    if kind == "pickled":
        np.savez(path, gt=np.array([{}, 1], object), est=scores)
    elif kind == "raw":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("est", "1 2 3")
            archive.writestr("gt", "1 0 1")
    else:
        damaged = whole[:60] + bytes(byte ^ 0x55 for byte in whole[60:120]) + whole[120:]
        content = {
            "text": b"not an archive",
            "empty": b"",
            "truncated": whole[: len(whole) // 2],
            "damaged": damaged,
        }
        if kind == "npy":
            with path.open("wb") as file:
                np.save(file, scores)
        else:
            path.write_bytes(content[kind])
    with pytest.raises(ModelError) as caught:
        evaluate_scores(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@given(st.data())
@settings(
    max_examples=150,
    deadline=None,
)
def test_no_damage_to_an_archive_is_more_than_an_error_that_names_it(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    labels, scores = random_case(0, n_clips=20)
    np.savez_compressed(path, gt=labels, est=scores)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        evaluation = evaluate_scores(path)
    except ModelError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert evaluation.measured.metrics.summary["n_clips"] == 20


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"est": np.zeros((2, 2))}, "lacks the array gt (it has est)"),
        ({"x": np.zeros(2)}, "lacks the arrays est and gt (it has x)"),
        ({"est": np.zeros((2, 2)), "gt": np.zeros((2, 3))}, "shape"),
        ({"est": np.zeros(2), "gt": np.zeros(2)}, "shape"),
        ({"est": np.zeros((0, 2)), "gt": np.zeros((0, 2))}, "no clips"),
        ({"est": np.full((2, 2), np.nan), "gt": np.eye(2)}, "NaN"),
        ({"est": np.full((2, 2), "a"), "gt": np.eye(2)}, "est"),
        ({"est": np.zeros((2, 2)), "gt": np.eye(2) * 2}, "values other than 0 and 1"),
        ({"est": np.zeros((2, 2)), "gt": np.eye(2) * np.nan}, "values other than 0 and 1"),
        ({"est": np.eye(2), "gt": np.eye(2), "tags": np.array(["a"])}, "1 names for 2 columns"),
        ({"est": np.eye(2) * 1j, "gt": np.eye(2)}, "est"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, arrays, said):
    path = tmp_path / "scores.npz"
    np.savez(path, **arrays)
    with pytest.raises(ModelError) as caught:
        evaluate_scores(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and said in message and "\n" not in message


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("labels_dtype", ["uint8", "bool", "float32", "int64"])
def test_an_archive_has_the_same_figures_however_it_is_read(tmp_path, dtype, labels_dtype):
    labels, scores = random_case(3, n_clips=333)
    scores = scores.astype(dtype)
    path = save_scores(tmp_path / "a.npz", labels.astype(labels_dtype), scores)
    expected = multilabel_metrics(labels, scores).summary
    np.testing.assert_equal(evaluate_scores(path).measured.metrics.summary, expected)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
def test_whole_numbers_are_measured_as_the_floating_ones_that_they_equal(tmp_path, dtype):
    labels, scores = random_case(3, n_clips=333)
    # With zeros, whose negative is no number beyond all others, and thresholds in between.
    scores = (90 * scores + 20 * labels - 15).clip(0).astype(dtype)
    found = []
    for scores_ in (scores, scores.astype(np.float64)):
        path = save_scores(
            tmp_path / "a.npz", labels, scores_, thresholds=np.array([0.5, 40.5, np.nan, 70.5])
        )
        evaluation = evaluate_scores(path, n_draws=200)
        curve = precision_over_recall(*evaluation.columns().column(0))
        found.append({**evaluation.to_json(), "curve": curve.tolist()})
    assert found[0] == found[1]
    assert found[0]["tags"][0]["threshold"] == 0.5 and found[0]["tags"][1]["recall"] < 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_threshold_between_neighbouring_scores_takes_the_upper_alone(dtype, steps):
    lower = dtype(0.7)
    for _ in range(10):
        upper = lower
        for _ in range(steps):
            upper = np.nextafter(upper, dtype(1))
        labels = np.array([[1], [1], [0], [0], [0]], np.uint8)
        scores = np.array([[upper], [upper], [lower], [lower], [0.1]], dtype)
        for threshold in (
            best_f1_thresholds(labels, scores)[0],
            thresholds_for_precision(labels, scores, 0.9)[0],
        ):
            np.testing.assert_array_equal(scores >= dtype(threshold), labels != 0)
        # Odd and even neighbours are rounded to different sides.
        lower = np.nextafter(lower, dtype(1))


def test_an_archive_that_lies_column_by_column_is_read(tmp_path):
    labels, scores = random_case(3)
    path = save_scores(tmp_path / "a.npz", np.asfortranarray(labels), np.asfortranarray(scores))
    expected = multilabel_metrics(labels, scores).summary
    np.testing.assert_equal(evaluate_scores(path).measured.metrics.summary, expected)


@pytest.fixture
def run(tmp_path_factory, tmp_path):
    """A trained run."""
    return shutil.copytree(small_run(tmp_path_factory), tmp_path / "run")


def test_a_model_whose_scores_are_no_numbers_is_to_be_trained_again(run, monkeypatch):
    def score_clips(model, store, *, rows, **_):
        return np.full((len(rows), len(model.tags)), np.nan, np.float32)

    monkeypatch.setattr("tagger.train.score_clips.score_clips", score_clips)
    with pytest.raises(ModelError, match=r"run: .*NaN.*; train again with a lower learning rate"):
        evaluate_run(run)


def test_no_other_trouble_is_put_down_to_the_learning_rate(run, monkeypatch):
    def score_clips(*_, **__):
        raise ValueError("of something else")

    monkeypatch.setattr("tagger.train.score_clips.score_clips", score_clips)
    with pytest.raises(ValueError, match=r"^of something else$"):
        evaluate_run(run)


def test_a_missing_file_of_scores_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.npz: no such file"):
        evaluate_scores(tmp_path / "gone.npz")


# Aggregation over time

WINDOW_SCORES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.floats(0, 1, width=32),
)


def pooled_by(how, scores, alpha=None):
    return pooling_head(how, alpha)({"scores": scores})


def alpha_for(scores, value):
    return np.full(scores.shape[1], value, np.float32)


@given(WINDOW_SCORES)
def test_mean_and_max_are_those_over_the_windows(scores):
    np.testing.assert_allclose(pooled_by("mean", scores), scores.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(pooled_by("max", scores), scores.max(axis=0))


@given(WINDOW_SCORES)
def test_autopool_goes_from_the_mean_over_the_softmax_to_the_maximum(scores):
    mean, maximum = scores.mean(axis=0), scores.max(axis=0)
    pooled = {
        alpha: pooled_by("autopool", scores, alpha_for(scores, alpha)) for alpha in (0, 1, 1e6)
    }
    np.testing.assert_allclose(pooled[0], mean, atol=1e-6)
    weights = np.exp(scores) / np.exp(scores).sum(axis=0)
    np.testing.assert_allclose(pooled[1], (weights * scores).sum(axis=0), atol=1e-6)
    np.testing.assert_allclose(pooled[1e6], maximum, atol=1e-5)


@given(WINDOW_SCORES, st.floats(0, 1e4))
def test_autopool_with_positive_alpha_lies_between_mean_and_maximum(scores, alpha):
    pooled = pooled_by("autopool", scores, alpha_for(scores, alpha))
    assert (pooled >= scores.mean(axis=0) - 1e-6).all()
    assert (pooled <= scores.max(axis=0) + 1e-6).all()


@given(WINDOW_SCORES, st.randoms(use_true_random=False))
@pytest.mark.parametrize("how", ["mean", "max", "autopool"])
def test_the_order_of_windows_does_not_matter(how, scores, random):
    alpha = None
    if how == "autopool":
        alpha = np.linspace(-3, 3, scores.shape[1], dtype=np.float32)
    order = random.sample(range(len(scores)), len(scores))
    shuffled = pooled_by(how, scores[order], alpha)
    np.testing.assert_allclose(shuffled, pooled_by(how, scores, alpha), atol=1e-6)


@pytest.mark.parametrize("how", ["mean", "max", "autopool"])
def test_a_single_window_is_its_own_clip_score(how):
    scores = np.array([[0.2, 0.9, 0.0]], np.float32)
    alpha = np.array([0, 5, 1e4], np.float32) if how == "autopool" else None
    pooled = pooled_by(how, scores, alpha)
    np.testing.assert_allclose(pooled, scores[0], atol=1e-7)
    assert pooled.dtype == np.float32


@pytest.mark.parametrize("alpha", [0.0, 1.0, -2.0, 30.0, 1e4])
def test_autopool_outside_the_network_equals_the_layer(alpha):
    from tagger.network.pooling import AutoPool

    scores = np.random.default_rng(0).random((9, 4), dtype=np.float32)
    kernel = np.array([0, 1, -1, 0.5], np.float32) + np.float32(alpha)
    layer = AutoPool()
    layer.build((None, None, 4))
    layer.set_weights([kernel[np.newaxis]])
    pooled = pooled_by("autopool", scores, kernel)
    np.testing.assert_allclose(layer(scores[np.newaxis]).numpy()[0], pooled, atol=1e-6)


def test_an_aggregation_that_cannot_be_done_is_refused():
    scores = np.zeros((2, 3), np.float32)
    with pytest.raises(ConfigError, match="median"):
        pooled_by("median", scores)
    with pytest.raises(ValueError, match="alpha"):
        pooled_by("autopool", scores)
