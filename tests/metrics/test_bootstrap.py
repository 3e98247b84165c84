"""Promises of the bootstrap: weighted areas, draws of clips and artists, intervals, differences."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from tagger.metrics import bootstrap
from tagger.metrics.bootstrap import (
    Draws,
    _Sorted,
    bootstrap_intervals,
    difference_of,
    plan_draws,
    resample,
)
from tagger.metrics.columns import ArrayColumns
from tagger.metrics.figures import metrics_of_columns


def intervals(columns, draws):
    return bootstrap_intervals(columns, draws, metrics=metrics_of_columns(columns))


def rare_tags(seed, *, n_clips, positives, quality):
    """Columns of 188 tags for each quality of the scores, with the same labels and noise."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n_clips, 188)) < positives).astype(np.uint8)
    noise = rng.normal(size=labels.shape)
    return [ArrayColumns(labels, noise + value * labels) for value in quality]


def case(seed, *, n_clips=80, n_tags=3, digits=2):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n_clips, n_tags)) < 0.3).astype(np.uint8)
    labels[0], labels[1] = 0, 1
    scores = (0.4 * labels + rng.random(labels.shape)).round(digits).astype(np.float32)
    return ArrayColumns(labels, scores), labels, scores


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 60),
    digits=st.sampled_from([0, 1, 6]),
    most=st.integers(1, 4),
)
@settings(max_examples=150, deadline=None)
def test_areas_of_weights_are_those_of_scikit_learn(seed, n, digits, most):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.4
    labels[0], labels[1] = True, False
    scores = rng.normal(size=n).round(digits)
    weights = rng.integers(0, most + 1, size=(n, 5)).astype(np.uint8)
    roc_auc, pr_auc = _Sorted(labels, scores).areas(weights)
    for draw in range(5):
        drawn = weights[:, draw] > 0
        if len(set(labels[drawn])) < 2:
            assert np.isnan([roc_auc[draw], pr_auc[draw]]).all()
            continue
        given_ = labels[drawn], scores[drawn]
        weight = weights[drawn, draw]
        assert roc_auc[draw] == pytest.approx(roc_auc_score(*given_, sample_weight=weight))
        assert pr_auc[draw] == pytest.approx(average_precision_score(*given_, sample_weight=weight))


@pytest.mark.parametrize("at_once", [1, 300, 10**6])
def test_micro_and_macro_of_each_draw_equal_those_of_the_repeated_clips(monkeypatch, at_once):
    monkeypatch.setattr(bootstrap, "_SORTED_AT_ONCE", at_once)
    columns, labels, scores = case(1)
    draws = plan_draws(80, 3, n=7)
    weights = np.concatenate(draws.weights(2), axis=1)
    (found,) = resample([columns], draws, tags=np.arange(3))
    for draw in range(7):
        rows = np.repeat(np.arange(80), weights[:, draw])
        drawn = labels[rows], scores[rows]
        by_tag = [
            average_precision_score(*pair) for pair in zip(*map(np.transpose, drawn), strict=True)
        ]
        assert found.per_tag["pr_auc"][:, draw] == pytest.approx(by_tag)
        assert found.summary["pr_auc_macro"][draw] == pytest.approx(np.mean(by_tag))
        expected = roc_auc_score(*(array.ravel() for array in drawn))
        assert found.summary["roc_auc_micro"][draw] == pytest.approx(expected)
        weighted = np.average(by_tag, weights=labels.sum(axis=0))
        assert found.summary["pr_auc_weighted"][draw] == pytest.approx(weighted)


def test_the_same_seed_gives_the_same_intervals_and_another_one_others():
    columns, *_ = case(2)
    first, again, other = (
        intervals(columns, plan_draws(80, 3, n=200, seed=seed)).summary for seed in (0, 0, 1)
    )
    assert first == again
    assert first["pr_auc_macro"] != other["pr_auc_macro"]


def test_clips_of_an_artist_are_drawn_together():
    artists = ["ann", "bob", "ann", "", "", "bob"]
    # Four groups alone would be too few.
    artists += [f"other {number}" for number in range(6)]
    draws = plan_draws(12, 1, artists=artists, n=300)
    weights = np.concatenate(draws.weights(100), axis=1)
    assert (weights[0] == weights[2]).all() and (weights[1] == weights[5]).all()
    # Clips without an artist are no artist of their own.
    assert (weights[3] != weights[4]).any()
    # Ten groups are drawn ten times.
    assert (weights[[0, 1, 3, 4, *range(6, 12)]].sum(axis=0) == 10).all()
    assert draws.description == "clustered by artist, 8 artists; 2 clips without one by themselves"


def test_clips_of_few_artists_have_wider_intervals_than_as_many_single_clips():
    rng = np.random.default_rng(0)
    # What an artist's clips score depends on the artist alone.
    artist = np.repeat(np.arange(12), 25)
    labels = (np.arange(300) % 2).astype(np.uint8)[:, None]
    scores = (labels[:, 0] * rng.normal(0.5, 1, 12)[artist])[:, None].astype(np.float32)
    scores = scores + rng.normal(0, 0.3, scores.shape)
    columns = ArrayColumns(labels, scores)
    widths = [
        np.diff(intervals(columns, draws).summary["roc_auc_macro"])
        for draws in (
            plan_draws(300, 1, n=400),
            plan_draws(300, 1, artists=list(map(str, artist)), n=400),
        )
    ]
    assert widths[1] > 2 * widths[0]


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    # Two normal distributions one deviation apart have a ROC-AUC of 0.7602.
    rng = np.random.default_rng(3)
    held = 0
    for number in range(200):
        labels = (rng.random((100, 1)) < 0.5).astype(np.uint8)
        columns = ArrayColumns(labels, labels + rng.normal(size=labels.shape))
        draws = plan_draws(100, 1, n=200, seed=number)
        low, high = intervals(columns, draws).summary["roc_auc_macro"]
        held += low <= 0.7602 <= high
    assert 180 <= held <= 198


@pytest.mark.parametrize("name", ["roc_auc_macro", "pr_auc_macro", "pr_auc_weighted"])
def test_of_rare_tags_too_a_figure_lies_well_within_its_interval(name):
    (columns,) = rare_tags(0, n_clips=100, positives=0.03, quality=[1.0])
    point = metrics_of_columns(columns).summary[name]
    low, high = intervals(columns, plan_draws(100, 188, n=300)).summary[name]
    margin = 0.25 * (high - low)
    assert 0.02 < high - low < 0.2
    assert low + margin < point < high - margin


def test_of_rare_tags_too_a_difference_lies_well_within_its_interval():
    models = rare_tags(1, n_clips=1000, positives=0.005, quality=[0.5, 1.5])
    metrics = [metrics_of_columns(model) for model in models]
    a, b = resample(models, plan_draws(1000, 188, n=200), tags=metrics[0].scored)
    name = "pr_auc_macro"
    points = metrics[0].summary[name], metrics[1].summary[name]
    found = difference_of(name, points, (a.summary[name], b.summary[name]))
    low, high = found.interval
    margin = 0.25 * (high - low)
    assert low + margin < found.difference < high - margin


def test_an_interval_never_leaves_0_to_1_nor_its_figure():
    (columns,) = rare_tags(6, n_clips=60, positives=0.04, quality=[0.5])
    metrics = metrics_of_columns(columns)
    found = intervals(columns, plan_draws(60, 188, n=200)).per_tag
    for name in ("roc_auc", "pr_auc"):
        points = getattr(metrics, name)[metrics.scored]
        low, high = found[name][metrics.scored].T
        assert (low >= 0).all() and (low <= points).all()
        assert (points <= high).all() and (high <= 1).all()
    # Some would be below.
    assert (found["pr_auc"][metrics.scored, 0] == 0).any()


def test_where_no_draw_can_score_a_tag_its_interval_is_null():
    labels = np.zeros((12, 1), np.uint8)
    labels[0] = 1
    columns = ArrayColumns(labels, np.linspace(0, 1, 12)[:, None])
    seed = next(
        seed for seed in range(50) if not plan_draws(12, 1, n=1, seed=seed).weights(1)[0][0, 0]
    )
    found = intervals(columns, plan_draws(12, 1, n=1, seed=seed))
    assert np.isnan(found.per_tag["pr_auc"]).all()
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["pr_auc_macro"] is None and content["n_draws"] == 1


@pytest.mark.parametrize(
    ("artists", "said"),
    [
        (["ann"] * 40, "1 artists are too few to draw from, 10 are needed"),
        (["ann", "bob"] * 18 + [""] * 4, "2 artists and 4 clips without one are too few"),
        ([""] * 9, "9 clips are too few"),
    ],
)
def test_of_few_artists_or_clips_there_are_no_intervals_and_it_is_said_why(artists, said):
    draws = plan_draws(len(artists), 1, artists=artists, n=300)
    assert draws.n == 0 and draws.note.startswith(f"no intervals: {said}")


def test_ten_artists_are_enough_to_draw_from():
    assert plan_draws(20, 1, artists=[str(number % 10) for number in range(20)], n=300).n == 300


@pytest.mark.parametrize(
    ("size", "n", "said"),
    [
        ((5_000, 188), 1000, ""),
        ((50_000, 188), 425, "425 draws instead of 1000: 50000 clips x 188 tags are many"),
        ((1_000_000, 188), 0, "no intervals: 1000000 clips x 188 tags are too many"),
    ],
)
def test_what_takes_too_long_is_drawn_less_often_or_not_at_all_and_says_so(size, n, said):
    draws = plan_draws(*size)
    assert draws.n == n and draws.note.startswith(said)


def test_without_draws_there_are_no_intervals_and_the_description_says_why():
    columns, *_ = case(4)
    draws = Draws(0, 0, np.arange(80), "over clips", "no intervals: too many")
    found = intervals(columns, draws)
    assert found.summary == {} and np.isnan(found.per_tag["pr_auc"]).all()
    assert found.describe() == "no intervals: too many"


def test_a_model_does_not_differ_from_itself():
    columns, *_ = case(5)
    first, second = resample([columns, columns], plan_draws(80, 3, n=300), tags=np.arange(3))
    for name, values in first.summary.items():
        found = difference_of(name, (0.5, 0.5), (values, second.summary[name]))
        assert (found.interval, found.p, found.real) == ((0.0, 0.0), 1.0, False)


def test_a_difference_in_each_draw_is_real_and_one_of_chance_is_not():
    rng = np.random.default_rng(0)
    base = rng.normal(0.5, 0.1, 999)
    better = difference_of("x", (0.5, 0.6), (base, base + 0.1))
    assert better.real and better.p == pytest.approx(2 / 1000)
    chance = difference_of("x", (0.5, 0.5), (base, base + rng.normal(0, 0.1, 999)))
    assert not chance.real and chance.p > 0.05


def test_pairing_finds_a_small_difference_that_single_intervals_hide():
    rng = np.random.default_rng(1)
    labels = (rng.random((400, 1)) < 0.4).astype(np.uint8)
    base = labels + rng.normal(0, 1.5, labels.shape)
    models = [
        ArrayColumns(labels, base),
        ArrayColumns(labels, base + 0.15 * labels),
    ]
    draws = plan_draws(400, 1, n=500)
    (a, b) = resample(models, draws, tags=np.arange(1))
    points = tuple(metrics_of_columns(model).summary["pr_auc_macro"] for model in models)
    found = difference_of("x", points, (a.summary["pr_auc_macro"], b.summary["pr_auc_macro"]))
    assert found.real
    alone = [intervals(m, draws).summary["pr_auc_macro"] for m in models]
    assert alone[0][1] > alone[1][0]
