"""Promises of models that are computed in bfloat16."""

import numpy as np
import pytest
import soundfile
from signals import RATE, noise
from small_bundle import make_bundle

from tagger.base.errors import ModelError
from tagger.bundle.models import pull
from tagger.bundle.parity import windows_of_demo
from tagger.config import load_config
from tagger.tagging.tagger import Tagger

openvino = pytest.importorskip("openvino")
has_bfloat16 = pytest.mark.skipif(
    "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="this processor has no bfloat16",
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("model") / "bundle"
    make_bundle(root)
    return root


@has_bfloat16
def test_scores_in_bfloat16_are_near_those_in_float32(musicnn_cache, monkeypatch):
    monkeypatch.setenv("TAGGER_CACHE", str(musicnn_cache))
    bundle = pull("musicnn-mtt")
    front_end = load_config(bundle.verified("config.yaml")).make_front_end()
    windows = windows_of_demo(front_end).windows
    exact, quick = (
        Tagger.load("musicnn-mtt", quantize=name).predict_windows(windows)
        for name in ("none", "bfloat16")
    )
    assert exact.tags == quick.tags
    assert 0 < np.abs(exact.scores - quick.scores).max() < 0.01
    np.testing.assert_allclose(exact.taggram, quick.taggram, atol=0.03)


@has_bfloat16
def test_files_are_tagged_and_embedded_in_bfloat16(small, tmp_path, command):
    soundfile.write(tmp_path / "a.wav", noise(3.0), RATE)
    options = ("--model", small, "--quantize", "bfloat16")
    code, out, err = command("tag", tmp_path / "a.wav", *options)
    assert code == 0 and "tag 0" in out, err
    code, _, err = command("embed", tmp_path / "a.wav", *options, "-o", tmp_path / "e.npz")
    assert code == 0, err
    exact = Tagger.load(small).embed(tmp_path / "a.wav").values
    with np.load(tmp_path / "e.npz") as kept:
        scale = np.abs(exact).max()
        np.testing.assert_allclose(kept["embeddings"], exact, atol=0.03 * scale)


def test_a_processor_without_bfloat16_is_named_with_the_remedy(small, tmp_path, monkeypatch):
    class Core:
        def get_property(self, *_):
            return ["FP32"]

    monkeypatch.setattr(openvino, "Core", Core)
    soundfile.write(tmp_path / "a.wav", noise(3.0), RATE)
    with pytest.raises(ModelError, match=r"cannot compute in bfloat16.*use --quantize none"):
        Tagger.load(small, quantize="bfloat16").predict(tmp_path / "a.wav")


def test_a_damaged_model_is_one_line(small, tmp_path):
    from tagger.bundle.openvino_runtime import OpenVinoRuntime

    path = tmp_path / "model.tflite"
    path.write_bytes((small / "model.tflite").read_bytes()[:2000])
    with pytest.raises(ModelError) as error:
        OpenVinoRuntime(path)
    assert "\n" not in str(error.value)
