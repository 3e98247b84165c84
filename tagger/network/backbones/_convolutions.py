"""Blocks of a convolution, batch normalisation, ReLU, pooling and dropout, over one or two axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

# Of batch normalisation. Keras's 0.99 takes some 500 steps to know the mean of its inputs: with a
# thousand clips that is 15 epochs, in which validation would measure nothing.
_MOMENTUM = 0.9


@dataclass(frozen=True)
class Block:
    """What a block consists of.

    Parameters
    ----------
    filters : int
        Of its convolution.
    kernel : int
        Length of its filters along each axis.
    strides : tuple of int
        Of the convolution along time, and along bands where there are two axes.
    pool : tuple of int, optional
        Over so many steps, and bands; default none.
    pooling : {"max", "average"}
        How.
    dropout : float
        Behind all.
    padding : {"same", "valid"}
        Whether the convolution sees zeros beyond the ends.
    pool_padding : {"same", "valid"}
        Whether what is left over at an end is pooled too.
    """

    filters: int
    kernel: int = 3
    strides: tuple[int, ...] = (1, 1)
    pool: tuple[int, ...] | None = None
    pooling: Literal["max", "average"] = "max"
    dropout: float = 0.0
    padding: Literal["same", "valid"] = "same"
    pool_padding: Literal["same", "valid"] = "same"


def convolve(x: Any, blocks: Sequence[Block], *, n_axes: Literal[1, 2]) -> Any:
    """Add blocks to a graph.

    Parameters
    ----------
    x : Keras tensor [shape=(n_windows, n_frames, n_channels)], or with bands before the channels
        What is convolved.
    blocks : sequence of Block
        From input to output. Their layers are called ``conv1``, ``conv1_bn`` and so on.
    n_axes : {1, 2}
        Over time, or over time and bands.
    """
    from tagger.network.keras import keras

    layers = keras.layers
    convolution = {1: layers.Conv1D, 2: layers.Conv2D}[n_axes]
    pools = {
        "max": {1: layers.MaxPool1D, 2: layers.MaxPool2D}[n_axes],
        "average": {1: layers.AveragePooling1D, 2: layers.AveragePooling2D}[n_axes],
    }
    for number, block in enumerate(blocks, start=1):
        name = f"conv{number}"
        x = convolution(
            block.filters,
            block.kernel,
            strides=block.strides[:n_axes],
            padding=block.padding,
            kernel_initializer="he_normal",
            name=name,
        )(x)
        x = layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_bn")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
        if block.pool is not None:
            pool = pools[block.pooling]
            size = block.pool[:n_axes]
            x = pool(size, padding=block.pool_padding, name=f"{name}_pool")(x)
        if block.dropout:
            x = layers.Dropout(block.dropout, name=f"{name}_dropout")(x)
    return x
