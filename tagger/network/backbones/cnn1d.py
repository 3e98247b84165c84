"""1D convolutions of a mel spectrogram over time: two of the networks of the FMA report."""

from typing import Annotated, Any, Literal

from pydantic import Field

from tagger.base.registry import Params
from tagger.network.backbones import Backbone
from tagger.network.backbones._convolutions import Block, convolve
from tagger.network.backbones.cnn2d import N_CONVOLUTIONS, POOLED_AFTER


class Cnn1dParams(Params):
    """Parameters of the 1D network."""

    depth: Annotated[
        Literal["shallow", "deep"],
        Field(description="4 convolutions, each pooled; or 10, pooled after every third"),
    ] = "shallow"
    filters: Annotated[int, Field(ge=1, le=1024, description="of each convolution")] = 64
    kernel: Annotated[int, Field(ge=1, le=31, description="frames of a filter")] = 5
    input: Annotated[str, Field(description="name of the spectrogram")] = "mel"


class Cnn1d(Backbone):
    """4 or 10 convolutions over time with batch normalisation, ReLU and max pooling.

    Bands are channels. Filters (64 of 5 frames) are not told in the report; these are about those
    of its CRNN.
    """

    Params = Cnn1dParams
    params: Cnn1dParams

    def build(self, inputs: dict[str, Any]) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.network.keras import keras

        n, after = N_CONVOLUTIONS[self.params.depth], POOLED_AFTER[self.params.depth]
        x = self.log_mel(inputs, self.params.input, min_frames=2 ** (n // after), min_bands=1)
        blocks = [
            Block(
                self.params.filters,
                kernel=self.params.kernel,
                pool=(2,) if number % after == 0 else None,
            )
            for number in range(1, n + 1)
        ]
        x = convolve(x, blocks, n_axes=1)
        return keras.layers.Flatten(name="pooled")(x)


ENTRY = Cnn1d
