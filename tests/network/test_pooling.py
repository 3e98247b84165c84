"""Promises of the pooling layers, and of where TensorFlow is imported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tagger.network.keras import keras, tf
from tagger.network.pooling import AutoPool, MaxPool, MeanPool, grid_pooling, pooling_layer

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "tagger").rglob("*.py"), *(ROOT / "preprocess").rglob("*.py")])
LAYERS = [AutoPool, MeanPool, MaxPool]
BY_HAND = {
    "mean": lambda x: x.mean(axis=1),
    "average": lambda x: x.mean(axis=1),
    "max": lambda x: x.max(axis=1),
    # Its alpha starts at 0.
    "autopool": lambda x: x.mean(axis=1),
}


@pytest.fixture
def batch():
    return np.random.default_rng(0).random((3, 5, 4), dtype=np.float32)


def autopool(kernel, n_dimensions=4, **kwargs):
    layer = AutoPool(**kwargs)
    layer.build((None, None, n_dimensions))
    layer.set_weights([np.broadcast_to(np.float32(kernel), (1, n_dimensions))])
    return layer


def pooled_model(layer, n_dimensions=4):
    inputs = keras.Input((None, n_dimensions))
    return keras.Model(inputs, layer(inputs))


# AutoPool


def test_the_kernel_of_autopool_is_a_trainable_weight_of_its_model():
    model = pooled_model(AutoPool())
    assert [tuple(weight.shape) for weight in model.trainable_weights] == [(1, 4)]


def test_training_moves_the_kernel_of_autopool(batch):
    model = pooled_model(AutoPool())
    model.compile(keras.optimizers.SGD(10.0), "mse")
    before = model.get_weights()[0].copy()
    model.fit(batch, batch.max(axis=1), epochs=20, verbose=0)
    # Towards the maximum, for every dimension.
    assert (model.get_weights()[0] > before + 0.1).all()


def test_autopool_is_mean_softmax_or_maximum_by_its_kernel(batch):
    np.testing.assert_allclose(autopool(0)(batch), batch.mean(axis=1), atol=1e-6)
    weights = np.exp(batch) / np.exp(batch).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(autopool(1)(batch), (weights * batch).sum(axis=1), atol=1e-6)
    np.testing.assert_allclose(autopool(1e5)(batch), batch.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(autopool(-1e5)(batch), batch.min(axis=1), atol=1e-6)


def test_autopool_pools_over_the_steps_and_not_over_the_batch(batch):
    layer = autopool([0, 1, 2, 3])
    alone = np.concatenate([layer(batch[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(layer(batch), alone, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kernel", [1e4, -1e4])
def test_autopool_is_finite_in_half_precision_with_a_large_kernel(batch, dtype, kernel):
    layer = autopool(kernel, dtype=keras.mixed_precision.Policy(dtype))
    pooled = layer(tf.cast(100 * batch, layer.compute_dtype))
    assert pooled.dtype == layer.compute_dtype
    expected = 100 * (batch.max(axis=1) if kernel > 0 else batch.min(axis=1))
    np.testing.assert_allclose(tf.cast(pooled, tf.float32), expected, rtol=0.01)


# All layers


@pytest.mark.parametrize("kind", BY_HAND)
def test_a_pooling_layer_is_found_by_its_name(kind, batch):
    np.testing.assert_allclose(pooling_layer(kind)(batch), BY_HAND[kind](batch), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("layer_class", LAYERS)
def test_masked_steps_change_nothing(layer_class, dtype, batch):
    layer = layer_class(dtype=dtype)
    mask = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]], bool)
    batch[~mask] = 50.0
    other = np.where(mask[..., None], batch, -50.0)
    pooled = np.asarray(tf.cast(layer(tf.cast(batch, dtype), mask=mask), tf.float32))
    np.testing.assert_array_equal(
        pooled, tf.cast(layer(tf.cast(other, dtype), mask=mask), tf.float32)
    )
    for row in range(3):
        admitted = tf.cast(batch[row : row + 1, mask[row]], dtype)
        alone = tf.cast(layer(admitted), tf.float32)[0]
        tolerance = 1e-6 if dtype == "float32" else 0.02
        np.testing.assert_allclose(pooled[row], alone, rtol=tolerance)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_a_mask_from_an_earlier_layer_is_respected_and_ends_here(layer_class, batch):
    batch[:, 3:] = 0
    inputs = keras.Input((None, 4))
    masked = keras.layers.Masking(0.0)(inputs)
    pooled = layer_class()(masked)
    assert getattr(pooled, "_keras_mask", None) is None
    model = keras.Model(inputs, pooled)
    expected = keras.Model(inputs, layer_class()(inputs))(batch[:, :3])
    np.testing.assert_allclose(model(batch), expected, atol=1e-6)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_without_any_admitted_step_the_result_is_finite(layer_class, batch):
    assert np.isfinite(layer_class()(batch, mask=np.zeros((3, 5), bool))).all()


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("layer_class", LAYERS)
def test_a_saved_model_is_loaded_without_naming_its_layers(layer_class, suffix, batch, tmp_path):
    model = pooled_model(layer_class(name="pool"))
    if model.weights:
        model.set_weights([np.array([[0.5, -1, 2, 30]], np.float32)])
    path = tmp_path / f"model{suffix}"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert type(loaded.get_layer("pool")) is layer_class
    np.testing.assert_array_equal(loaded(batch), model(batch))


@pytest.mark.parametrize("layer_class", LAYERS)
def test_a_layer_made_from_its_config_is_the_same(layer_class):
    layer = layer_class(name="pool", dtype="float16")
    again = layer_class.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert getattr(again, "axis", 1) == 1


@pytest.mark.parametrize("kind", ["average", "max", "autopool"])
def test_a_grid_is_pooled_over_all_its_positions(kind):
    grid = np.random.default_rng(0).random((2, 6, 4, 3), dtype=np.float32)
    inputs = keras.Input((6, 4, 3))
    model = keras.Model(inputs, grid_pooling(kind, name="grid")(inputs))
    np.testing.assert_allclose(model(grid), BY_HAND[kind](grid.reshape(2, 24, 3)), atol=1e-6)
    assert [layer.name for layer in model.layers[1:]] == ["grid_positions", "grid"]


@pytest.mark.parametrize("kind", ["average", "max", "autopool"])
def test_a_grid_that_keeps_its_frequencies_is_pooled_over_time_band_by_band(kind):
    grid = np.random.default_rng(0).random((2, 6, 4, 3), dtype=np.float32)
    inputs = keras.Input((6, 4, 3))
    model = keras.Model(inputs, grid_pooling(kind, keep_frequency=True, name="grid")(inputs))
    np.testing.assert_allclose(model(grid), BY_HAND[kind](grid.reshape(2, 6, 12)), atol=1e-6)


# Where TensorFlow is imported


def test_one_file_alone_sets_the_keras_flag():
    setting = re.compile(r"^[^#\n]*TF_USE_LEGACY_KERAS.*=", re.MULTILINE)
    setters = [path for path in SOURCES if setting.search(path.read_text(encoding="utf-8"))]
    assert [path.relative_to(ROOT).as_posix() for path in setters] == ["tagger/network/keras.py"]


def test_the_published_pooling_layer_is_built_on_the_same_keras():
    assert issubclass(AutoPool, keras.layers.Layer)


def test_importing_the_package_first_is_enough_to_get_the_right_keras():
    code = (
        "import tagger.network.pooling as p, tf_keras as k;"
        "print(issubclass(p.AutoPool, k.layers.Layer))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.stdout == "True\n", done.stderr
