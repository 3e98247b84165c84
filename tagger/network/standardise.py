"""Inputs less their mean, over their deviation: both of the training windows."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.network.keras import keras, tf

# Of values that never change, whose deviation would be zero.
_SMALLEST = 1e-6


@keras.utils.register_keras_serializable("tagger")
class Standardise(keras.layers.Layer):
    """Standardise each value of the last axis: of a row each of its values, of a spectrogram bands.

    Until `set_moments` is called it changes nothing. Mean and deviation are weights that training
    does not move, so that they go wherever the network goes.

    Parameters
    ----------
    source : str
        Name of the input that it is for.
    """

    def __init__(self, source: str, **options: Any) -> None:
        super().__init__(trainable=False, **options)
        self.source = source

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        shape = (input_shape[-1],)
        self.mean = self.add_weight("mean", shape, initializer="zeros", trainable=False)
        self.deviation = self.add_weight("deviation", shape, initializer="ones", trainable=False)
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """Standardise inputs [shape=(n_windows, ..., n_values)]."""
        return (inputs - tf.cast(self.mean, inputs.dtype)) / tf.cast(self.deviation, inputs.dtype)

    def set_moments(self, mean: npt.NDArray[np.floating], deviation: npt.NDArray[Any]) -> None:
        """Take the moments of the training windows, each [shape=(n_values,)]."""
        self.mean.assign(mean)
        self.deviation.assign(np.where(deviation > _SMALLEST, deviation, 1.0))

    def get_config(self) -> dict[str, Any]:
        """Parameters of the layer."""
        return {**super().get_config(), "source": self.source}
