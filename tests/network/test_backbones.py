"""Promises of the filter banks, and of the backbones that musicnn's authors published."""

import numpy as np
import pytest
from campaigns import quick_some

from preprocess.signal.features import FRONT_ENDS
from tagger.base.errors import ConfigError
from tagger.config import load_config
from tagger.network.backbones.vgg import _POOLS, _SEPARATE_POOLS, _smallest
from tagger.network.filter_banks import BandMaximum, FilterBank
from tagger.network.keras import keras, tf
from tagger.network.model import build_model


def spectrograms(n_steps, n_bands, *, n=2):
    return np.random.default_rng(1).normal(0, 1, (n, n_steps, n_bands)).astype(np.float32)


# Filter banks


@pytest.mark.parametrize(
    ("n_frames", "n_bands", "n_steps", "n_spectrogram_bands", "fold"),
    [
        (7, 38, 187, 96, 7),
        (7, 67, 187, 96, 7),
        (128, 1, 187, 96, 4),
        (64, 1, 187, 96, 4),
        (32, 1, 187, 96, 4),
        (32, 1, 187, 96, 1),
        (32, 1, 187, 96, 32),
        (7, 3, 10, 8, 1),
        # Even and odd sizes, of which a side gets a frame more.
        (6, 2, 9, 5, 3),
        (6, 2, 9, 5, 2),
        (2, 1, 4, 4, 2),
        (1, 1, 4, 4, 1),
        # Longer than what it looks at, and as high.
        (12, 5, 3, 5, 4),
    ],
)
def test_a_filter_bank_computes_what_a_convolution_computes(
    n_frames, n_bands, n_steps, n_spectrogram_bands, fold
):
    x = spectrograms(n_steps, n_spectrogram_bands)
    bank = FilterBank(6, n_frames, n_bands, fold=fold)
    found = bank(x)
    bank.bias.assign(np.linspace(-1, 1, 6))
    found = bank(x).numpy()
    before = (n_frames - 1) // 2
    padded = np.pad(x, [(0, 0), (before, n_frames - 1 - before), (0, 0)])
    convolution = keras.layers.Conv2D(6, (n_frames, n_bands), activation="relu")
    convolution.build((None, *padded.shape[1:], 1))
    convolution.set_weights(bank.get_weights())
    expected = convolution(padded[..., np.newaxis]).numpy()
    assert expected.shape == (2, n_steps, n_spectrogram_bands - n_bands + 1, 6)
    assert (expected > 0).mean() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, expected.max()))


def test_a_filter_bank_keeps_the_size_in_time_as_same_padding_does():
    x = spectrograms(20, 5)
    bank = FilterBank(3, 8, 5, fold=4)
    found = bank(x).numpy()
    same = keras.layers.Conv1D(3, 8, padding="same", activation="relu")
    same.build((None, 20, 5))
    same.set_weights([bank.kernel.numpy()[:, :, 0], bank.bias.numpy()])
    np.testing.assert_allclose(found[:, :, 0], same(x).numpy(), rtol=0, atol=1e-5)


def test_the_weights_of_a_filter_bank_train_as_those_of_a_convolution():
    x = spectrograms(12, 6)
    bank = FilterBank(4, 6, 3, fold=3)
    bank(x)
    bank.bias.assign([0.1, -0.1, 0.2, 0.0])
    convolution = keras.layers.Conv2D(4, (6, 3), activation="relu")
    padded = np.pad(x, [(0, 0), (2, 3), (0, 0)])[..., np.newaxis]
    convolution.build(padded.shape)
    convolution.set_weights(bank.get_weights())
    gradients = []
    for layer, given in ((bank, x), (convolution, padded)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(layer(given) ** 2)
        gradients.append(tape.gradient(loss, layer.trainable_variables))
    for ours, theirs in zip(*gradients, strict=True):
        assert np.abs(theirs).max() > 1e-3
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_a_fold_that_does_not_divide_the_frames_is_refused():
    with pytest.raises(ValueError, match="fold=4 does not divide n_frames=7"):
        FilterBank(3, 7, 2, fold=4)


def band_maximum(n_channels, *, seed=0):
    """A layer whose scales rise and fall, and the layer that it is made of."""
    rng = np.random.default_rng(seed)
    values = [
        np.resize([1.0, -1.0], n_channels) * rng.uniform(0.2, 2, n_channels),
        rng.normal(0, 1, n_channels),
        rng.normal(0, 1, n_channels),
        rng.uniform(0.2, 3, n_channels),
    ]
    layers = [BandMaximum(), keras.layers.BatchNormalization()]
    for layer in layers:
        layer.build((None, 5, 7, n_channels))
        layer.set_weights(values)
    return layers


def images(n_channels, *, n=4):
    return np.random.default_rng(2).normal(0, 2, (n, 5, 7, n_channels)).astype(np.float32)


@pytest.mark.parametrize("training", [False, None])
def test_a_band_maximum_is_a_normalisation_and_the_maximum_over_bands(training):
    ours, normalisation = band_maximum(12)
    x = images(12)
    expected = normalisation(x, training=training).numpy().max(axis=2)
    assert expected.shape == (4, 5, 12)
    np.testing.assert_allclose(ours(x, training=training).numpy(), expected, rtol=0, atol=1e-5)


def test_a_band_maximum_of_scale_zero_gives_its_offset():
    layer, _ = band_maximum(3)
    layer.gamma.assign([0.0, 0.0, 0.0])
    found = layer(images(3), training=False).numpy()
    np.testing.assert_allclose(found, np.broadcast_to(layer.beta, found.shape), atol=1e-6)


def test_a_band_maximum_trains_as_the_normalisation_does():
    ours, normalisation = band_maximum(12)
    x = images(12)
    found = ours(x, training=True).numpy()
    expected = normalisation(x, training=True).numpy().max(axis=2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    before = band_maximum(12)[0]
    for name in ("moving_mean", "moving_variance"):
        moved, theirs, old = (getattr(a, name).numpy() for a in (ours, normalisation, before))
        np.testing.assert_allclose(moved, theirs, rtol=1e-5)
        assert np.abs(moved - old).max() > 1e-3
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(ours(x, training=True) ** 2)
    gamma, beta = tape.gradient(loss, [ours.gamma, ours.beta])
    assert np.abs(gamma).min() > 0
    assert np.abs(beta).min() > 0


def test_a_frozen_band_maximum_keeps_its_statistics_in_training():
    ours, normalisation = band_maximum(12)
    ours.trainable = normalisation.trainable = False
    x = images(12)
    before = ours.get_weights()
    found = ours(x, training=True).numpy()
    expected = normalisation(x, training=True).numpy().max(axis=2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    for old, new in zip(before, ours.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_filter_banks_are_saved_and_loaded(tmp_path):
    inputs = keras.Input((12, 6))
    outputs = BandMaximum(name="pooled")(FilterBank(4, 6, 3, fold=3, name="bank")(inputs))
    model = keras.Model(inputs, outputs)
    model.get_layer("pooled").gamma.assign([1.0, -1.0, 0.5, -0.5])
    x = spectrograms(12, 6)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("bank").get_config() == model.get_layer("bank").get_config()
    assert isinstance(loaded.get_layer("pooled"), BandMaximum)
    np.testing.assert_array_equal(loaded(x, training=False), model(x, training=False))


# Backbones


def network(backbone, *overrides, n_tags=50, front_end="musicnn", params=None, precision="float32"):
    keras.utils.set_random_seed(0)
    head = {
        "musicnn": ["model.head.params.units=200"],
        "vgg": ["model.head.params.n_blocks=1", "model.head.params.batch_norm=false"],
    }
    config = load_config(None, [f"model.backbone.name={backbone}", *head[backbone], *overrides])
    tags = [f"tag {number}" for number in range(n_tags)]
    given = FRONT_ENDS.create(front_end, params or {})
    return build_model(config, given, tags, precision=precision)


# The authors give them in thousands, 787k and 605k.
@pytest.mark.parametrize(("backbone", "n_thousand"), [("musicnn", 787), ("vgg", 605)])
def test_the_networks_have_the_published_number_of_parameters(backbone, n_thousand):
    model = network(backbone)
    trained = sum(int(variable.shape.num_elements()) for variable in model.trainable_variables)
    assert trained // 1000 == n_thousand


@pytest.mark.parametrize("backbone", ["musicnn", "vgg"])
@pytest.mark.parametrize("precision", quick_some(["float32", "mixed_bfloat16"], ["float32"]))
def test_the_networks_train(backbone, precision):
    model = network(backbone, n_tags=2, precision=precision)
    rng = np.random.default_rng(0)
    labels = np.array([[0, 1], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    log_mel = rng.uniform(0, 2, (4, 187, 96)).astype(np.float32)
    log_mel[1::2, :, :30] += 2
    # Clips of one window.
    inputs = {"log_mel": tf.constant(log_mel[:, np.newaxis])}
    optimizer = keras.optimizers.Adam(0.003)
    before = {name: weight.numpy() for name, weight in model.weights.items()}
    losses = []
    for _ in range(4):
        with tf.GradientTape() as tape:
            loss = model.task.loss(labels, model.bag_scores(inputs, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        losses.append(float(loss))
    assert np.isfinite(losses).all()
    unmoved = [
        name
        for name, weight in model.weights.items()
        if np.array_equal(before[name], weight.numpy())
    ]
    assert unmoved == []
    # Dropout hides much of so short a training.
    assert min(losses[1:]) < losses[0]


def test_musicnn_takes_short_and_narrow_windows():
    model = network("musicnn", n_tags=2, params={"window_frames": 3, "n_bands": 4})
    scores = model.score_windows({"log_mel": spectrograms(3, 4)})
    assert scores.shape == (2, 2)
    assert np.isfinite(scores).all()


def test_the_pools_over_time_are_maximum_and_mean_of_the_same_features():
    model = network("musicnn", n_tags=2)
    log_mel = spectrograms(187, 96)
    layers = model.window_model
    features = keras.Model(layers.inputs, layers.get_layer("features").output)({"log_mel": log_mel})
    outputs = model.output_model({"log_mel": log_mel}, training=False)
    np.testing.assert_allclose(outputs["max_pool"], features.numpy().max(axis=1), atol=1e-5)
    np.testing.assert_allclose(outputs["mean_pool"], features.numpy().mean(axis=1), atol=1e-4)
    # Taken in pairs by the dense layer: maximum and mean of one feature, then of the next.
    pooled = keras.Model(layers.inputs, layers.get_layer("pooled").output)({"log_mel": log_mel})
    np.testing.assert_array_equal(pooled[:, 0::2], outputs["max_pool"])
    np.testing.assert_array_equal(pooled[:, 1::2], outputs["mean_pool"])


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("axis", ["n_bands", "window_frames"])
def test_vgg_takes_the_smallest_window_that_its_pools_leave_something_of(separate, axis):
    pools = _SEPARATE_POOLS if separate else _POOLS
    sizes = {"window_frames": _smallest(pools, 0), "n_bands": _smallest(pools, 1)}
    option = f"model.backbone.params.separate_pools={str(separate).lower()}"
    small = ("model.backbone.params.n_filters=2", option)
    model = network("vgg", *small, n_tags=2, params=sizes)
    assert model.embedding_model.output_shape == (None, 2)
    sizes[axis] -= 1
    with pytest.raises(ConfigError, match=r"backbone 'vgg' needs windows of at least \d+ frames"):
        network("vgg", *small, n_tags=2, params=sizes)


@pytest.mark.parametrize("separate", [False, True])
def test_both_kinds_of_pools_leave_as_much_of_the_published_window(separate):
    option = f"model.backbone.params.separate_pools={str(separate).lower()}"
    model = network("vgg", option)
    assert model.embedding_model.output_shape == (None, 256)
    assert model.embedding_model.get_layer("pool1").output_shape == (
        (None, 46, 96, 128) if separate else (None, 92, 48, 128)
    )


@pytest.mark.parametrize("backbone", ["musicnn", "vgg"])
def test_an_input_that_the_front_end_does_not_give_is_refused(backbone):
    with pytest.raises(ConfigError, match=f"backbone '{backbone}' needs the input 'cqt'"):
        network(backbone, "model.backbone.params.input=cqt")


def test_a_window_of_one_band_is_refused():
    with pytest.raises(ConfigError, match="'musicnn' needs windows of at least 1 frames x 2 bands"):
        network("musicnn", params={"n_bands": 1})


def test_windows_that_are_no_spectrograms_are_refused():
    model = network("musicnn", n_tags=2)
    with pytest.raises(ConfigError, match=r"not of shape \(187, 96, 1\)"):
        model.backbone.build({"log_mel": keras.Input((187, 96, 1))})


def test_the_embeddings_are_named():
    outputs = {
        backbone: {
            name: out.shape[-1] for name, out in network(backbone).output_model.output.items()
        }
        for backbone in ("musicnn", "vgg")
    }
    assert outputs == {
        "musicnn": {"mean_pool": 753, "max_pool": 753, "penultimate": 200, "scores": 50},
        "vgg": {"pooled": 256, "scores": 50},
    }
