"""One step of training: mix, score, follow the gradient; the same on one device and on many."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from preprocess.signal.features import LogScale
from tagger.network.keras import keras, tf
from tagger.network.model import TaggerModel
from tagger.train.augment import apply_plan, mixed
from tagger.train.distribution import Distribution


def make_train_step(
    model: TaggerModel,
    optimizer: Any,
    *,
    names: Sequence[str],
    augmented: Mapping[str, LogScale | None] | None = None,
    mixup: bool,
    distribution: Distribution,
    l2: float = 0.0,
    jit_compile: bool = False,
) -> Callable[..., Any]:
    """Make the graph of a training step.

    Parameters
    ----------
    model : TaggerModel
        What learns.
    optimizer : keras.optimizers.Optimizer
        What moves its variables; gradients are scaled if it is a ``LossScaleOptimizer``.
    names : sequence of str
        Of the inputs, in the order in which the step gets them.
    augmented : dict of str to LogScale or None, optional
        Those of them of which the step gets a plan each, after all inputs: see
        `tagger.train.augment.augmented_inputs`.
    mixup : bool
        Whether examples are mixed with their partners.
    distribution : Distribution
        The devices that take the step together.
    l2 : float
        Penalty on the squares of all kernels that are trained.
    jit_compile : bool
        Compile with XLA.

    Returns
    -------
    callable
        ``step(labels, partners, own_part, wishes, *inputs, *plans)`` of per-replica values gives a
        tensor: the loss of the joint batch, then the sum over devices of each of the `wishes`.
        Partners and own part [shape=(batch_size,)] are those of `augment.mixup_plans`,
        plans those of `augment.spectrogram_plans`.
    """
    scales = augmented or {}
    # Not what scales and offsets.
    kernels = [v for v in model.trainable_variables if "kernel" in v.name.rpartition("/")[2]]
    scaling = isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)

    def replica_step(labels: Any, partners: Any, own_part: Any, wishes: Any, *arrays: Any) -> Any:
        inputs = dict(zip(names, arrays[: len(names)], strict=True))
        plans = [arrays[first : first + 3] for first in range(len(names), len(arrays), 3)]
        for (name, scale), plan in zip(scales.items(), plans, strict=True):
            inputs[name] = apply_plan(inputs[name], plan, scale)
        if mixup:
            inputs = {name: mixed(array, partners, own_part) for name, array in inputs.items()}
            labels = mixed(labels, partners, own_part)
        with tf.GradientTape() as tape:
            scores = model.bag_scores(inputs, training=True)
            # Of the joint batch: the optimizer adds up the gradients of all devices.
            loss = model.task.loss(labels, scores)
            if l2:
                loss += l2 * tf.add_n([tf.reduce_sum(tf.square(kernel)) for kernel in kernels])
            loss /= distribution.n_replicas
            scaled = optimizer.get_scaled_loss(loss) if scaling else loss
        gradients = tape.gradient(scaled, model.trainable_variables)
        if scaling:
            gradients = optimizer.get_unscaled_gradients(gradients)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return tf.concat([[loss], wishes], axis=0)

    @tf.function(jit_compile=jit_compile)  # type: ignore[untyped-decorator]
    def train_step(*values: Any) -> Any:
        return distribution.sum(distribution.strategy.run(replica_step, args=values))

    return train_step
