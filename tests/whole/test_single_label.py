"""Promises of the task with one label for each clip."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference
from small_store import make_store, small_config

from tagger.base.errors import ConfigError
from tagger.evaluate.compare import compare
from tagger.evaluate.evaluate import evaluate_run, evaluate_scores
from tagger.metrics.columns import ArrayColumns
from tagger.metrics.decisions import fit_unknown_threshold
from tagger.metrics.score_files import write_scores
from tagger.metrics.single_label import TITLES, mcnemar, single_label_figures
from tagger.network.task import TASKS
from tagger.tagging.prediction import UNKNOWN, Prediction
from tagger.tagging.records import Selection, make_record
from tagger.tagging.tagger import Tagger
from tagger.train.loop import train

NAMES = ("blues", "disco", "metal", "pop", "rock")


def random_case(seed, *, n_clips=200, n_labels=5, skill=0.4):
    """Labels, and probabilities that favour them somewhat."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, n_labels, n_clips)
    scores = rng.random((n_clips, n_labels))
    scores[np.arange(n_clips), label] += skill
    scores = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    return np.eye(n_labels, dtype=np.uint8)[label], scores


@given(st.integers(0, 10_000), st.integers(4, 7), st.floats(0, 1))
def test_figures_are_those_of_scikit_learn(seed, n_labels, skill):
    labels, scores = random_case(seed, n_clips=150, n_labels=n_labels, skill=skill)
    found = single_label_figures(labels, scores).summary
    true, said = labels.argmax(axis=1), scores.argmax(axis=1)
    wide = scores.astype(np.float64)
    macro = {"average": "macro", "zero_division": 0}
    expected = {
        "accuracy": reference.accuracy_score(true, said),
        "balanced_accuracy": reference.balanced_accuracy_score(true, said),
        "precision_macro": reference.precision_score(true, said, **macro),
        "recall_macro": reference.recall_score(true, said, **macro),
        "f1_macro": reference.f1_score(true, said, **macro),
        "top_3": reference.top_k_accuracy_score(true, scores, k=3),
        "roc_auc_macro": reference.roc_auc_score(labels, scores),
        "pr_auc_macro": reference.average_precision_score(labels, scores),
        "log_loss": reference.log_loss(true, wide / wide.sum(axis=1, keepdims=True)),
    }
    assert list(found) == list(TITLES)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-6), name


def test_the_confusion_matrix_has_labels_in_rows_and_what_was_said_in_columns():
    labels = np.eye(3, dtype=np.uint8)[[0, 0, 1, 2]]
    scores = np.eye(3, dtype=np.float32)[[0, 2, 2, 2]]
    figures = single_label_figures(labels, scores)
    assert figures.matrix.tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 1]]
    assert figures.confused(5) == [(0, 2, 1), (1, 2, 1)]


def test_the_most_frequent_label_is_the_baseline():
    labels = np.eye(4, dtype=np.uint8)[[0] * 6 + [1] * 2 + [2] + [3]]
    constant = np.tile(np.float32([0.6, 0.2, 0.1, 0.1]), (10, 1))
    figures = single_label_figures(labels, constant)
    for name, value in figures.summary.items():
        assert figures.majority[name] == pytest.approx(value, abs=1e-6), name


def test_intervals_hold_the_figure_and_are_wider_by_artist():
    labels, scores = random_case(1, n_clips=240)
    # Clips of one artist are alike: copies of one.
    copies = np.repeat(np.arange(60), 4)
    labels, scores = labels[copies], scores[copies]
    widths = []
    for artists in ((), [f"artist {number}" for number in copies]):
        figures = single_label_figures(labels, scores, artists=artists, n_draws=400)
        for name, (low, high) in figures.intervals.items():
            assert low <= figures.summary[name] <= high
        low, high = figures.intervals["accuracy"]
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


@pytest.mark.parametrize("row", [[1, 1, 0], [0, 0, 0]])
def test_a_clip_without_exactly_one_label_is_refused(row):
    labels = np.array([[1, 0, 0], row], np.uint8)
    with pytest.raises(ValueError, match=r"clip 2 has \d labels; .*task multilabel"):
        single_label_figures(labels, np.full((2, 3), 0.3, np.float32))


@given(st.integers(0, 10_000))
def test_the_threshold_of_unknown_has_the_highest_f1_of_all(seed):
    labels, scores = random_case(seed, n_clips=40)
    (threshold, *others) = fit_unknown_threshold(
        labels, scores, method="none", precision=None
    ).thresholds
    assert set(others) == {threshold}
    right = labels.argmax(axis=1) == scores.argmax(axis=1)

    def f1(limit):
        answered = scores.max(axis=1) >= np.float32(limit)
        return 2 * (answered & right).sum() / (answered.sum() + len(labels))

    assert f1(threshold) == max(f1(limit) for limit in scores.max(axis=1))


def test_a_wanted_share_of_right_answers_is_reached_or_there_is_no_threshold():
    labels, scores = random_case(3, skill=0.6)
    (threshold, *_) = fit_unknown_threshold(
        labels, scores, method="none", precision=0.95
    ).thresholds
    answered = scores.max(axis=1) >= np.float32(threshold)
    right = labels.argmax(axis=1) == scores.argmax(axis=1)
    assert 0 < answered.sum() < len(labels)
    assert right[answered].mean() >= 0.95
    wrong = np.roll(labels, 1, axis=1)
    none = fit_unknown_threshold(wrong, labels.astype(np.float32), method="none", precision=0.5)
    assert none.thresholds is None


def test_labels_that_exclude_one_another_are_not_calibrated_one_by_one():
    labels, scores = random_case(0)
    with pytest.raises(ConfigError, match=r"calibration\.method=isotonic.*set it to none"):
        TASKS.create("single_label", {}).decisions(
            labels, scores, method="isotonic", precision=None
        )


def test_what_was_measured_says_how_many_answers_are_right_with_unknown():
    labels, scores = random_case(2)
    task = TASKS.create("single_label", {})
    measured = task.measure(
        ArrayColumns(labels, scores),
        thresholds=np.full(5, 0.3),
        calibration=None,
        artists=[],
        n_draws=0,
        seed=0,
    )
    content = measured.to_json(NAMES)["unknown"]
    answered = scores.max(axis=1) >= np.float32(0.3)
    right = labels.argmax(axis=1) == scores.argmax(axis=1)
    assert content == {
        "threshold": 0.3,
        "n_answered": answered.sum(),
        "n_right": (answered & right).sum(),
    }
    assert measured.rows(NAMES)[1][0][0] == "blues"


def test_the_loss_is_the_cross_entropy_of_the_label():
    labels, scores = random_case(4, n_clips=30)
    found = TASKS.create("single_label", {}).loss(labels.astype(np.float32), scores)
    expected = reference.log_loss(labels.argmax(axis=1), scores.astype(np.float64))
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_mcnemars_test_counts_the_clips_on_which_one_alone_is_right():
    from scipy.stats import binomtest

    first = np.array([True] * 12 + [False] * 3 + [True] * 20)
    second = np.array([False] * 12 + [True] * 3 + [True] * 20)
    n_first, n_second, p = mcnemar(first, second)
    assert (n_first, n_second) == (12, 3)
    assert p == pytest.approx(binomtest(3, 15).pvalue)
    assert mcnemar(first, first) == (0, 0, 1.0)


def test_two_models_of_labels_are_compared_by_accuracy(tmp_path):
    paths = []
    for name, skill in (("a", 0.2), ("b", 1.0)):
        labels, scores = random_case(5, skill=skill)
        paths.append(tmp_path / f"{name}.npz")
        ids = [f"clip {number}" for number in range(len(labels))]
        columns = ArrayColumns(labels, scores)
        write_scores(paths[-1], columns, tags=NAMES, clip_ids=ids, task="single_label")
    found = compare(*paths, n_draws=300)
    accuracy = next(item for item in found.summary if item.name == "accuracy")
    assert accuracy.real and accuracy.difference > 0.2
    assert found.mcnemar[1] > found.mcnemar[0] and found.mcnemar[2] < 0.001
    assert "McNemar's p 0.000" in found.table()
    assert evaluate_scores(paths[0], n_draws=0).measured.summary["accuracy"] < 0.9


def test_scores_of_an_unknown_task_are_refused(tmp_path):
    labels, scores = random_case(5)
    ids = [str(number) for number in range(len(labels))]
    path = tmp_path / "a.npz"
    write_scores(path, ArrayColumns(labels, scores), tags=NAMES, clip_ids=ids, task="gone")
    with pytest.raises(ConfigError, match="unknown task 'gone'"):
        evaluate_scores(path)


def prediction(scores, *, threshold=None, decides_one=True):
    scores = np.array(scores, np.float32)
    thresholds = None if threshold is None else np.full(len(scores), threshold, np.float32)
    taggram = np.stack([scores, scores[::-1]])
    times = np.array([0.0, 1.0])
    names = NAMES[: len(scores)]
    return Prediction(
        "a.wav", names, scores, taggram, times, 1.0, 2.0, False, thresholds, decides_one
    )


def shown(item, **options):
    return [
        (row.label, round(row.score, 3)) for row in make_record(item, Selection(**options)).rows
    ]


def test_one_label_is_shown_and_unknown_below_the_threshold():
    assert shown(prediction([0.2, 0.7, 0.1])) == [("disco", 0.7)]
    assert shown(prediction([0.2, 0.7, 0.1], threshold=0.7)) == [("disco", 0.7)]
    assert shown(prediction([0.2, 0.7, 0.1], threshold=0.8)) == [(UNKNOWN, 0.7)]
    assert shown(prediction([0.2, 0.7, 0.1], threshold=float("nan"))) == [("disco", 0.7)]


def test_the_scores_of_all_labels_are_shown_to_who_asks_for_more():
    item = prediction([0.2, 0.7, 0.1], threshold=0.8)
    assert shown(item, top_k=2) == [("disco", 0.7), ("blues", 0.2)]
    assert shown(item, threshold=0.15) == [("disco", 0.7), ("blues", 0.2)]
    assert shown(item, segments="windows") == [("disco", 0.7), ("disco", 0.7)]
    assert len(shown(prediction([0.2, 0.7, 0.1], decides_one=False))) == 3


def test_a_network_learns_labels_and_its_bundle_decides_for_one(tmp_path, command):
    store = make_store(tmp_path / "store", n_clips=48, one_tag=True)
    settings = ("train.monitor=accuracy", "train.learning_rate=0.01", "train.epochs=8")
    train(small_config(tmp_path, "task.name=single_label", *settings))
    evaluation = evaluate_run(tmp_path / "run", n_draws=0)
    assert evaluation.measured.summary["accuracy"] > 0.8
    tagger = Tagger.load(tmp_path / "run")
    found = tagger.predict_windows(store.read(4))
    assert found.scores.sum() == pytest.approx(1, abs=1e-3)
    assert found.label[0] in (store.tags[4 % 3], UNKNOWN)
    code, out, _ = command("evaluate", tmp_path / "run", "--draws", "0")
    assert code == 0
    assert "accuracy" in out and "most frequent label" in out
    (page,) = (path.read_text() for path in (tmp_path / "run/evaluation/test").glob("*.html"))
    assert "always the most frequent label" in page
