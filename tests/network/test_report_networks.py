"""Promises of the networks of the reports: sizes, exports, and what they refuse."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from tagger.base.errors import ConfigError, ModelError
from tagger.bundle.exporters import EXPORTERS
from tagger.bundle.find_weights import load_backbone_weights
from tagger.config import Config, with_overrides
from tagger.network.backbones.mlfi import FOLDED
from tagger.network.keras import keras
from tagger.network.model import build_model
from tagger.network.standardise import Standardise

CLIP = {"mel": (640, 128)}
SEGMENT = {"mel": (130, 128), "values": (55,)}
PICTURE = {"picture": (64, 96, 3)}
MLFI = [
    {"mode": "benchmark"},
    *({"mode": "audio", "sub_mode": s, "path": p} for s in "AB" for p in "1234"),
    *({"mode": "vision", "path": p} for p in "abcde"),
    *({"mode": "two_way", "sub_mode": s, "path": p} for s in "AB" for p in "1234"),
]


def network(backbone, shapes, params=None, *, units=(), n_tags=8, freeze="none"):
    config = with_overrides(
        Config(),
        {
            "model.backbone.name": backbone,
            "model.backbone.params": params or {},
            "model.backbone.freeze": freeze,
            "model.head.name": "dense_layers",
            "model.head.params": {"units": list(units)},
            "task.name": "single_label",
        },
    )
    front_end = SimpleNamespace(input_shapes=shapes)
    return build_model(config, front_end, [f"genre {n}" for n in range(n_tags)])


def windows(shapes, n=3):
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(0, 20, (n, *shape)).astype(np.float32) for name, shape in shapes.items()
    }


# What the reports and the notebooks that they start from tell


def test_the_public_crnn_has_the_parameters_of_its_notebook():
    assert network("crnn", CLIP, units=[64]).window_model.count_params() == 133_520


def test_the_public_parallel_network_has_the_parameters_of_its_notebook():
    assert network("parallel_crnn", CLIP).window_model.count_params() == 85_160


@pytest.mark.parametrize("shapes", [CLIP, {"mel": (130, 128)}])
@pytest.mark.parametrize(
    ("backbone", "params", "n_convolutions", "n_pools"),
    [
        ("cnn2d", {"depth": "shallow"}, 4, 4),
        ("cnn2d", {"depth": "deep"}, 10, 3),
        ("cnn1d", {"depth": "shallow"}, 4, 4),
        ("cnn1d", {"depth": "deep"}, 10, 3),
        ("lstm", {}, 0, 0),
        ("crnn", {}, 3, 3),
        ("crnn_stacked", {}, 5, 5),
    ],
)
def test_the_seven_networks_have_the_layers_that_the_report_tells(
    shapes, backbone, params, n_convolutions, n_pools
):
    model = network(backbone, shapes, params, units=[16, 8])
    names = [layer.name for layer in model.window_model.layers]
    assert sum(name.startswith("conv") and "_" not in name for name in names) == n_convolutions
    assert sum(name.endswith("_pool") for name in names) == n_pools
    assert sum(name.endswith("_bn") for name in names) == n_convolutions
    scores = model.score_windows(windows(shapes))
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert len(model.weights) == len(model.window_model.weights)


def test_strides_are_2_1_only_where_the_input_is_longer_than_high():
    long, square = (network("cnn2d", shapes) for shapes in (CLIP, {"mel": (128, 128)}))
    strides = [layer.strides for layer in long.window_model.layers if "Conv2D" in str(type(layer))]
    assert strides[0] == (2, 1)
    assert all(
        layer.strides == (1, 1)
        for layer in square.window_model.layers
        if isinstance(layer, keras.layers.Conv2D)
    )


@pytest.mark.parametrize("params", MLFI, ids=lambda params: "-".join(params.values()))
def test_all_22_networks_of_two_branches_have_the_sizes_of_the_report(params):
    model = network("mlfi", SEGMENT, params, n_tags=10)
    layers = {layer.name: layer for layer in model.embedding_model.layers}
    # One value for each of the last filters, in front of the recurrent network.
    assert layers["seen"].output_shape == (None, 128)
    folded = {"a": (16, 12), "b": (16, 16), "c": (24, 16), "d": (40, 16), "e": (72, 16)}
    partner = {"1": "e", "2": "d", "3": "c", "4": "b"}
    layer = {"vision": params.get("path"), "two_way": partner.get(params.get("path", ""))}
    wanted = folded.get(layer.get(params["mode"]) or "", FOLDED[128])
    assert layers["folded"].output_shape == (None, *wanted)
    if params["mode"] in ("audio", "two_way"):
        units = {"1": 1024, "2": 512, "3": 256, "4": 128}[params["path"]]
        visual = {"A": 128, "B": 64}[params["sub_mode"]]
        assert layers["to_audio"].output_shape == (None, units + visual)
    else:
        assert "to_audio" not in layers
    assert model.score_windows(windows(SEGMENT)).shape == (3, 10)


# Exports


@pytest.mark.parametrize("format_", ["litert", "onnx"])
@pytest.mark.parametrize(
    ("backbone", "shapes", "params"),
    [
        ("cnn2d", {"mel": (48, 32)}, {}),
        ("cnn1d", {"mel": (48, 32)}, {"depth": "deep", "filters": 8}),
        ("lstm", {"mel": (20, 16)}, {"units": 8, "layers": 2}),
        ("crnn", {"mel": (40, 16)}, {"filters": 8, "units": 8}),
        ("crnn_stacked", {"mel": (64, 16)}, {"filters": 8, "units": 8}),
        ("parallel_crnn", {"mel": (340, 128)}, {"units": 8}),
        ("mlfi", SEGMENT, {"mode": "two_way", "sub_mode": "B", "path": "4"}),
        ("cnn_picture", PICTURE, {"filters": 2}),
    ],
)
def test_networks_say_the_same_in_other_formats(tmp_path, format_, backbone, shapes, params):
    model = network(backbone, shapes, params, units=[8])
    exporter = EXPORTERS.get(format_)()
    path = tmp_path / exporter.file_name("none")
    exporter.write(model, path, "none")
    for n in (1, 3):
        asked = windows(shapes, n)
        wanted, found = model.window_outputs(asked, list(model.output_sizes)), {}
        found = exporter.run(path, asked)
        for name, values in wanted.items():
            np.testing.assert_allclose(found[name], values, atol=1e-4, rtol=1e-4, err_msg=name)


def test_a_recurrent_layer_learns_what_it_says_outside_training():
    model = network("crnn_stacked", {"mel": (64, 16)}, {"units": 8, "dropout": 0.0})
    recurrent = model.window_model.get_layer("lstm")
    sequences = np.random.default_rng(0).normal(size=(4, 9, 56)).astype(np.float32)
    asked, trained = (recurrent(sequences, training=training) for training in (False, True))
    np.testing.assert_allclose(asked, trained, atol=1e-6)


# Standardised inputs


def test_standardised_inputs_have_no_mean_and_one_as_their_deviation():
    layer = Standardise("values")
    values = np.random.default_rng(0).normal([5, -3, 0], [2, 0.1, 0], (400, 3)).astype(np.float32)
    np.testing.assert_array_equal(layer(values), values)
    layer.set_moments(values.mean(axis=0), values.std(axis=0))
    found = layer(values).numpy()
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(axis=0), [1, 1, 0], atol=1e-4)
    assert not layer.trainable_weights


# Pretrained networks of Keras


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    """Weights in the form in which Keras has its own: with a top, of other pictures."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.h5"
    application = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=1.0, weights=None, classes=5
    )
    for weight in application.weights[:6]:
        weight.assign(np.random.default_rng(0).random(weight.shape).astype(np.float32))
    application.save_weights(path)
    return path, [weight.numpy() for weight in application.weights[:6]]


def test_weights_in_a_file_of_keras_are_those_of_the_network(weight_file):
    path, first = weight_file
    model = network("keras_application", PICTURE, {"application": "MobileNetV2"}, freeze="all")
    (line,) = load_backbone_weights(model, str(path))
    assert line.startswith(f"{len(model.embedding_model.weights)} tensors loaded")
    for weight, wanted in zip(model.embedding_model.weights, first, strict=False):
        np.testing.assert_array_equal(weight.numpy(), wanted)
    assert not model.embedding_model.trainable_variables


def test_weights_of_another_network_are_one_line(weight_file):
    model = network("keras_application", PICTURE, {"application": "VGG16"})
    with pytest.raises(ModelError) as caught:
        load_backbone_weights(model, str(weight_file[0]))
    assert "\n" not in str(caught.value) and str(weight_file[0]) in str(caught.value)


def test_weights_that_cannot_be_downloaded_are_one_line_with_the_remedy(monkeypatch):
    def offline(*_, **__):
        raise OSError("URL fetch failure: no network")

    model = network("keras_application", PICTURE, {"application": "MobileNetV2"})
    monkeypatch.setattr(keras.applications, "MobileNetV2", offline)
    with pytest.raises(ModelError, match=r"cannot be downloaded \(URL fetch failure.*their path"):
        load_backbone_weights(model, "imagenet")


def test_weights_of_imagenet_go_where_they_belong(monkeypatch):
    model = network("keras_application", PICTURE, {"application": "MobileNetV2"})
    real = keras.applications.MobileNetV2
    published = real(include_top=False, weights=None)
    published.layers[1].set_weights(
        [np.full_like(w, 0.25) for w in published.layers[1].get_weights()]
    )
    monkeypatch.setattr(keras.applications, "MobileNetV2", lambda **_: published)
    (line,) = load_backbone_weights(model, "imagenet")
    assert line == f"{len(published.weights)} tensors of imagenet loaded"
    assert float(model.embedding_model.get_layer("Conv1").kernel.numpy().mean()) == 0.25


@pytest.mark.parametrize("application", ["VGG16", "ResNet50", "MobileNetV2"])
def test_colours_are_what_the_network_was_trained_on(application):
    import importlib

    from tagger.network.backbones.keras_application import _colours

    make = getattr(keras.applications, application)
    prepare = importlib.import_module(make.__module__).preprocess_input
    matrix, offset = _colours(prepare)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 4, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(pixels @ matrix + offset, prepare(pixels.copy()), atol=1e-4)


# What they refuse


@pytest.mark.parametrize(
    ("backbone", "shapes", "params", "message"),
    [
        ("cnn2d", {"mel": (8, 8)}, {}, "needs windows of at least 16 frames x 16 bands"),
        ("crnn", {"picture": (64, 64, 3)}, {}, "needs the input 'mel'"),
        ("mlfi", {"mel": (130, 128)}, {}, "needs a row of values named 'values'"),
        ("mlfi", {"mel": (640, 128), "values": (55,)}, {}, "such as 130 x 128"),
        ("cnn_picture", CLIP, {}, "needs the input 'picture'"),
        ("cnn_picture", {"picture": (16, 16, 3)}, {}, "at least 32 x 32 pixels"),
        ("keras_application", PICTURE, {"application": "MobilNetV2"}, "did you mean MobileNetV2"),
    ],
)
def test_windows_that_a_network_cannot_take_are_one_line(backbone, shapes, params, message):
    with pytest.raises(ConfigError, match=message) as caught:
        network(backbone, shapes, params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "path"), [("benchmark", "1"), ("audio", "a"), ("vision", "4"), ("two_way", None)]
)
def test_a_path_that_goes_with_another_mode_is_one_line(mode, path):
    with pytest.raises(ConfigError, match=f"does not go with mode={mode}"):
        network("mlfi", SEGMENT, {"mode": mode, "path": path})


def test_files_of_weights_hold_what_training_saved(tmp_path):
    model = network("mlfi", SEGMENT, {"mode": "vision", "path": "c"})
    model.window_model.get_layer("standardise_values").set_moments(np.arange(55.0), np.ones(55))
    model.save_weights(tmp_path / "weights.h5")
    with h5py.File(tmp_path / "weights.h5") as file:
        assert file["standardise_values/mean"][3] == 3
    other = network("mlfi", SEGMENT, {"mode": "vision", "path": "c"})
    other.load_weights(tmp_path / "weights.h5")
    asked = windows(SEGMENT)
    np.testing.assert_array_equal(other.score_windows(asked), model.score_windows(asked))
