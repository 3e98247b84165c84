"""Convolutions on a spectrogram as a picture: the comparison report's own network."""

from typing import Annotated, Any

from pydantic import Field

from tagger.base.registry import Params
from tagger.network.backbones import Backbone
from tagger.network.backbones._convolutions import Block, convolve
from tagger.network.backbones._pictures import picture

_N_BLOCKS = 5


class CnnPictureParams(Params):
    """Parameters of the picture network."""

    filters: Annotated[
        int, Field(ge=1, le=256, description="of the first block; doubled in each, up to 8 x")
    ] = 16
    dropout: Annotated[float, Field(ge=0, lt=1, description="behind each block")] = 0.0
    input: Annotated[str, Field(description="name of the picture")] = "picture"


class CnnPicture(Backbone):
    """Colours from 0 to 1, then five blocks of convolution, batch normalisation, ReLU and pooling.

    With a head of five dense layers it is the network of the comparison report, which tells no
    numbers of filters: these are 16, 32, 64, 128 and 128 of 3 x 3.
    """

    Params = CnnPictureParams
    params: CnnPictureParams

    def build(self, inputs: dict[str, Any]) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.network.keras import keras

        x = picture(self, inputs, self.params.input, smallest=2**_N_BLOCKS)
        x = keras.layers.Rescaling(1 / 255, name="rescaled")(x)
        blocks = [
            Block(self.params.filters * min(8, 2**n), pool=(2, 2), dropout=self.params.dropout)
            for n in range(_N_BLOCKS)
        ]
        x = convolve(x, blocks, n_axes=2)
        return keras.layers.Flatten(name="pooled")(x)


ENTRY = CnnPicture
