"""Steps per second of training, and the share of what the device can multiply.

    python benchmarks/train.py [--width 1] [--write]

The step is that of `tagger train` on a batch that is in memory already: VGGish with the head of the
default config and 188 tags; all of it, its head alone behind a frozen body, and its head alone on
embeddings that were computed before. The peak is that of matrix products of 2048 x 2048. The
multiplications of a step are counted in the layers: forward once; backward once more for the
gradients of the weights, and again for those of the inputs of all layers but the first.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from prediction import machine, show_table

from tagger.config import load_config
from tagger.network.devices import find_device
from tagger.network.keras import keras, tf
from tagger.network.model import TaggerModel, build_model
from tagger.train.distribution import find_distribution
from tagger.train.steps import make_train_step

N_TAGS = 188
START, END = "<!-- train: start -->\n", "<!-- train: end -->\n"
SIDE = 2048


def median_seconds(call: Callable[[], object], *, at_least: int, seconds: float) -> float:
    """Median of calls for some seconds, after two that do not count."""
    call(), call()
    taken: list[float] = []
    while len(taken) < at_least or sum(taken) < seconds:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def peak(dtype: str) -> float:
    """Floating-point operations per second of large matrix products."""
    first = tf.cast(tf.random.normal((SIDE, SIDE)), dtype)

    @tf.function
    def product() -> object:
        return tf.reduce_sum(tf.cast(first @ first, tf.float32))

    return 2 * SIDE**3 / median_seconds(lambda: product().numpy(), at_least=5, seconds=2)


def multiplications(network: object) -> list[float]:
    """Floating-point operations of one example in each layer with a kernel, from input to output.

    A multiplication and an addition are two.
    """
    found = []
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            _, height, width, _ = layer.output_shape
            found.append(2.0 * height * width * np.prod(layer.kernel.shape))
        elif isinstance(layer, keras.layers.Dense):
            found.append(2.0 * np.prod(layer.kernel.shape))
    return found


def of_step(forward: list[float], head: list[float], *, frozen: bool) -> float:
    """Operations of a step for one example: layers that learn cost two or three times as much."""
    if frozen:
        return sum(forward) + 2 * sum(head) - head[0]
    return 3 * sum(forward) - forward[0]


def model_of(width: float, precision: str, *, frozen: bool) -> TaggerModel:
    config = load_config(
        None,
        [
            f"model.backbone.params.width={width}",
            f"model.backbone.freeze={'all' if frozen else 'none'}",
        ],
    )
    tags = [f"tag {number}" for number in range(N_TAGS)]
    return build_model(config, config.make_front_end(), tags, precision=precision)


class HeadAlone:
    """The head of a model on its own inputs; has what a step asks of a model."""

    def __init__(self, model: TaggerModel) -> None:
        inputs = keras.Input(model.embedding_model.output_shape[1:], name="embedding")
        x = inputs
        for layer in model.window_model.layers[len(model.embedding_model.layers) :]:
            x = layer(x)
        self.network = keras.Model(inputs, x)
        self.task = model.task
        self.trainable_variables = self.network.trainable_variables

    def bag_scores(self, inputs: dict[str, object], *, training: bool) -> object:
        """Scores of embeddings; the pooling over a single window changes nothing."""
        return self.network(inputs["embedding"], training=training)


def step_of(
    model: TaggerModel | HeadAlone, shape: tuple[int, ...], batch_size: int, *, xla: bool
) -> Callable[[], object]:
    """One training step on a batch that stays the same."""
    distribution = find_distribution("single")
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    step = make_train_step(
        model,
        optimizer,
        names=["windows"] if len(shape) > 1 else ["embedding"],
        mixup=False,
        distribution=distribution,
        jit_compile=xla,
    )
    if isinstance(model, TaggerModel):
        shape = (1, *shape)
        score = model.bag_scores
        name = next(iter(model.window_model.input))
        model.bag_scores = lambda inputs, training: score(
            {name: inputs["windows"]}, training=training
        )
    rng = np.random.default_rng(0)
    values = (
        tf.constant(rng.random((batch_size, N_TAGS)) < 0.02, tf.float32),
        tf.range(batch_size),
        tf.ones(batch_size),
        tf.zeros(2),
        tf.constant(rng.normal(-3, 2, (batch_size, *shape)), tf.float32),
    )
    return lambda: step(*values).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=1.0, help="of VGGish")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--xla", action="store_true", help="also compiled with XLA")
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    arguments = parser.parse_args()

    device = find_device()
    peaks = {"float32": peak("float32"), "mixed_bfloat16": peak("bfloat16")}
    lines = [
        f"{machine()}; {device.kind} ({device.description}).",
        "",
        f"VGGish of width {arguments.width:g}, {N_TAGS} tags; matrix products of {SIDE} x {SIDE}: "
        f"{peaks['float32'] / 1e9:,.0f} GFLOP/s in float32, "
        f"{peaks['mixed_bfloat16'] / 1e9:,.0f} in bfloat16.",
        "",
        "| what learns | precision | batch | ms per step | steps per second | patches per second "
        "| GFLOP/s | of the peak | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    reference = None
    for kind in ("all", "head, body frozen", "head, embeddings cached"):
        for precision in peaks:
            for batch_size in arguments.batch_sizes:
                for xla in (False, True) if arguments.xla else (False,):
                    model = model_of(arguments.width, precision, frozen=kind != "all")
                    forward = multiplications(model.window_model)
                    n_body = len(multiplications(model.embedding_model))
                    head = forward[n_body:]
                    if kind == "head, embeddings cached":
                        operations = 3 * sum(head) - head[0]
                        shape = model.embedding_model.output_shape[1:]
                        learner: TaggerModel | HeadAlone = HeadAlone(model)
                    else:
                        operations = of_step(forward, head, frozen=kind != "all")
                        shape = next(iter(model.window_model.input.values())).shape[1:]
                        learner = model
                    call = step_of(learner, tuple(shape), batch_size, xla=xla)
                    seconds = median_seconds(call, at_least=3, seconds=arguments.seconds)
                    rate = batch_size / seconds
                    reference = reference or rate
                    flops = operations * rate
                    lines.append(
                        f"| {kind}{', XLA' if xla else ''} | {precision} | {batch_size} "
                        f"| {1e3 * seconds:,.1f} | {1 / seconds:,.2f} | {rate:,.0f} "
                        f"| {flops / 1e9:,.1f} | {100 * flops / peaks[precision]:.0f} % "
                        f"| {rate / reference:.2f} |"
                    )
                    print(lines[-1], file=sys.stderr, flush=True)
    table = "\n".join(lines) + "\n"
    show_table(table, START, END, write=arguments.write)


if __name__ == "__main__":
    main()
