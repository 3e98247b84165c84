"""Promises of calibration: errors by definition, maps that keep the order, thresholds, files."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import RATE, noise
from sklearn.isotonic import IsotonicRegression
from small_bundle import make_bundle
from small_model import small_run

from tagger.base.errors import ModelError
from tagger.bundle.export import export_run
from tagger.bundle.read import Bundle
from tagger.config import CalibrationConfig
from tagger.metrics.calibration import (
    METHODS,
    CalibratedColumns,
    Calibration,
    Isotonic,
    Temperature,
    fit_calibration,
    measure_reliability,
)
from tagger.metrics.columns import ArrayColumns
from tagger.metrics.figures import multilabel_metrics, thresholds_for_precision
from tagger.network.task import TASKS
from tagger.runs.folder import RunFolder
from tagger.tagging.tagger import Tagger
from tagger.train.decisions import fit_decisions, refit_decisions, save_decisions

TASK = TASKS.create("multilabel", {})


def case(seed, *, n_clips=300, n_tags=3, temperature=1.0, digits=6):
    """Labels, and scores whose logits are those of the truth divided by `temperature`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.5, 2, (n_clips, n_tags))
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    labels[0], labels[1] = 0, 1
    scores = 1 / (1 + np.exp(-logits / temperature))
    return labels, scores.round(digits).astype(np.float32)


# Errors


def test_the_expected_calibration_error_is_that_of_its_definition():
    labels, scores = case(0)
    found = measure_reliability(ArrayColumns(labels, scores))
    for tag in range(3):
        total = 0.0
        for number in range(15):
            low, high = number / 15, (number + 1) / 15
            wide = scores[:, tag].astype(np.float64)
            within = (wide >= low) & ((wide < high) | (number == 14))
            if within.any():
                gap = wide[within].mean() - labels[within, tag].mean()
                total += within.mean() * abs(gap)
        assert found.errors()[tag] == pytest.approx(total)


def test_scores_that_are_right_on_average_have_no_error_and_others_have():
    labels = np.array([[1], [0], [0], [0]], np.uint8)
    right = measure_reliability(ArrayColumns(labels, np.full((4, 1), 0.25)))
    assert right.error([0]) == 0
    wrong = measure_reliability(ArrayColumns(labels, np.full((4, 1), 0.75)))
    assert wrong.error([0]) == 0.5
    mean, share, counts = wrong.curve([0])
    assert (mean[11], share[11], counts[11]) == (0.75, 0.25, 4)
    assert np.isnan(mean[0])


def test_a_score_of_one_is_in_the_last_bin():
    found = measure_reliability(ArrayColumns(np.ones((2, 1), np.uint8), np.ones((2, 1))))
    assert found.n_decisions[0].tolist() == [0] * 14 + [2]


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_scores_that_are_no_probabilities_have_no_reliability(value):
    assert measure_reliability(ArrayColumns(np.eye(2), np.full((2, 2), value))) is None


# Maps


@given(seed=st.integers(0, 2**31), digits=st.sampled_from([1, 2, 7]), n=st.integers(3, 200))
@settings(max_examples=100, deadline=None)
def test_isotonic_curves_are_those_of_scikit_learn(seed, digits, n):
    labels, scores = case(seed, n_clips=n, n_tags=1, digits=digits)
    calibration = fit_calibration(labels, scores, method="isotonic", least=1)
    judge = IsotonicRegression(out_of_bounds="clip")
    judge.fit(scores[:, 0].astype(np.float64), labels[:, 0])
    asked = np.linspace(0, 1, 97)
    found = calibration.column(0, asked)
    # But for the thousandth of the score itself that keeps the order on its levels.
    np.testing.assert_allclose(found, 0.999 * judge.predict(asked) + 0.001 * asked, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_temperature_is_found_again(temperature):
    labels, scores = case(1, n_clips=20_000, n_tags=2, temperature=temperature)
    calibration = fit_calibration(labels, scores, method="temperature")
    for item in calibration.maps:
        assert item.temperature == pytest.approx(1 / temperature, rel=0.05)


def test_a_temperature_has_the_least_cross_entropy_of_all():
    from scipy.optimize import minimize_scalar

    labels, scores = case(2, n_tags=1, temperature=3)
    wide = scores[:, 0].astype(np.float64)
    logits = np.log(wide) - np.log1p(-wide)
    n = np.bincount(labels[:, 0])
    targets = np.where(labels[:, 0] != 0, (n[1] + 1) / (n[1] + 2), 1 / (n[0] + 2))

    def cross_entropy(temperature):
        losses = [np.logaddexp(0, sign * logits / temperature) for sign in (-1, 1)]
        return (targets * losses[0] + (1 - targets) * losses[1]).mean()

    best = minimize_scalar(cross_entropy, bounds=(0.05, 20), method="bounded").x
    (found,) = fit_calibration(labels, scores, method="temperature").maps
    assert found.temperature == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 60))
@settings(max_examples=50, deadline=None)
def test_calibrated_scores_keep_their_order_and_stay_between_0_and_1(method, seed, n):
    labels, scores = case(seed, n_clips=n)
    calibrated = fit_calibration(labels, scores, method=method, least=1)(scores)
    assert calibrated.dtype == np.float32 and ((calibrated >= 0) & (calibrated <= 1)).all()
    for tag in range(3):
        order = np.argsort(scores[:, tag])
        assert (np.diff(calibrated[order, tag]) >= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_calibration_changes_neither_roc_auc_nor_pr_auc(method):
    calibration = fit_calibration(*case(10, n_clips=200), method=method)
    # Clips that it was not fitted on, whose scores all differ.
    labels, scores = case(11, n_clips=2000, digits=12)
    before = multilabel_metrics(labels, scores)
    after = multilabel_metrics(labels, calibration(scores))
    # As float32 some neighbours become equal.
    np.testing.assert_allclose(after.roc_auc, before.roc_auc, atol=2e-4)
    np.testing.assert_allclose(after.pr_auc, before.pr_auc, atol=2e-4)


def timid(seed, *, n_clips):
    """Clips that a network tells apart well, with scores that are far too cautious."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n_clips, 20)) < 0.4).astype(np.uint8)
    logits = np.where(labels, 2.6, -2.6) + rng.normal(0, 1.2, labels.shape)
    return labels, (1 / (1 + np.exp(-0.8 * logits))).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_calibration_on_24_clips_keeps_the_ranking_and_lowers_the_error(method):
    calibration = fit_calibration(*timid(0, n_clips=24), method=method)
    labels, scores = timid(1, n_clips=4000)
    calibrated = calibration(scores)
    for tag in range(20):
        assert len(np.unique(calibrated[:, tag])) > 0.9 * len(np.unique(scores[:, tag]))
    before, after = multilabel_metrics(labels, scores), multilabel_metrics(labels, calibrated)
    np.testing.assert_allclose(after.roc_auc, before.roc_auc, atol=2e-4)
    np.testing.assert_allclose(after.pr_auc, before.pr_auc, atol=2e-4)
    if method == "temperature":
        errors = [
            measure_reliability(ArrayColumns(labels, found)).error(range(20))
            for found in (scores, calibrated)
        ]
        assert errors[1] <= errors[0] + 0.001


@pytest.mark.parametrize("factor", [1e-6, 1e-12])
def test_scores_very_near_0_stay_different(factor):
    labels, scores = timid(2, n_clips=200)
    small = (factor * scores).astype(np.float32)
    calibrated = fit_calibration(labels, small, method="temperature")(small)
    for tag in range(20):
        assert len(np.unique(calibrated[:, tag])) >= 0.99 * len(np.unique(small[:, tag]))


def test_tags_of_too_few_clips_keep_their_scores_and_this_is_said(capsys):
    labels, scores = case(12, n_clips=40)
    labels[:, 1] = 0
    labels[:4, 1] = 1
    found = fit_decisions(
        TASK, CalibrationConfig(method="temperature"), labels=labels, scores=scores
    )
    assert [item is None for item in found.calibration.maps] == [False, True, False]
    assert capsys.readouterr().err == (
        "warning: calibration: 1 of 3 tags keep their scores, as fewer than 5 of 40 validation "
        "clips carry them or do not; calibrate with more clips\n"
    )


@pytest.mark.parametrize("method", METHODS)
def test_calibration_lowers_the_error_on_clips_that_it_was_not_fitted_on(method):
    calibration = fit_calibration(*case(3, n_clips=2000, temperature=0.3), method=method)
    before = ArrayColumns(*case(4, n_clips=2000, temperature=0.3))
    after = measure_reliability(CalibratedColumns(before, calibration))
    assert after.error([0, 1, 2]) < 0.5 * measure_reliability(before).error([0, 1, 2])


@pytest.mark.parametrize("method", METHODS)
def test_a_tag_without_positives_or_negatives_stays_as_it_is(method):
    labels, scores = case(5)
    labels[:, 0], labels[:, 2] = 0, 1
    calibration = fit_calibration(labels, scores, method=method)
    assert [item is None for item in calibration.maps] == [True, False, True]
    np.testing.assert_array_equal(calibration(scores)[:, [0, 2]], scores[:, [0, 2]])


@pytest.mark.parametrize("method", METHODS)
def test_scores_of_exactly_0_and_1_are_calibrated_to_numbers(method):
    labels = np.array([[1], [0], [1], [0]], np.uint8)
    scores = np.array([[1], [0], [0], [1]], np.float32)
    assert np.isfinite(fit_calibration(labels, scores, method=method, least=1)(scores)).all()


# Thresholds


@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.95])
def test_a_threshold_for_a_precision_reaches_it_with_the_highest_recall(wanted):
    labels, scores = case(6, digits=2)
    for tag, threshold in enumerate(thresholds_for_precision(labels, scores, wanted)):
        said = scores[:, tag] >= np.float32(threshold)
        assert labels[said, tag].mean() >= wanted
        for other in np.unique(scores[:, tag]):
            more = scores[:, tag] >= other
            if more.sum() > said.sum():
                assert labels[more, tag].mean() < wanted


def test_a_precision_that_is_never_reached_gives_the_highest_there_is():
    labels = np.array([[0], [1], [0], [0]], np.uint8)
    scores = np.array([[0.9], [0.8], [0.3], [0.1]], np.float32)
    (threshold,) = thresholds_for_precision(labels, scores, 0.9)
    assert 0.3 < threshold <= 0.8


def test_thresholds_are_fitted_to_calibrated_scores():
    labels, scores = case(7, temperature=0.3)
    config = CalibrationConfig(method="isotonic", thresholds="precision", precision=0.8)
    found = fit_decisions(TASK, config, labels=labels, scores=scores)
    assert found.thresholds == thresholds_for_precision(labels, found.calibration(scores), 0.8)


# Files


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_is_the_same_after_a_file(method):
    labels, scores = case(8)
    labels[:, 1] = 0
    calibration = fit_calibration(labels, scores, method=method)
    content = json.loads(json.dumps(calibration.to_json(), allow_nan=False))
    assert Calibration.from_json(content, n_tags=3) == calibration


GOOD = Calibration("temperature", (Temperature(2.0), None, Temperature(0.5)))


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"method": "magic"},
        {"tags": []},
        {"tags": None},
        {"tags": [1, 2, 3]},
        {"tags": [{"temperature": 0}] * 3},
        {"tags": [{"temperature": float("nan")}] * 3},
        {"tags": [{"temperature": "x"}] * 3},
        {"method": "isotonic", "tags": [{"scores": [0.1, 0.2], "values": [0.2, 0.1]}] * 3},
        {"method": "isotonic", "tags": [{"scores": [0.1, 0.2], "values": [0.2]}] * 3},
        {"method": "isotonic", "tags": [{"scores": [], "values": []}] * 3},
        {"method": "isotonic", "tags": [{"scores": [0.1], "values": [1.5]}] * 3},
    ],
)
def test_a_file_that_holds_no_calibration_is_refused(change):
    with pytest.raises(ValueError, match=r".+"):
        Calibration.from_json({**GOOD.to_json(), **change}, n_tags=3)


@pytest.fixture
def run(tmp_path_factory, tmp_path, remembered_conversions):
    """A trained run."""
    return shutil.copytree(small_run(tmp_path_factory), tmp_path / "run")


def calibrated(run, **config):
    labels, scores = case(9, temperature=0.4)
    settings_ = CalibrationConfig(**config)
    return save_decisions(RunFolder(run), TASK, settings_, labels=labels, scores=scores)


def test_the_bundle_of_a_calibrated_run_gives_calibrated_scores(run):
    plain = Tagger.load(run).predict(noise(3), RATE)
    decisions = calibrated(run, method="temperature")
    assert export_run(run)
    tagger = Tagger.load(run)
    prediction = tagger.predict(noise(3), RATE)
    assert not np.allclose(prediction.scores, plain.scores)
    np.testing.assert_allclose(prediction.scores, decisions.calibration(plain.scores), atol=1e-6)
    # Windows go by the same curve: the threshold of a tag means the same for them.
    np.testing.assert_allclose(prediction.taggram, decisions.calibration(plain.taggram), atol=1e-6)
    np.testing.assert_allclose(tagger.thresholds, np.float32(decisions.thresholds))
    assert "calibration.json" in Bundle(run / "bundle").checksums
    assert export_run(run) == []


def test_a_calibration_that_is_taken_back_is_gone_from_run_and_bundle(run):
    calibrated(run, method="isotonic")
    export_run(run)
    calibrated(run, method="none")
    assert export_run(run)
    assert not (run / "calibration.json").exists()
    assert Bundle(run / "bundle").calibration() is None


def test_a_calibrated_bundle_is_another_version(run):
    before = Bundle(run / "bundle").version
    calibrated(run, method="temperature")
    export_run(run)
    assert Bundle(run / "bundle").version != before


@pytest.mark.campaign
def test_a_bundle_without_a_calibration_is_read_as_before(tmp_path):
    assert make_bundle(tmp_path / "bundle").calibration() is None


def test_a_damaged_calibration_of_a_run_is_named(run):
    (run / "calibration.json").write_text('{"method": 3}')
    with pytest.raises(ModelError, match=r"calibration\.json: damaged"):
        RunFolder(run).load_calibration(n_tags=3)


def test_a_run_is_calibrated_anew_by_the_command(run, command):
    calibrated(run)
    code, out, _ = command("calibrate", run, "--method", "isotonic", "--precision", "0.8")
    assert code == 0
    assert "calibration isotonic, 3 of 3 thresholds for precision 0.8" in out
    assert isinstance(Bundle(run / "bundle").calibration().maps[0], Isotonic)


def test_what_a_run_was_calibrated_with_is_kept_by_the_next_call(run, command):
    calibrated(run)
    assert command("calibrate", run, "--method", "temperature", "--precision", "0.8")[0] == 0
    code, out, _ = command("calibrate", run)
    assert code == 0
    assert "calibration temperature, 3 of 3 thresholds for precision 0.8" in out
    assert RunFolder(run).load_config().calibration == CalibrationConfig(
        method="temperature", thresholds="precision", precision=0.8
    )
    code, out, _ = command("calibrate", run, "--thresholds", "f1")
    assert "calibration temperature, 3 of 3 thresholds for highest F1" in out


def test_a_precision_beside_thresholds_for_f1_is_refused(run, command):
    before = (run / "config.yaml").read_bytes()
    code, out, err = command("calibrate", run, "--thresholds", "f1", "--precision", "0.8")
    assert (code, out) == (2, "")
    assert err == "error: --precision means nothing with --thresholds f1; leave one of them out\n"
    assert (run / "config.yaml").read_bytes() == before


def test_a_run_that_keeps_no_validation_scores_says_how_to_get_them(run):
    (run / "validation_scores.npz").unlink(missing_ok=True)
    with pytest.raises(ModelError, match=r"tagger evaluate .*run --part validation"):
        refit_decisions(run)


@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_a_number_that_no_float_holds_is_no_temperature(value):
    tags = [{"temperature": value}]
    with pytest.raises(ValueError, match="not a calibration"):
        Calibration.from_json(
            {"schema_version": 1, "method": "temperature", "tags": tags}, n_tags=1
        )
