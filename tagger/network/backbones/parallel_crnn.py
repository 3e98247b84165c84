"""2D convolutions beside a recurrent network, both on the same spectrogram.

The second public notebook that the FMA report starts from (P. Dwivedi, "Music genre
classification", 2018): 85,160 parameters with 8 genres and no dense layer between.
"""

from typing import Annotated, Any

from pydantic import Field

from tagger.base.registry import Params
from tagger.network.backbones import Backbone

# Filters, and over how many frames and bands is pooled behind them.
_CONVOLUTIONS = ((16, 2), (32, 2), (64, 2), (64, 4), (64, 4))
# Frames of a filter; it sees one band.
_KERNEL = (3, 1)
# Of what the recurrent network reads.
_POOL = (4, 2)


class ParallelCrnnParams(Params):
    """Parameters of the parallel network."""

    units: Annotated[int, Field(ge=1, le=512, description="of the GRU, in each direction")] = 64
    input: Annotated[str, Field(description="name of the spectrogram")] = "mel"


class ParallelCrnn(Backbone):
    """Five convolutions of 3 x 1 with max pooling, beside a bidirectional GRU on a pooled input."""

    Params = ParallelCrnnParams
    params: ParallelCrnnParams

    def build(self, inputs: dict[str, Any]) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.network.keras import keras
        from tagger.network.recurrent import LastOutput

        # Smaller ones leave nothing after the filters and pools, which see no frames beyond.
        spectrogram = self.log_mel(inputs, self.params.input, min_frames=338, min_bands=128)
        image = keras.layers.Reshape((*spectrogram.shape[1:], 1), name="as_image")(spectrogram)
        x = image
        for number, (filters, pool) in enumerate(_CONVOLUTIONS, start=1):
            x = keras.layers.Conv2D(filters, _KERNEL, activation="relu", name=f"conv{number}")(x)
            x = keras.layers.MaxPool2D(pool, name=f"conv{number}_pool")(x)
        seen = keras.layers.Flatten(name="seen")(x)
        pooled = keras.layers.MaxPool2D(_POOL, name="recurrent_pool")(image)
        sequence = keras.layers.Reshape(pooled.shape[1:-1], name="as_sequence")(pooled)
        both = [
            LastOutput("gru", self.params.units, backwards=backwards, name=name)(sequence)
            for name, backwards in (("gru_forwards", False), ("gru_backwards", True))
        ]
        return keras.layers.Concatenate(name="both")([seen, *both])


ENTRY = ParallelCrnn
