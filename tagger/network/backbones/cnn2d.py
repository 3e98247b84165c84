"""2D convolutions of a mel spectrogram as a picture: two of the networks of the FMA report."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from tagger.base.registry import Params
from tagger.network.backbones import Backbone
from tagger.network.backbones._convolutions import Block, convolve

# How many convolutions there are, and after how many of them each pool comes.
N_CONVOLUTIONS = {"shallow": 4, "deep": 10}
POOLED_AFTER = {"shallow": 1, "deep": 3}


class Cnn2dParams(Params):
    """Parameters of the 2D network."""

    depth: Annotated[
        Literal["shallow", "deep"],
        Field(description="4 convolutions, each pooled; or 10, pooled after every third"),
    ] = "shallow"
    filters: Annotated[
        int, Field(ge=1, le=512, description="of the first; doubled behind each pool, up to 4 x")
    ] = 16
    end: Annotated[
        Literal["flatten", "average"], Field(description="how the last maps become a vector")
    ] = "flatten"
    input: Annotated[str, Field(description="name of the spectrogram")] = "mel"


class Cnn2d(Backbone):
    """4 or 10 convolutions with batch normalisation, ReLU and max pooling.

    Where a map has more frames than bands, the first convolution behind a pool has the strides
    [2, 1], as the report has it for its 640 x 128. Numbers of filters, which it does not tell, are
    16, 32, 64, 64.
    """

    Params = Cnn2dParams
    params: Cnn2dParams

    def build(self, inputs: dict[str, Any]) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.network.keras import keras

        n, after = N_CONVOLUTIONS[self.params.depth], POOLED_AFTER[self.params.depth]
        smallest = 2 ** (n // after)
        x = self.log_mel(inputs, self.params.input, min_frames=smallest, min_bands=smallest)
        frames, bands = x.shape[1:]
        blocks = []
        for number in range(n):
            n_pools, place = divmod(number, after)
            strides, pool = (1, 1), None
            if place == 0 and frames > bands:
                strides, frames = (2, 1), -(-frames // 2)
            if place == after - 1:
                pool, frames, bands = (2, 2), -(-frames // 2), -(-bands // 2)
            filters = self.params.filters * min(4, 2**n_pools)
            blocks.append(Block(filters, strides=strides, pool=pool))
        x = keras.layers.Reshape((*x.shape[1:], 1), name="as_image")(x)
        x = convolve(x, blocks, n_axes=2)
        if self.params.end == "average":
            return keras.layers.GlobalAveragePooling2D(name="pooled")(x)
        return keras.layers.Flatten(name="pooled")(x)

    def embeddings(self, output_of: Callable[[str], Any]) -> dict[str, Any]:  # noqa: D102
        return {} if self.params.end == "flatten" else {"pooled": output_of("pooled")}


ENTRY = Cnn2d
