"""Promises of what people use in Python: predictions, notebooks, pipelines."""

import pydoc
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from signals import RATE, noise, sine
from small_bundle import make_bundle

import tagger as package
from tagger.base.errors import AudioError
from tagger.tagging.tagger import Tagger

DOCS = Path(__file__).parents[2] / "docs"
# What scikit-learn asks of every estimator, whatever it takes; the others hand in numbers.
CHECKS = (
    "check_no_attributes_set_in_init",
    "check_get_params_invariance",
    "check_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_mixin_order",
    "check_parameters_default_constructible",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("model") / "bundle"
    make_bundle(root)
    return root


@pytest.fixture(scope="module")
def tagger(model):
    return Tagger.load(model)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    for number in range(6):
        clip = sine(3000, 2.0) if number % 2 else noise(2.0, seed=number)
        soundfile.write(folder / f"{number}.wav", 0.3 * clip, RATE)
    return sorted(folder.glob("*.wav"))


def test_the_package_shows_what_it_offers():
    assert {"Tagger", "Prediction", "top_tags", "EmbeddingTransformer"} <= set(dir(package))
    page = pydoc.plain(pydoc.render_doc(package))
    assert "class Tagger" in page and "class Prediction" in page and "top_tags(" in page


def test_a_loaded_model_is_called_with_a_path(tagger, songs):
    assert tagger(songs[0]) == tagger.predict(songs[0])
    assert tagger(noise(2.0), RATE) == tagger.predict(noise(2.0), RATE)
    assert repr(tagger) == "Tagger('small', 3 tags)"


def test_a_prediction_is_short_to_read_and_names_its_scores(tagger, songs):
    item = tagger(songs[0])
    best = item.top(1)[0]
    assert repr(item).startswith(f"Prediction({str(songs[0])!r}, 2.0 s, {best['label']} 0.")
    assert len(repr(item)) < 200
    assert item[best["label"]] == best["score"] == item.scores.max()
    with pytest.raises(KeyError, match=r"no tag 'tga 1' \(did you mean tag 1\?\)"):
        item["tga 1"]


def test_predictions_are_the_same_or_not(tagger, songs):
    item, again, other = tagger(songs[0]), tagger(songs[0]), tagger(songs[1])
    assert item == again and hash(item) == hash(again) and len({item, again, other}) == 2
    assert item != other and item != "a prediction"
    assert item != replace(item, taggram=item.taggram + 1)
    missing = np.full(len(item.tags), np.nan, np.float32)
    assert replace(item, thresholds=missing) == replace(item, thresholds=missing.copy())
    assert replace(item, thresholds=None) != replace(item, thresholds=missing)
    first, second = tagger.embed(songs[0]), tagger.embed(songs[0])
    assert first == second and first != tagger.embed(songs[1]) and hash(first) == hash(second)
    n_windows, n_values = first.values.shape
    assert repr(first).endswith(f"penultimate, {n_windows} windows of {n_values} values)")


def test_scores_over_time_become_a_table(tagger, songs):
    item = tagger(songs[0])
    table = item.to_dataframe()
    assert list(table.columns) == list(item.tags) and table.index.name == "seconds"
    np.testing.assert_array_equal(table.to_numpy(), item.taggram)


def test_a_notebook_shows_taggram_and_player(tagger, songs):
    text = tagger(songs[0])._repr_html_()
    assert text.count("<audio") == 1 and 'class="tg-time"' in text and "data:audio/wav" in text
    # Two in one notebook have players of their own.
    other = tagger(songs[1])._repr_html_()
    names = {page.partition('<audio id="')[2].partition('"')[0] for page in (text, other)}
    assert len(names) == 2 and all(names)
    assert "<audio" not in tagger(noise(2.0), RATE)._repr_html_()
    assert tagger(songs[0]).plot()._repr_png_()[:4] == b"\x89PNG"


def test_embeddings_are_a_step_of_a_pipeline(model, songs):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    step = package.EmbeddingTransformer(model)
    rows = step.fit_transform(songs)
    np.testing.assert_array_equal(rows[0], Tagger.load(model).embed(songs[0]).mean())
    assert list(step.get_feature_names_out())[:2] == ["penultimate_0", "penultimate_1"]
    assert step.transform([]).shape == (0, rows.shape[1])
    labels = ["noise", "tone"] * 3
    pipeline = make_pipeline(step, LogisticRegression(C=1e4)).fit(songs, labels)
    assert list(pipeline.predict(songs)) == labels
    with pytest.raises(AudioError, match="no such file"):
        step.transform([songs[0], "gone.wav"])


@pytest.mark.parametrize("check", CHECKS)
def test_the_step_is_what_scikit_learn_expects(check):
    from sklearn.utils import estimator_checks

    getattr(estimator_checks, check)("EmbeddingTransformer", package.EmbeddingTransformer())


def test_the_notebook_runs(tmp_path, songs, musicnn_cache, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("TAGGER_CACHE", str(musicnn_cache))
    for name, song in zip(("song.wav", "other.wav"), songs, strict=False):
        long = np.tile(soundfile.read(song)[0], 3)
        soundfile.write(tmp_path / name, long, RATE)
        # The notebook names mp3 files; what they are is told by their content.
        shutil.copy(tmp_path / name, tmp_path / name.replace("wav", "mp3"))
    notebook = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = [set(data) for data in shown]
    assert "text/html" in kinds[0] and any("image/png" in kind for kind in kinds)
    assert (tmp_path / "song.png").exists()
