"""Promises about published weights: how they are found, read and put into a network."""

import http.server
import re
import threading
from functools import partial

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_vggish import (
    BODY,
    FULLY_CONNECTED,
    published_tensors,
    write_checkpoint,
    write_single_file,
)
from small_bundle import make_bundle, small_model

import tagger.network.model
from preprocess.signal.features import FRONT_ENDS
from tagger.base.errors import ModelError
from tagger.bundle import find_weights
from tagger.bundle.find_weights import load_backbone_weights, resolve_weights
from tagger.cli.info import describe
from tagger.cloud.download import RemoteFile
from tagger.config import load_config
from tagger.network.backbones import SmokeTest
from tagger.network.keras import keras
from tagger.network.model import build_model
from tagger.network.weights import match_tensors, read_tensors


def body(*overrides):
    """A network whose backbone is the convolutional body."""
    config = load_config(overrides=["model.head.params.units=8", *overrides])
    return build_model(config, FRONT_ENDS.create("vggish", {}), ["a", "b"])


def values_of(model):
    return {name: weight.numpy() for name, weight in model.weights.items()}


def assert_backbone_equals(model, tensors):
    values = values_of(model)
    for name, tensor in tensors.items():
        layer, kind = name.split("/")[-2:]
        kind = {"weights": "kernel", "biases": "bias"}[kind]
        np.testing.assert_array_equal(values[f"{layer}/{kind}"], tensor, err_msg=name)


@pytest.fixture(scope="module")
def tensors():
    return published_tensors()


@pytest.fixture(scope="module")
def checkpoint(tensors, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("published") / "vggish_model.ckpt", tensors)


@pytest.fixture(scope="module")
def one_model():
    """A network for tests that do not care what its weights were before."""
    return body()


# Loading


def test_a_published_checkpoint_loads_exactly(checkpoint, tensors):
    model = body()
    head = {name: value for name, value in values_of(model).items() if name.startswith("block")}
    lines = load_backbone_weights(model, str(checkpoint))
    assert lines == [f"12 tensors loaded from {checkpoint}"]
    assert_backbone_equals(model, tensors)
    for name, value in head.items():
        np.testing.assert_array_equal(values_of(model)[name], value)


def test_a_checkpoint_of_one_file_loads_exactly(tmp_path, one_model):
    tensors = published_tensors(seed=1)
    path = write_single_file(tmp_path / "vggish_model.ckpt", tensors)
    assert [file.name for file in tmp_path.glob("*.ckpt*")] == ["vggish_model.ckpt"]
    load_backbone_weights(one_model, str(path))
    assert_backbone_equals(one_model, tensors)


def test_tensors_that_the_network_does_not_have_are_ignored(tmp_path, one_model):
    tensors = published_tensors(seed=2)
    extra = {
        "global_step": np.int64(7),
        "vggish/fc2/weights": np.ones((4, 3), np.float32),
        "vggish/fc2/biases": np.ones(3, np.float32),
        "mel/logits/weights": np.ones((3, 2), np.float32),
        "beta1_power": np.float32(0.9),
        **{f"{name}/Adam": value for name, value in tensors.items() if "conv1" in name},
        **{f"{name}/Adam_1": value for name, value in tensors.items() if "conv1" in name},
    }
    path = write_checkpoint(tmp_path / "model.ckpt", tensors | extra)
    assert load_backbone_weights(one_model, str(path))[0].startswith("12 tensors")
    assert_backbone_equals(one_model, tensors)


def keras_body(tensors):
    """A Keras model of its own with the layers of the body, set to `tensors`."""
    x = inputs = keras.Input((96, 64, 1))
    for layer, shape in BODY.items():
        x = keras.layers.Conv2D(shape[-1], 3, name=layer.split("/")[-1])(x)
    model = keras.Model(inputs, keras.layers.GlobalMaxPool2D()(x))
    for layer in BODY:
        pair = [tensors[f"{layer}/weights"], tensors[f"{layer}/biases"]]
        model.get_layer(layer.split("/")[-1]).set_weights(pair)
    return model


def test_the_weight_file_of_a_keras_model_loads_exactly(tmp_path, one_model):
    tensors = published_tensors(seed=3)
    keras_body(tensors).save_weights(tmp_path / "body.h5")
    load_backbone_weights(one_model, str(tmp_path / "body.h5"))
    assert_backbone_equals(one_model, tensors)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("optimizer", ["Adam", "RMSprop"])
def test_a_whole_keras_model_with_its_optimizer_loads_exactly(tmp_path, one_model, optimizer):
    tensors = published_tensors(seed=4)
    model = keras_body(tensors)
    model.compile(getattr(keras.optimizers, optimizer)(), "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "body.h5")
    load_backbone_weights(one_model, str(tmp_path / "body.h5"))
    assert_backbone_equals(one_model, tensors)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_h5_groups_with_the_published_names_load_in_any_precision(tmp_path, one_model, dtype):
    tensors = published_tensors(seed=5)
    with h5py.File(tmp_path / "body.h5", "w") as h5:
        for name, value in tensors.items():
            plain = name.removeprefix("vggish/").replace("weights", "kernel:0")
            h5[plain.replace("biases", "bias:0")] = value.astype(dtype)
    load_backbone_weights(one_model, str(tmp_path / "body.h5"))
    rounded = {name: value.astype(dtype).astype(np.float32) for name, value in tensors.items()}
    assert_backbone_equals(one_model, rounded)


def test_what_save_weights_wrote_loads_as_a_backbone(tmp_path, one_model):
    other = body()
    other.save_weights(tmp_path / "best.weights.h5")
    load_backbone_weights(one_model, str(tmp_path / "best.weights.h5"))
    for name, value in values_of(other).items():
        if name.startswith("conv"):
            np.testing.assert_array_equal(values_of(one_model)[name], value)


# What does not fit


def refusal(model, path):
    """Message of the ModelError, once it is sure that the model is as before."""
    before = values_of(model)
    with pytest.raises(ModelError) as caught:
        load_backbone_weights(model, str(path))
    for name, value in values_of(model).items():
        np.testing.assert_array_equal(value, before[name])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_a_tensor_of_another_shape_is_named_and_nothing_is_changed(tmp_path, one_model, tensors):
    wrong = tensors | {"vggish/conv4/conv4_2/biases": np.zeros(511, np.float32)}
    message = refusal(one_model, write_checkpoint(tmp_path / "a.ckpt", wrong))
    assert "vggish/conv4/conv4_2/biases has shape (511,), conv4_2/bias needs (512,)" in message


def test_a_missing_tensor_is_named_and_nothing_is_changed(tmp_path, one_model, tensors):
    missing = {name: value for name, value in tensors.items() if "conv3_2/w" not in name}
    message = refusal(one_model, write_checkpoint(tmp_path / "a.ckpt", missing))
    assert "no tensor for conv3_2/kernel" in message and "conv3_1" not in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_tensor_that_is_not_finite_is_named_and_nothing_is_changed(
    tmp_path, one_model, tensors, value
):
    kernel = tensors["vggish/conv4/conv4_1/weights"].copy()
    kernel[0, 0, 0, 0] = value
    broken = tensors | {"vggish/conv4/conv4_1/weights": kernel}
    message = refusal(one_model, write_checkpoint(tmp_path / "a.ckpt", broken))
    assert "vggish/conv4/conv4_1/weights holds NaN or infinity" in message


def test_a_value_that_overflows_the_weights_precision_is_refused(tmp_path, one_model, tensors):
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        for name, value in tensors.items():
            h5[name] = value
        del h5["vggish/conv2/biases"]
        h5["vggish/conv2/biases"] = np.full(128, 1e300)
    assert "vggish/conv2/biases" in refusal(one_model, tmp_path / "a.h5")


@pytest.mark.parametrize(
    "override", ["model.backbone.params.width=0.5", "model.backbone.params.batch_norm=true"]
)
def test_published_weights_are_refused_by_a_network_of_another_build(checkpoint, override):
    message = refusal(body(override), checkpoint)
    assert "published weights need width 1 and no batch_norm" in message
    assert "conv1" in message and "conv4_2" in message


def test_weights_of_half_the_width_load_into_half_the_width(tmp_path):
    tensors = published_tensors(width=0.5)
    model = body("model.backbone.params.width=0.5")
    load_backbone_weights(model, str(write_checkpoint(tmp_path / "a.ckpt", tensors)))
    assert_backbone_equals(model, tensors)


@pytest.mark.parametrize("suffix", [".ckpt", ".h5", ".keras", ""])
@pytest.mark.parametrize("content", [b"", b"not weights at all", bytes(range(256)) * 100])
def test_a_file_that_is_no_weight_file_is_named(tmp_path, one_model, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    refusal(one_model, path)


@pytest.mark.parametrize("damage", ["gone", "short", "changed", "index"])
def test_a_damaged_checkpoint_is_named(tmp_path, one_model, tensors, damage):
    path = write_checkpoint(tmp_path / "a.ckpt", tensors)
    data = tmp_path / "a.ckpt.data-00000-of-00001"
    if damage == "gone":
        data.unlink()
    elif damage == "short":
        data.write_bytes(data.read_bytes()[:100_000])
    elif damage == "changed":
        content = bytearray(data.read_bytes())
        content[1000:1010] = b"x" * 10
        data.write_bytes(content)
    else:
        index = tmp_path / "a.ckpt.index"
        index.write_bytes(index.read_bytes()[:50])
    refusal(one_model, path)


def test_a_truncated_h5_file_is_named(tmp_path, one_model, tensors):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as h5:
        for name, value in tensors.items():
            h5[name] = value
    path.write_bytes(path.read_bytes()[:100_000])
    refusal(one_model, path)


# Where weights are


def test_weights_given_by_path_are_found_as_prefix_or_file(checkpoint, tmp_path):
    assert resolve_weights(str(checkpoint)) == checkpoint
    assert not checkpoint.exists()
    (tmp_path / "a.h5").write_bytes(b"")
    assert resolve_weights(str(tmp_path / "a.h5")) == tmp_path / "a.h5"


@pytest.mark.parametrize("name", ["vggsh", "no/such.ckpt", "", ".", "/"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ModelError) as caught:
        resolve_weights(name)
    assert str(caught.value).startswith(f"{name}: no such weight file")
    assert "(vggish, musicnn-" in str(caught.value) and "model.backbone.weights" in str(
        caught.value
    )


def test_a_registered_name_is_downloaded_and_loaded(tmp_path, monkeypatch, one_model):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "served").mkdir()
    tensors = published_tensors(seed=6)
    write_single_file(tmp_path / "served" / "model.ckpt", tensors)
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/model.ckpt"
    monkeypatch.setitem(find_weights.REGISTERED, "vggish", RemoteFile(url, "model.ckpt", None))
    monkeypatch.setenv("TAGGER_CACHE", str(tmp_path / "cache"))
    try:
        lines = load_backbone_weights(one_model, "vggish")
    finally:
        server.shutdown()
        server.server_close()
    assert str(tmp_path / "cache") in lines[0]
    assert_backbone_equals(one_model, tensors)
    # A second time without the server.
    assert resolve_weights("vggish").is_file()


def test_the_folder_of_a_bundle_gives_its_weights_and_a_damaged_one_is_refused(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    path = resolve_weights(str(tmp_path / "bundle"))
    assert path == bundle.root / "weights.h5"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"weights.h5: damaged or changed"):
        resolve_weights(str(tmp_path / "bundle"))


def test_a_network_learns_on_from_the_backbone_of_another_ones_bundle(tmp_path):
    make_bundle(tmp_path / "bundle", seed=5)
    theirs, _ = small_model(seed=5)
    ours, _ = small_model(seed=6)
    load_backbone_weights(ours, str(tmp_path / "bundle"))
    for one, other in zip(
        ours.embedding_model.weights, theirs.embedding_model.weights, strict=True
    ):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_a_registered_models_network_is_pulled_as_a_backbone(musicnn_cache, monkeypatch):
    monkeypatch.setenv("TAGGER_CACHE", str(musicnn_cache))
    config = load_config(None, ["front_end.name=musicnn", "model.backbone.name=musicnn"])
    model = build_model(config, config.make_front_end(), ["tag"])
    assert "52 tensors" in load_backbone_weights(model, "musicnn-mtt")[0]


# Matching

NAMES = st.text("abc_1", min_size=1, max_size=4)
WANTED = st.dictionaries(
    st.tuples(NAMES, st.sampled_from(["kernel", "bias"])).map("/".join),
    st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    min_size=1,
    max_size=6,
)
OLD_NAMES = {"kernel": "weights", "bias": "biases"}


def as_file(wanted, prefixes):
    """Tensors that fit `wanted`, under names as TensorFlow 1 has them."""
    names = {}
    for number, weight in enumerate(wanted):
        layer, kind = weight.split("/")
        names[weight] = f"{prefixes[number % len(prefixes)]}{layer}/{OLD_NAMES[kind]}"
    return names


@given(WANTED, st.lists(st.sampled_from(["", "net/", "net/deep/"]), min_size=1), st.randoms())
def test_matching_finds_every_tensor_in_any_order(wanted, prefixes, random):
    names = as_file(wanted, prefixes)
    items = [(names[weight], np.zeros(shape)) for weight, shape in wanted.items()]
    random.shuffle(items)
    assert match_tensors(dict(items), wanted, source="file") == names


@given(WANTED, st.data())
def test_matching_names_every_weight_that_it_cannot_place(wanted, data):
    names = as_file(wanted, ["net/"])
    lost = data.draw(st.sets(st.sampled_from(sorted(wanted)), min_size=1))
    tensors = {
        names[weight]: np.zeros(shape) for weight, shape in wanted.items() if weight not in lost
    }
    with pytest.raises(ModelError) as caught:
        match_tensors(tensors, wanted, source="file")
    assert set(re.findall(r"no tensor for ([^;]+)", str(caught.value))) == lost


@given(WANTED)
def test_matching_refuses_a_transposed_or_reshaped_tensor(wanted):
    names = as_file(wanted, ["net/"])
    tensors = {names[weight]: np.zeros((*shape, 1)) for weight, shape in wanted.items()}
    with pytest.raises(ModelError) as caught:
        match_tensors(tensors, wanted, source="file")
    assert str(caught.value).count(" has shape ") == len(wanted)


def test_two_tensors_for_one_weight_are_refused():
    tensors = {"a/conv1/weights": np.zeros(1), "b/conv1/kernel": np.zeros(1)}
    with pytest.raises(ModelError, match=r"several tensors for conv1/kernel \(a/conv1.*b/conv1"):
        match_tensors(tensors, {"conv1/kernel": (1,)}, source="file")


def test_a_layer_is_not_taken_for_another_whose_name_it_ends_with():
    with pytest.raises(ModelError, match="no tensor for conv1/kernel"):
        match_tensors({"my_conv1/weights": np.zeros(1)}, {"conv1/kernel": (1,)}, source="file")


def test_every_tensor_of_a_checkpoint_is_read_under_its_name(checkpoint, tensors):
    found = read_tensors(checkpoint)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)


# The published smoke test


@pytest.mark.parametrize(
    ("measured", "passed"),
    [(1.0, True), (1.1, True), (0.9, True), (1.1001, False), (0.8999, False), (-1.0, False)],
)
@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-3, 1e3])
def test_a_smoke_test_passes_within_its_relative_tolerance(measured, passed, scale):
    slack = 0.1 * (1 + 1e-9)
    assert SmokeTest({"a": (measured * scale, scale)}, slack).passed is passed


def test_a_smoke_test_fails_with_one_of_its_figures_or_a_nan():
    assert SmokeTest({"a": (1.0, 1.0), "b": (2.0, 2.1)}, 0.1).passed
    assert not SmokeTest({"a": (1.0, 1.0), "b": (1.0, 2.0)}, 0.1).passed
    assert not SmokeTest({"a": (float("nan"), 1.0)}, 0.1).passed


def test_a_smoke_test_is_shown_with_its_figures():
    test = SmokeTest({"mean": (0.5, 0.25)}, 0.1)
    assert str(test) == "FAIL: mean 0.500000 (expected 0.250000)"
    assert str(SmokeTest({"mean": (0.25, 0.25)}, 0.1)).startswith("pass: ")


def test_a_body_without_the_published_embedding_has_no_smoke_test(one_model):
    assert one_model.backbone.smoke_test(one_model.embedding_model) is None


def test_the_whole_published_checkpoint_loads_exactly_and_random_weights_fail_its_smoke_test(
    tmp_path, monkeypatch
):
    tensors = published_tensors(BODY | FULLY_CONNECTED, seed=7)
    path = write_checkpoint(tmp_path / "vggish_model.ckpt", tensors)
    # The rest of the large ones is given free before the network is built.
    ends = {name: tensor[-2:].copy() for name, tensor in tensors.items()}
    tensors.clear()
    built = []

    def remembering(*arguments, **keywords):
        built.append(build_model(*arguments, **keywords))
        return built[0]

    monkeypatch.setattr(tagger.network.model, "build_model", remembering)
    overrides = ["model.backbone.params.embedding=true", f"model.backbone.weights={path}"]
    lines = describe(load_config(overrides=[*overrides, "data.tags=2"]), None)
    values = values_of(built[0])
    for name, end in ends.items():
        layer, kind = name.split("/")[-2:]
        found = values[f"{layer}/{'kernel' if kind == 'weights' else 'bias'}"]
        np.testing.assert_array_equal(found[-2:], end, err_msg=name)
    assert f"18 tensors loaded from {path}" in lines
    assert lines[-1].startswith("published smoke test: FAIL: embedding mean ")
    assert "(expected 0.000657)" in lines[-1] and "(expected 0.343000)" in lines[-1]
