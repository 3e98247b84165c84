"""Pooling layers: many vectors -> one."""

from typing import Any

from tagger.network.keras import keras, tf

# isort: split
# After tagger.network.keras, which tells TensorFlow to be on Keras 2 before it is imported.
from autopool.tf import AutoPool1D

# What a masked position gets before the softmax: zero weight in float32 without an infinity.
_MASKED_LOGIT = -1e9


@keras.utils.register_keras_serializable(package="tagger")
class AutoPool(AutoPool1D):
    """AutoPool (McFee, Salamon & Bello, TASLP 2018) over axis 1, with masks and mixed precision.

    Interpolates between mean (alpha 0), softmax-weighted mean (1) and max (large), with one alpha
    per dimension that training moves. The published layer pools over the batch unless told
    otherwise, is not registered for loading, ignores its mask and overflows in float16.
    """

    def __init__(self, axis: int = 1, **kwargs: Any) -> None:
        super().__init__(axis=axis, **kwargs)

    def call(self, x: Any, mask: Any = None) -> Any:
        """Pool.

        Parameters
        ----------
        x : tensor [shape=(n, n_steps, n_dimensions)]
            What is pooled over its second axis.
        mask : tensor [shape=(n, n_steps), dtype=bool], optional
            False where a step does not count.

        Returns
        -------
        tensor [shape=(n, n_dimensions)]
        """
        wide = tf.cast(x, tf.float32)
        logits = tf.cast(self.kernel, tf.float32) * wide
        if mask is not None:
            logits = tf.where(mask[..., tf.newaxis], logits, _MASKED_LOGIT)
        weights = tf.nn.softmax(logits, axis=self.axis)
        return tf.cast(tf.reduce_sum(wide * weights, axis=self.axis), x.dtype)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Return no mask: the axis that it was about is gone."""
        del inputs, mask


@keras.utils.register_keras_serializable(package="tagger")
class MeanPool(keras.layers.Layer):
    """Mean over axis 1 of what the mask admits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x: Any, mask: Any = None) -> Any:
        """Pool; see `AutoPool.call`."""
        if mask is None:
            return tf.reduce_mean(x, axis=1)
        weights = tf.cast(mask, x.dtype)[..., tf.newaxis]
        total = tf.reduce_sum(x * weights, axis=1)
        return total / tf.maximum(tf.reduce_sum(weights, axis=1), 1)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Return no mask."""
        del inputs, mask


@keras.utils.register_keras_serializable(package="tagger")
class MaxPool(keras.layers.Layer):
    """Maximum over axis 1 of what the mask admits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x: Any, mask: Any = None) -> Any:
        """Pool; see `AutoPool.call`."""
        if mask is not None:
            x = tf.where(mask[..., tf.newaxis], x, x.dtype.min)
        return tf.reduce_max(x, axis=1)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Return no mask."""
        del inputs, mask


_POOLINGS = {"average": MeanPool, "mean": MeanPool, "max": MaxPool, "autopool": AutoPool}


def pooling_layer(kind: str, **kwargs: Any) -> Any:
    """Layer that pools (n, n_steps, n_dimensions) over the steps.

    Parameters
    ----------
    kind : str
        ``"average"`` or ``"mean"``, ``"max"``, ``"autopool"``.
    **kwargs
        Of the layer, e.g. its name.
    """
    return _POOLINGS[kind](**kwargs)


def grid_pooling(kind: str, *, keep_frequency: bool = False, **kwargs: Any) -> Any:
    """Layers that pool an image (n, n_times, n_bands, n_channels) to vectors.

    Parameters
    ----------
    kind : str
        As of `pooling_layer`.
    keep_frequency : bool
        Pool over time alone, to (n, n_bands * n_channels), instead of to (n, n_channels): a
        network that averages over bands cannot tell where in pitch it has heard something.
    **kwargs
        Of the layer, e.g. its name.
    """
    layer = pooling_layer(kind, **kwargs)

    def apply(x: Any) -> Any:
        n_times, n_bands, n_channels = x.shape[1:]
        shape = (n_times, n_bands * n_channels) if keep_frequency else (-1, n_channels)
        return layer(keras.layers.Reshape(shape, name=f"{layer.name}_positions")(x))

    return apply
