"""VGGish (Hershey et al., ICASSP 2017): a VGG with four pools, on log-mel patches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tagger.base.registry import Params
from tagger.network.backbones import Backbone, SmokeTest


@dataclass(frozen=True)
class _Convolution:
    """A row of the layer table: a 3x3 convolution, named as in the published checkpoint."""

    name: str
    n_filters: int


_POOL: Literal["pool"] = "pool"
# The body, top to bottom. 4,499,712 parameters at width 1.
LAYERS: tuple[_Convolution | Literal["pool"], ...] = (
    _Convolution("conv1", 64),
    _POOL,
    _Convolution("conv2", 128),
    _POOL,
    _Convolution("conv3_1", 256),
    _Convolution("conv3_2", 256),
    _POOL,
    _Convolution("conv4_1", 512),
    _Convolution("conv4_2", 512),
    _POOL,
)
# Fully connected layers of the published network; the last one is the embedding and is linear.
FULLY_CONNECTED = (("fc1_1", 4096), ("fc1_2", 4096), ("fc2", 128))
# With the published weights the embeddings of a 3 s, 1 kHz sine have these figures
# (vggish_smoke_test.py of the published release, which allows 10 %).
_SMOKE_TEST_MEAN, _SMOKE_TEST_STD, _SMOKE_TEST_TOLERANCE = 0.000657, 0.343, 0.1


class VggishParams(Params):
    """Parameters of the VGGish backbone."""

    width: Annotated[float, Field(gt=0, le=4, description="factor on the number of filters")] = 1.0
    batch_norm: Annotated[
        bool, Field(description="batch normalisation after each convolution of the body")
    ] = False
    pooling: Annotated[
        Literal["average", "max", "autopool"], Field(description="over the last 6 x 4 grid")
    ] = "average"
    keep_frequency: Annotated[
        bool, Field(description="pool over time only: the rows of the grid are bands of pitch")
    ] = False
    embedding: Annotated[
        bool, Field(description="published fully connected layers and 128-d embedding")
    ] = False
    input: Annotated[str, Field(description="name of the log-mel input")] = "log_mel"

    @model_validator(mode="after")
    def _embedding_needs_published_body(self) -> "VggishParams":
        if self.embedding and (self.pooling != "average" or self.keep_frequency):
            raise ValueError(
                "embedding=true flattens the grid, so there is nothing to pool; "
                "leave pooling at average and keep_frequency at false"
            )
        return self


class VggishBackbone(Backbone):
    """VGGish's convolutional body, pooled to an embedding."""

    Params = VggishParams
    params: VggishParams

    def build(self, inputs: dict[str, Any]) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.network.keras import keras
        from tagger.network.pooling import grid_pooling

        # Smaller ones leave nothing after the pools.
        smallest = 2 ** LAYERS.count(_POOL)
        x = self.log_mel(inputs, self.params.input, min_frames=smallest, min_bands=smallest)
        x = keras.layers.Reshape((*x.shape[1:], 1), name="as_image")(x)
        pools = 0
        for layer in LAYERS:
            if isinstance(layer, _Convolution):
                x = self._convolution(layer, x)
            else:
                pools += 1
                x = keras.layers.MaxPool2D(2, padding="same", name=f"pool{pools}")(x)
        if not self.params.embedding:
            return grid_pooling(
                self.params.pooling,
                name="grid_pooling",
                keep_frequency=self.params.keep_frequency,
            )(x)
        x = keras.layers.Flatten(name="flatten")(x)
        for name, size in FULLY_CONNECTED:
            last = name == FULLY_CONNECTED[-1][0]
            x = keras.layers.Dense(size, activation=None if last else "relu", name=name)(x)
        return x

    def _convolution(self, layer: _Convolution, x: Any) -> Any:
        from tagger.network.keras import keras

        n_filters = max(1, round(layer.n_filters * self.params.width))
        normalised = self.params.batch_norm
        x = keras.layers.Conv2D(
            n_filters,
            3,
            padding="same",
            activation=None if normalised else "relu",
            # The normalisation has an offset of its own.
            use_bias=not normalised,
            kernel_initializer="he_normal" if normalised else "glorot_uniform",
            name=layer.name,
        )(x)
        if normalised:
            x = keras.layers.BatchNormalization(name=f"{layer.name}_bn")(x)
            x = keras.layers.ReLU(name=f"{layer.name}_relu")(x)
        return x

    def embeddings(self, output_of: Callable[[str], Any]) -> dict[str, Any]:  # noqa: D102
        from tagger.network.pooling import grid_pooling

        if not self.params.embedding:
            return {"pooled": output_of("grid_pooling")}
        last_pool = output_of(f"pool{LAYERS.count(_POOL)}")
        pooled = grid_pooling("average", name="pooled")(last_pool)
        return {"pooled": pooled, "embedding": output_of(FULLY_CONNECTED[-1][0])}

    def smoke_test(self, model: Any) -> SmokeTest | None:  # noqa: D102
        import numpy as np

        from preprocess import log_mel_patches

        rate = 16000
        sine = np.sin(2 * np.pi * 1000 * np.arange(3 * rate) / rate)
        patches = log_mel_patches(sine, rate)
        published = self.params.embedding and self.params.width == 1.0
        if not published or model.input_shape != {self.params.input: (None, *patches.shape[1:])}:
            return None
        inputs = {self.params.input: patches}
        embeddings = model(inputs, training=False).numpy()
        figures = {
            "embedding mean": (float(embeddings.mean()), _SMOKE_TEST_MEAN),
            "embedding std": (float(embeddings.std()), _SMOKE_TEST_STD),
        }
        return SmokeTest(figures, _SMOKE_TEST_TOLERANCE)


ENTRY = VggishBackbone
