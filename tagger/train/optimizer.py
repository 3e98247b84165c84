"""What moves the weights, how far at which step, and the average of where they have been."""

import math
from typing import Any

from tagger.config import TrainConfig
from tagger.network.keras import keras, tf

# Patterns of names. Neither scales nor offsets are drawn to zero by weight decay, nor what AutoPool
# has learned between mean and maximum: the layer within the backbone, and the one over time, whose
# variable has no name but its own.
_NOT_DECAYED = ["bias", "gamma", "beta", "pooling/kernel", "^kernel"]


def make_optimizer(config: TrainConfig, *, precision: str) -> Any:
    """Adam, or AdamW (Loshchilov & Hutter, "Decoupled weight decay", ICLR 2019).

    Parameters
    ----------
    config : TrainConfig
        First rate, decay, clipping.
    precision : str
        With ``"mixed_float16"`` gradients are scaled.

    Returns
    -------
    keras.optimizers.Optimizer
        Not yet built.
    """
    clipping = {} if config.clip_norm is None else {"global_clipnorm": config.clip_norm}
    if config.weight_decay:
        optimizer = keras.optimizers.AdamW(
            config.learning_rate, weight_decay=config.weight_decay, **clipping
        )
        optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    else:
        optimizer = keras.optimizers.Adam(config.learning_rate, **clipping)
    if precision == "mixed_float16":
        # Gradients too small for float16 are scaled up before and down after.
        return keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer


def learning_rate(
    config: TrainConfig,
    *,
    step: int,
    n_steps: int,
    factor: float,
    warmup_steps: int = 0,
    phase: int = 0,
) -> float:
    """Rate of a step: a straight rise, then constant or a half cosine, times the plateau factor.

    Parameters
    ----------
    config : TrainConfig
        First and, for the cosine, last rate.
    step, n_steps : int
        Number of the step, and of all steps.
    factor : float
        What reduce-on-plateau has made of it.
    warmup_steps : int
        Steps of the rise.
    phase : int
        Of `TrainConfig.phases`.
    """
    rate = config.phase_rate(phase)
    if config.final_learning_rate is not None:
        # Loshchilov & Hutter, "SGDR" (ICLR 2017), equation 5, without restarts.
        done = (step - warmup_steps) / max(1, n_steps - warmup_steps)
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))
        rate = config.final_learning_rate + (rate - config.final_learning_rate) * fall
    return rate * factor * min(1.0, (step + 1) / (warmup_steps + 1))


def make_averaging(averages: list[Any], weights: list[Any], *, decay: float) -> Any:
    """Graph that moves averages of weights towards the weights, once per step.

    Parameters
    ----------
    averages, weights : list of tf.Variable
        In the same order.
    decay : float
        Share of the average that stays, once there have been steps enough.

    Returns
    -------
    callable
        ``average(step)``, with the number of steps taken as a tensor.
    """

    @tf.function  # type: ignore[untyped-decorator]
    def average(step: Any) -> None:
        # The first weights, which are random, are forgotten sooner.
        n = tf.cast(step, tf.float32)
        stays = tf.minimum(decay, (1 + n) / (10 + n))
        for mean, weight in zip(averages, weights, strict=True):
            value = tf.cast(weight.read_value(), mean.dtype)
            mean.assign(value + tf.cast(stays, mean.dtype) * (mean - value))

    return average
