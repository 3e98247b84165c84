"""Colours of pictures as a pretrained network wants them."""

from typing import Any

from tagger.network.keras import keras, tf


@keras.utils.register_keras_serializable("tagger")
class Colours(keras.layers.Layer):
    """Another mixture of the three colours of each pixel; nothing of it is trained.

    Parameters
    ----------
    matrix : list of list of float
        Of each colour, what it gives to each new one.
    offset : list of float
        Added to each new one.
    """

    def __init__(self, matrix: list[list[float]], offset: list[float], **options: Any) -> None:
        super().__init__(trainable=False, **options)
        self._matrix, self._offset = matrix, offset

    def call(self, inputs: Any) -> Any:
        """Mix pictures [shape=(n_windows, height, width, 3)]."""
        matrix = tf.constant(self._matrix, inputs.dtype)
        return tf.tensordot(inputs, matrix, 1) + tf.constant(self._offset, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Parameters of the layer."""
        return {**super().get_config(), "matrix": self._matrix, "offset": self._offset}
