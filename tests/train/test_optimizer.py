"""Promises of the losses, the optimizer, its rates, and the average of weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.base.errors import ConfigError
from tagger.config import TrainConfig, load_config
from tagger.network.keras import keras, tf
from tagger.network.losses import multilabel_loss
from tagger.network.model import build_model
from tagger.train.optimizer import learning_rate, make_averaging, make_optimizer

LABELS = np.array([[1, 0, 1], [0, 0.3, 1]], np.float32)
SCORES = np.array([[0.9, 0.2, 0.4], [0.03, 0.6, 1.0]], np.float32)


def loss(labels=LABELS, scores=SCORES, **options):
    return float(multilabel_loss(tf.constant(labels), tf.constant(scores), **options))


# Losses


def test_the_plain_loss_is_binary_cross_entropy():
    p = np.clip(SCORES.astype(np.float64), 1e-7, 1 - 1e-7)
    by_hand = -(LABELS * np.log(p) + (1 - LABELS) * np.log(1 - p)).mean()
    assert loss() == pytest.approx(by_hand, rel=1e-5)


def test_equal_exponents_are_the_focal_loss():
    p = np.clip(SCORES.astype(np.float64), 1e-7, 1 - 1e-7)
    by_hand = -(LABELS * (1 - p) ** 2 * np.log(p) + (1 - LABELS) * p**2 * np.log(1 - p)).mean()
    assert loss(focus_positive=2, focus_negative=2) == pytest.approx(by_hand, rel=1e-5)


def test_a_margin_and_an_exponent_for_negatives_are_the_asymmetric_loss():
    p = np.clip(SCORES.astype(np.float64), 1e-7, 1 - 1e-7)
    q = np.maximum(p - 0.05, 0)
    by_hand = -(LABELS * np.log(p) + (1 - LABELS) * q**4 * np.log(1 - q)).mean()
    assert loss(focus_negative=4, negative_margin=0.05) == pytest.approx(by_hand, rel=1e-5)


def test_a_weight_counts_positives_more_and_negatives_as_before():
    ones, zeros = np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32)
    scores = np.array([[0.3, 0.6]], np.float32)
    assert loss(ones, scores, positive_weight=3) == pytest.approx(3 * loss(ones, scores), rel=1e-5)
    assert loss(zeros, scores, positive_weight=3) == pytest.approx(loss(zeros, scores), rel=1e-5)


def test_smoothed_negatives_cost_least_at_their_own_value():
    zeros = np.zeros((1, 1), np.float32)
    costs = [
        loss(zeros, np.full((1, 1), score, np.float32), negative_label=0.1)
        for score in (0.02, 0.1, 0.3)
    ]
    assert min(costs) == costs[1]


@pytest.mark.parametrize(
    "other",
    ["positive_weight=2", "focus_positive=2", "focus_negative=4", "negative_margin=0.05"],
)
def test_smoothed_negatives_are_refused_with_any_but_the_plain_loss(other):
    smoothed = "task.params.negative_label=0.1"
    load_config(None, [smoothed])
    with pytest.raises(ConfigError, match=r"negative_label=0\.1 is for the plain loss"):
        load_config(None, [smoothed, f"task.params.{other}"])


@given(
    score=st.floats(0, 1, width=32),
    label=st.sampled_from([0.0, 0.25, 1.0]),
    options=st.fixed_dictionaries(
        {
            "positive_weight": st.sampled_from([1.0, 5.0]),
            "focus_positive": st.sampled_from([0.0, 0.5, 2.0]),
            "focus_negative": st.sampled_from([0.0, 0.5, 4.0]),
            "negative_margin": st.sampled_from([0.0, 0.05]),
        }
    ),
)
def test_every_loss_has_a_finite_gradient_for_every_score(score, label, options):
    scores = tf.constant([[score]], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        value = multilabel_loss(tf.constant([[label]], tf.float32), scores, **options)
    assert np.isfinite(value.numpy())
    assert np.isfinite(tape.gradient(value, scores).numpy()).all()


# Optimizer


def test_weight_decay_draws_kernels_to_zero_and_leaves_offsets_alone():
    kernel = tf.Variable([1.0], name="dense/kernel")
    bias = tf.Variable([1.0], name="dense/bias")
    optimizer = make_optimizer(
        TrainConfig(learning_rate=0.1, weight_decay=0.5), precision="float32"
    )
    optimizer.build([kernel, bias])
    optimizer.apply_gradients([(tf.zeros(1), kernel), (tf.zeros(1), bias)])
    np.testing.assert_allclose(kernel.numpy(), [1 - 0.1 * 0.5], rtol=1e-6)
    np.testing.assert_array_equal(bias.numpy(), [1.0])


def test_weight_decay_leaves_every_alpha_of_autopool_alone():
    config = load_config(
        None,
        [
            "model.backbone.params.width=0.05",
            "model.backbone.params.pooling=autopool",
            "model.aggregate=autopool",
            "stream.patches_per_bag=2",
        ],
    )
    model = build_model(config, config.make_front_end(), ["a"])
    alphas = [model.time_pooling.kernel, model.window_model.get_layer("grid_pooling").kernel]
    kernel = model.window_model.get_layer("conv1").kernel
    before = kernel.numpy()
    for alpha in alphas:
        alpha.assign(tf.ones_like(alpha))
    optimizer = make_optimizer(
        TrainConfig(learning_rate=0.1, weight_decay=0.5), precision="float32"
    )
    variables = model.trainable_variables
    optimizer.build(variables)
    optimizer.apply_gradients([(tf.zeros_like(variable), variable) for variable in variables])
    for alpha in alphas:
        np.testing.assert_array_equal(alpha.numpy(), 1.0)
    np.testing.assert_allclose(kernel.numpy(), before * (1 - 0.1 * 0.5), rtol=1e-5)


def test_clipping_bounds_the_gradient_of_all_weights_together():
    def adams_memory(clip_norm):
        variables = [tf.Variable([0.0]), tf.Variable([0.0])]
        optimizer = make_optimizer(TrainConfig(clip_norm=clip_norm), precision="float32")
        optimizer.build(variables)
        gradients = [tf.constant([30.0]), tf.constant([40.0])]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        # The first moment after one step: a tenth of the gradient.
        return np.concatenate([10 * m.numpy() for m in optimizer._momentums])

    np.testing.assert_allclose(adams_memory(None), [30, 40], rtol=1e-5)
    np.testing.assert_allclose(adams_memory(5.0), [3, 4], rtol=1e-5)


def test_float16_scales_its_gradients():
    optimizer = make_optimizer(TrainConfig(), precision="mixed_float16")
    assert isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)


def test_the_rate_rises_to_the_first_rate_and_then_falls_along_the_cosine():
    config = TrainConfig(learning_rate=1.0, final_learning_rate=0.0)
    rates = [
        learning_rate(config, step=step, n_steps=110, factor=1.0, warmup_steps=10)
        for step in range(111)
    ]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == max(rates) == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0.0)


@pytest.mark.parametrize("warmup_epochs", [2, 2.5])
def test_a_rise_that_never_ends_is_refused(warmup_epochs):
    with pytest.raises(ConfigError, match=r"leaves none of epochs=2 for the full rate"):
        load_config(None, ["train.epochs=2", f"train.warmup_epochs={warmup_epochs}"])
    load_config(None, ["train.epochs=2", "train.warmup_epochs=1.9"])


def test_an_average_forgets_the_first_weights_and_then_follows_slowly():
    weight, mean = tf.Variable([100.0]), tf.Variable([-7.0])
    average = make_averaging([mean], [weight], decay=0.9)
    values, seen = np.random.default_rng(0).normal(5, 1, 400), []
    for step, value in enumerate(values):
        weight.assign([value])
        average(tf.constant(step))
        seen.append(mean.numpy()[0])
    assert abs(seen[5] - 5) < 2
    expected = seen[-2] * 0.9 + 0.1 * values[-1]
    assert seen[-1] == pytest.approx(expected, rel=1e-5)
    assert np.std(seen[100:]) < 0.5 * np.std(values[100:])
