"""Promises of studies: what is missing is fitted, and one page says which variants differ."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tagger.base.errors import ConfigError
from tagger.study.run_study import run_study
from tagger.study.study_file import read_study
from tagger.study.votes import mixture_weights

ROOT = Path(__file__).parents[2]
GENRES = ("blues", "classical", "country")
COLUMNS = ("tempo", "centroid", "flux")


def write_table(path, *, n_clips=20, n_segments=3, names=COLUMNS, genres=GENRES):
    """Segments of clips: those of a clip are nearly the same, and genres differ somewhat."""
    rng = np.random.default_rng(0)
    rows = [["filename", "length", *names, "label"]]
    for number, genre in enumerate(genres):
        for clip in range(n_clips):
            place = rng.normal(1.5 * (np.arange(len(names)) % len(genres) == number), 1)
            for segment in range(n_segments):
                values = place + rng.normal(0, 0.1, len(names))
                rows.append([f"{genre}.{clip:05d}.{segment}.wav", 66149, *values, genre])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def head(classifier, over="windows", **params):
    return {
        "model.clip_head.params": {
            "classifier": classifier,
            "over": over,
            "classifier_params": params,
        }
    }


def content(folder, *variants, **more):
    return {
        "title": "Three genres",
        "about": "What is compared.",
        "set": {
            "data.name": "feature_table",
            "data.root": str(folder),
            "data.params": {"files": ["table.csv"], "group": r"^(\w+\.\d+)"},
            "data.split": "k_fold",
            "data.split_params": {"folds": 3, "validation": False},
            "task.name": "single_label",
            "model.clip_head.name": "classifier",
        },
        "variants": list(variants),
        **more,
    }


@pytest.fixture
def study(tmp_path):
    """Write the file of a study on a small table; gives its path."""
    write_table(tmp_path / "table.csv")

    def write(*variants, **more):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(content(tmp_path, *variants, **more)))
        return path

    return write


NEAREST = {"name": "nearest", "set": head("nearest_neighbours", k=[1])}
REGRESSION = {
    "name": "regression",
    "set": head("logistic_regression", c=[1.0]),
    "published": [{"value": 0.99, "source": "nobody"}],
}


def test_a_study_ends_with_a_page_and_a_table(study, tmp_path, command):
    both = {"name": "both", "vote_of": ["nearest", "regression"], "note": "their mean"}
    taggrams = {"kind": "taggram", "clips": ["blues.00000", "country.00003"]}
    plots = [{"kind": "box", "column": "tempo"}, taggrams]
    path = study(NEAREST, REGRESSION, both, plots=plots)
    code, out, _ = command("study", "run", path, "--output", tmp_path / "out", "--jobs", "1")
    assert code == 0
    rows = list(csv.DictReader((tmp_path / "out/study.csv").open()))
    assert {row["variant"] for row in rows} == {"nearest", "regression", "both"}
    assert out.startswith("variant,accuracy,")
    accuracies = [float(row["accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True) and accuracies[0] > 0.6
    for row in rows:
        assert float(row["accuracy_low"]) <= float(row["accuracy"]) <= float(row["accuracy_high"])
        assert (row["n_train"], row["n_test"]) == ("40", "60")
    page = (tmp_path / "out/report.html").read_text()
    assert "0.990 (nobody, above it)" in page
    assert "both: their mean" in page
    assert "tempo by label" in page and "McNemar" in page
    assert "Taggram of country.00003" in page
    assert "class=alarm" not in page


def test_a_vote_learns_its_weights_on_training_clips(study, tmp_path):
    noise = {"name": "noise", "set": head("nearest_neighbours", k=[57])}
    votes = [
        {"name": by, "vote_of": ["regression", "noise"], "vote_by": by}
        for by in ("mean", "weights", "stacking")
    ]
    result = run_study(study(REGRESSION, noise, *votes), tmp_path / "out", n_jobs=1)
    said = result.results["weights"]["found"]
    # Neighbours that are nearly all clips say next to nothing.
    assert said.startswith("weighted mean: 0.9") or said.startswith("weighted mean: 1.0"), said
    rows = {row["variant"]: row for row in csv.DictReader(result.files["table"].open())}
    for by in ("weights", "stacking"):
        assert float(rows[by]["accuracy"]) >= float(rows["regression"]["accuracy"]) - 0.05


def test_a_vote_that_comes_later_has_its_variants_scored_by_folds(study, tmp_path):
    out = tmp_path / "out"
    run_study(study(REGRESSION, NEAREST), out, n_jobs=1)
    vote = {"name": "vote", "vote_of": ["regression", "nearest"], "vote_by": "weights"}
    result = run_study(study(REGRESSION, NEAREST, vote), out, n_jobs=1)
    assert result.results["vote"]["n_tested"] == [20, 20, 20]


@given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_no_other_weights_make_the_labels_more_likely(n_models, n_clips, seed):
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.ones(3), (n_models, n_clips))
    labels = np.eye(3, dtype=np.uint8)[rng.integers(0, 3, n_clips)]
    weights = mixture_weights(scores, labels)

    def likelihood(shares):
        return np.log((np.tensordot(shares, scores, axes=1) * labels).sum(axis=1)).sum()

    assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
    for other in rng.dirichlet(np.ones(n_models), 50):
        assert likelihood(other) <= likelihood(weights) + 1e-3


def test_what_is_there_is_not_fitted_again_and_what_has_changed_is(study, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_study(study(NEAREST, REGRESSION), out, n_jobs=1)
    results = {path.parent.name: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    # As if it had been killed before the second was done.
    (out / "variants/regression/result.json").unlink()
    other = {**NEAREST, "set": head("nearest_neighbours", k=[3])}
    run_study(study(NEAREST, REGRESSION), out, n_jobs=1)
    again = {path.parent.name: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    assert again["nearest"] == results["nearest"]
    assert again["regression"] > results["regression"]
    run_study(study(other, REGRESSION), out, n_jobs=1)
    last = {path.parent.name: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    assert last["nearest"] > again["nearest"] and last["regression"] == again["regression"]


def test_segments_on_both_sides_flatter_and_the_page_says_so_in_red(study, tmp_path):
    leaky = {
        "name": "leaky",
        "set": {
            **head("nearest_neighbours", k=[1]),
            "data.split": "leaky_segments",
            "data.split_params": {"validation": False},
            "fit": {"rows": "segments"},
        },
    }
    clean = {
        "name": "clean",
        "set": {**head("nearest_neighbours", k=[1]), "fit": {"rows": "segments"}},
    }
    result = run_study(study(leaky, clean), tmp_path / "out", n_jobs=1)
    rows = {row["variant"]: row for row in csv.DictReader(result.files["table"].open())}
    assert float(rows["leaky"]["accuracy"]) > 0.95 > 0.9 > float(rows["clean"]["accuracy"])
    page = result.files["report"].read_text()
    assert "<p class=alarm>Segments of the same clip lie on both sides" in page


@pytest.mark.campaign
def test_variants_are_fitted_side_by_side_as_one_after_the_other(study, tmp_path):
    path = study(NEAREST, REGRESSION)
    found = [
        run_study(path, tmp_path / f"{jobs}", n_jobs=jobs).files["table"].read_text()
        for jobs in (1, 2)
    ]
    # Times differ.
    figures = [[row[:8] for row in csv.reader(text.splitlines())] for text in found]
    assert figures[0] == figures[1]


def test_a_variant_that_cannot_be_fitted_is_named_and_stops_no_other(study, tmp_path, command):
    lost = {
        "name": "lost",
        "set": {**head("xgboost"), "data.params": {"files": ["gone.csv"], "group": "."}},
    }
    code, out, err = command("study", "run", study(NEAREST, lost), "--output", tmp_path / "out")
    assert code == 1
    assert "failed: lost: " in err and "gone.csv" in err
    assert "nearest," in out
    assert "lost could not be fitted" in (tmp_path / "out/report.html").read_text()


def test_windows_in_the_middle_are_all_that_is_heard(study, tmp_path):
    middle = {
        "name": "middle",
        "set": {**head("logistic_regression", c=[1.0]), "fit.middle_windows": 1},
    }
    result = run_study(study(REGRESSION, middle), tmp_path / "out", n_jobs=1)
    found = {name: json.dumps(value["found"]) for name, value in result.results.items()}
    assert "of 40 decisions" in found["middle"] and "of 120 decisions" in found["regression"]
    seconds = {**REGRESSION, "set": {**REGRESSION["set"], "fit.middle_seconds": 7.0}}
    with pytest.raises(ConfigError, match="no variant could be fitted"):
        run_study(study(seconds), tmp_path / "seconds", n_jobs=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": []}, "variants: Tuple should have at least 1 item"),
        ({"variants": [{"name": "../x"}]}, "variants.0.name"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "two variants are called 'a'"),
        ({"variants": [{"name": "a", "vote_of": ["b"]}]}, "no other variant 'b'"),
        ({"colour": "red"}, "colour: unknown key"),
        ({"variants": [{"name": "a", "set": {"data.colour": 1}}]}, "variant 'a': data.colour"),
        ({"compared_by": "beauty"}, "compared_by"),
    ],
)
def test_a_file_that_is_no_study_is_refused(study, tmp_path, change, message):
    path = study(NEAREST, **change)
    with pytest.raises(ConfigError, match=message) as caught:
        run_study(path, tmp_path / "out", n_jobs=1)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("plot", "message"),
    [
        ({"kind": "box", "column": "gone"}, "no column 'gone'"),
        ({"kind": "taggram", "clips": ["gone"]}, "no clip 'gone'"),
        ({"kind": "taggram", "clips": ["blues.00000"], "names": ["a"]}, "1 names for 3 columns"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused(study, tmp_path, plot, message):
    with pytest.raises(ConfigError, match=message):
        run_study(study(NEAREST, plots=[plot]), tmp_path / "out", n_jobs=1)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such file"):
        read_study(tmp_path / "gone.yaml")
    (tmp_path / "a.yaml").write_text("title: [")
    with pytest.raises(ConfigError, match=r"a\.yaml: not a study"):
        read_study(tmp_path / "a.yaml")


@pytest.mark.parametrize("text", ["fit.folds", "=3", "fit..folds=3", "fit.model=[", "fit.x=1"])
def test_an_override_of_a_study_is_refused_as_one_of_a_config_is(study, tmp_path, text):
    with pytest.raises(ConfigError, match=r"--set|fit\.x"):
        run_study(study(NEAREST), tmp_path / "out", overrides=[text], n_jobs=1)


@pytest.mark.parametrize("name", ["gtzan_classical", "gtzan_leak", "gtzan_musicnn"])
def test_every_variant_of_the_ready_made_studies_has_a_config(name):
    from tagger.study.study_file import config_of

    path = ROOT / "configs/studies" / f"{name}.yaml"
    study = read_study(path)
    for variant in study.variants:
        config = config_of(study, variant, path=path, overrides=["data.root=elsewhere"])
        assert config.data.root == Path("elsewhere") and config.task.name == "single_label"


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("name", "best"), [("gtzan_musicnn", 0.76), ("gtzan_classical", 0.68), ("gtzan_leak", 0.85)]
)
def test_a_ready_made_study_runs_on_the_real_tables(shared, tmp_path, name, best):
    path = ROOT / "configs/studies" / f"{name}.yaml"
    overrides = [f"data.root={shared / 'gtzan'}"]
    result = run_study(path, tmp_path / "out", overrides=overrides, n_jobs=2)
    assert not result.failures
    rows = list(csv.DictReader(result.files["table"].open()))
    assert float(rows[0]["accuracy"]) > best
