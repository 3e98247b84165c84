"""The VGG that MusiCNN is compared with (Pons et al., "End-to-end learning for music", 2018)."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from tagger.base.registry import Params
from tagger.network.backbones import Backbone

# Size and stride of the pool after each 3x3 convolution, frames x bands.
_LAST_POOLS = (((2, 2), (2, 2)), ((2, 2), (2, 2)), ((4, 4), (4, 4)))
_POOLS = (((4, 1), (2, 2)), ((2, 2), (2, 2)), *_LAST_POOLS)
_SEPARATE_POOLS = (((4, 1), (4, 1)), ((1, 4), (1, 4)), *_LAST_POOLS)


def _smallest(pools: tuple[tuple[tuple[int, int], tuple[int, int]], ...], axis: int) -> int:
    """Smallest size for which the last pool still has something to pool."""
    size = 1
    for window, strides in reversed(pools):
        size = (size - 1) * strides[axis] + window[axis]
    return size


class VggParams(Params):
    """Parameters of the VGG backbone."""

    n_filters: Annotated[int, Field(ge=1, description="of each convolution")] = 128
    dropout: Annotated[float, Field(ge=0, lt=1, description="between blocks")] = 0.25
    separate_pools: Annotated[
        bool, Field(description="first pool over time alone, second over bands alone")
    ] = False
    input: Annotated[str, Field(description="name of the log-mel input")] = "log_mel"


class VggBackbone(Backbone):
    """Five blocks of 3x3 convolution, ReLU, batch normalisation and maximum."""

    Params = VggParams
    params: VggParams

    def build(self, inputs: dict[str, Any]) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.network.keras import keras

        layers = keras.layers
        pools = _SEPARATE_POOLS if self.params.separate_pools else _POOLS
        x = self.log_mel(
            inputs, self.params.input, min_frames=_smallest(pools, 0), min_bands=_smallest(pools, 1)
        )
        x = layers.Reshape((*x.shape[1:], 1), name="as_image")(x)
        x = layers.BatchNormalization(name="input_bn")(x)
        for number, (size, strides) in enumerate(pools, start=1):
            if number > 1:
                x = layers.Dropout(self.params.dropout, name=f"dropout{number}")(x)
            x = layers.Conv2D(
                self.params.n_filters, 3, padding="same", activation="relu", name=f"conv{number}"
            )(x)
            x = layers.BatchNormalization(name=f"conv{number}_bn")(x)
            x = layers.MaxPool2D(size, strides=strides, name=f"pool{number}")(x)
        return layers.Flatten(name="pooled")(x)

    def embeddings(self, output_of: Callable[[str], Any]) -> dict[str, Any]:  # noqa: D102
        return {"pooled": output_of("pooled")}


ENTRY = VggBackbone
