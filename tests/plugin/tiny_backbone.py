"""A backbone that is built, trained and converted in a moment, as an installed package adds one."""

from typing import Literal

from pydantic import Field

from tagger.base.registry import Params
from tagger.network.backbones import Backbone


class TinyParams(Params):
    """Parameters of the tiny backbone."""

    n_filters: int = Field(8, ge=1)
    batch_norm: bool = True
    pooling: Literal["mean", "max"] = "mean"


class TinyBackbone(Backbone):
    """One convolution, and its mean or maximum over time."""

    Params = TinyParams
    params: TinyParams

    def build(self, inputs):
        from tagger.network.keras import keras

        layers = keras.layers
        x = self.log_mel(inputs, "log_mel", min_frames=8, min_bands=8)
        x = layers.Reshape((*x.shape[1:], 1), name="as_image")(x)
        x = layers.Conv2D(self.params.n_filters, 8, strides=8, activation="relu", name="conv1")(x)
        if self.params.batch_norm:
            x = layers.BatchNormalization(name="conv1_bn")(x)
        n_frames, n_bands, n_filters = x.shape[1:]
        x = layers.Reshape((n_frames, n_bands * n_filters), name="by_time")(x)
        pools = {"mean": layers.GlobalAveragePooling1D, "max": layers.GlobalMaxPooling1D}
        return pools[self.params.pooling](name="pooled")(x)

    def embeddings(self, output_of):
        return {"pooled": output_of("pooled")}
