"""Layers for banks of long one-channel filters over a spectrogram, as in MusiCNN."""

from typing import Any

from tagger.network.keras import keras, tf


@keras.utils.register_keras_serializable(package="tagger")
class FilterBank(keras.layers.Layer):
    """Convolution of a spectrogram by `n_filters` of `n_frames` x `n_bands`, then ReLU.

    The same numbers as ``Conv2D`` on an image of one channel, with the size kept in time and whole
    positions only in frequency, but some 1.4 times faster on CPUs: matrix products over a single
    channel leave most of a vector unit idle, so `fold` neighbouring frames are made channels first.

    Parameters
    ----------
    n_filters : int
        Filters, and channels of the result.
    n_frames, n_bands : int
        Size of a filter.
    fold : int
        Frames per position that become channels; divides `n_frames`.
    """

    def __init__(
        self, n_filters: int, n_frames: int, n_bands: int, *, fold: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if n_frames % fold:
            raise ValueError(f"fold={fold} does not divide n_frames={n_frames}")
        self.n_filters, self.n_frames, self.n_bands, self.fold = n_filters, n_frames, n_bands, fold

    def build(self, input_shape: Any) -> None:
        """Make the weights, named and shaped as those of ``Conv2D``."""
        del input_shape
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.n_frames, self.n_bands, 1, self.n_filters),
            initializer="glorot_uniform",
        )
        self.bias = self.add_weight(name="bias", shape=(self.n_filters,), initializer="zeros")
        self.built = True

    def call(self, x: Any) -> Any:
        """Convolve.

        Parameters
        ----------
        x : tensor [shape=(n, n_steps, n_spectrogram_bands)]
            Spectrograms.

        Returns
        -------
        tensor [shape=(n, n_steps, n_spectrogram_bands - n_bands + 1, n_filters)]
        """
        before = (self.n_frames - 1) // 2
        padded = tf.pad(x, [[0, 0], [before, self.n_frames - 1 - before], [0, 0]])
        length = x.shape[1] + self.n_frames - self.fold
        image = tf.stack([padded[:, lag : lag + length] for lag in range(self.fold)], axis=-1)
        kernel = tf.reshape(
            tf.cast(self.kernel, x.dtype),
            (self.n_frames // self.fold, self.fold, self.n_bands, self.n_filters),
        )
        folded = tf.nn.conv2d(
            image,
            tf.transpose(kernel, (0, 2, 1, 3)),
            strides=1,
            padding="VALID",
            dilations=(self.fold, 1),
        )
        return tf.nn.relu(folded + tf.cast(self.bias, x.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return what makes this layer again."""
        own = {key: getattr(self, key) for key in ("n_filters", "n_frames", "n_bands", "fold")}
        return {**super().get_config(), **own}


@keras.utils.register_keras_serializable(package="tagger")
class BandMaximum(keras.layers.BatchNormalization):
    """Batch normalisation of (n, n_steps, n_bands, n_channels), then the maximum over bands.

    Outside training the normalisation is a line per channel, so that it is enough to apply it to
    the largest value, or to the smallest where the line falls: a pass over the large tensor less.
    """

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Normalise and pool to (n, n_steps, n_channels)."""
        if training and self.trainable:
            return tf.reduce_max(super().call(x, training=True), axis=2)
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
        offset = self.beta - self.moving_mean * scale
        rising, falling = tf.nn.relu(scale), -tf.nn.relu(-scale)
        pooled = (
            tf.reduce_max(x, axis=2) * tf.cast(rising, x.dtype)
            + tf.reduce_min(x, axis=2) * tf.cast(falling, x.dtype)
            + tf.cast(offset, x.dtype)
        )
        return pooled
