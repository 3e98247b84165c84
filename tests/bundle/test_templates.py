"""Promises of published models that are put together without TensorFlow."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tagger.bundle.models import pull
from tagger.bundle.models._make_templates import make_template, networks
from tagger.bundle.models._template import FOLDER, read_template
from tagger.bundle.models._thresholds import MSD_THRESHOLD
from tagger.bundle.models.musicnn import ENTRIES, MTT_TAGS, cached_wheel, published_tensors
from tagger.bundle.parity import windows_of_demo
from tagger.bundle.runtime import Runtime
from tagger.bundle.write import load_model

# The other three are made in the campaign.
QUICK = ["vgg"]
SLOW = sorted(networks().keys() - set(QUICK))
CASES = [*QUICK, *(pytest.param(name, marks=pytest.mark.campaign) for name in SLOW)]


@pytest.fixture
def cache(musicnn_cache, monkeypatch):
    monkeypatch.setenv("TAGGER_CACHE", str(musicnn_cache))
    return musicnn_cache


@pytest.mark.parametrize("network", CASES)
def test_a_template_is_what_our_export_makes_today(cache, network):
    kept, made = read_template(network), make_template(networks()[network])
    assert (made.content, made.parts, made.epsilon) == (kept.content, kept.parts, kept.epsilon)
    assert (made.shapes, made.outputs) == (kept.shapes, kept.outputs)
    for name, answers in made.answers.items():
        np.testing.assert_allclose(answers, kept.answers[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("network", CASES)
def test_scores_are_those_of_the_conversion_through_tensorflow(cache, tmp_path, network):
    from tagger.bundle.exporters import EXPORTERS
    from tagger.network.model import build_model

    for entry in networks()[network]:
        config = entry.config()
        front_end = config.make_front_end()
        template = read_template(network)
        weights = published_tensors(entry, template.shapes, cached_wheel())
        model = build_model(config, front_end, entry.tags)
        for name, variable in model.weights.items():
            variable.assign(weights[name])
        EXPORTERS.get("litert")().write(model, tmp_path / "converted.tflite", "none")
        (tmp_path / "filled.tflite").write_bytes(template.filled(weights))
        windows = windows_of_demo(front_end).windows
        converted = Runtime(tmp_path / "converted.tflite")(windows)
        filled = Runtime(tmp_path / "filled.tflite")(windows)
        assert np.abs(converted["scores"] - filled["scores"]).max() <= 1e-6
        for name, values in converted.items():
            scale = max(1.0, float(np.abs(values).max()))
            assert np.abs(values - filled[name]).max() <= 1e-5 * scale, name


def test_templates_are_small():
    assert sorted(path.stem for path in FOLDER.glob("*.npz")) == sorted(networks())
    assert sum(path.stat().st_size for path in FOLDER.glob("*.npz")) < 100_000


def test_every_published_model_has_a_template():
    for entry in ENTRIES:
        assert entry.name in read_template(entry.network).answers


def test_a_pulled_model_can_be_loaded_into_keras(cache):
    bundle = pull("musicnn-mtt")
    windows = windows_of_demo(ENTRIES[0].config().make_front_end()).windows
    keras = load_model(bundle).output_model(windows, training=False)["scores"].numpy()
    found = Runtime(bundle.verified("model.tflite"))(windows)["scores"]
    assert np.abs(keras - found).max() < 1e-5


def test_nothing_heavy_is_imported_to_pull(musicnn_cache, tmp_path):
    (tmp_path / "musicnn").symlink_to(musicnn_cache / "musicnn")
    code = (
        "import sys\n"
        "from tagger.bundle.models import pull\n"
        "print(pull('musicnn-mtt').name)\n"
        "heavy = {'tensorflow', 'tf_keras', 'h5py', 'scipy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {"TAGGER_CACHE": str(tmp_path), "PATH": "/usr/bin", "HOME": str(tmp_path)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "musicnn-mtt\n", done.stderr


# Thresholds


def reference(shared):
    folder = shared / "magnatagatune"
    with np.load(folder / "reference/musicnn_mtat_won_test.npz") as kept:
        scores, labels = kept["est"], kept["gt"]
    return scores, labels, (folder / "top50_tags.txt").read_text().split("\n")[:50]


def test_thresholds_are_those_of_the_published_scores(shared):
    from tagger.bundle.models._thresholds import fit_thresholds, magnatagatune_thresholds

    _, _, tags = reference(shared)
    path = shared / "magnatagatune/reference/musicnn_mtat_won_test.npz"
    found = fit_thresholds(path, tags)
    assert [found[tag] for tag in tags] == magnatagatune_thresholds(tags)


def test_with_thresholds_nearly_every_clip_gets_tags(shared):
    scores, labels, tags = reference(shared)
    known = dict(zip(MTT_TAGS, ENTRIES[0].thresholds(), strict=True))
    n_true = labels.sum(axis=1).mean()
    said = scores >= np.array([known[tag] for tag in tags])
    assert (said.sum(axis=1) == 0).mean() < 0.01 < 0.25 < ((scores >= 0.5).sum(axis=1) == 0).mean()
    assert n_true < said.sum(axis=1).mean() < 2 * n_true
    # What is said of the tags for which none could be fitted, checked where some could be.
    f1 = 2 * (said & (labels > 0)).sum(axis=0) / (said.sum(axis=0) + labels.sum(axis=0))
    pr_auc = np.mean([average_precision(labels[:, i], scores[:, i]) for i in range(50)])
    assert f1.mean() / pr_auc == pytest.approx(1.10, abs=0.01)
    assert pytest.approx(1.10 * 0.289 / 2, abs=0.005) == MSD_THRESHOLD


def average_precision(labels, scores):
    order = np.argsort(-scores, kind="stable")
    hits = labels[order].cumsum()
    return (hits / np.arange(1, len(order) + 1))[labels[order] == 1].mean()


def test_a_pulled_model_has_thresholds_and_says_where_they_come_from(cache):
    bundle = pull("musicnn-mtt")
    assert bundle.thresholds() == ENTRIES[0].thresholds()
    assert bundle.card["Thresholds"].startswith("highest F1 of each tag")
    assert "none could be fitted" in ENTRIES[2].about_thresholds
