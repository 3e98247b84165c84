"""1D convolutions, then an LSTM: the convolutional recurrent network of the FMA report.

The defaults are those of the public notebook that the report starts from (P. Dwivedi, "Music genre
classification", 2018), which has 133,520 parameters with a dense layer of 64 and 8 genres.
"""

from typing import Annotated, Any

from pydantic import Field

from tagger.base.registry import Params
from tagger.network.backbones import Backbone
from tagger.network.backbones._convolutions import Block, convolve


class CrnnParams(Params):
    """Parameters of the convolutional recurrent network."""

    convolutions: Annotated[int, Field(ge=1, le=8)] = 3
    filters: Annotated[int, Field(ge=1, le=1024)] = 56
    kernel: Annotated[int, Field(ge=1, le=31, description="frames of a filter")] = 5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.4
    dropout_first_only: Annotated[
        bool, Field(description="behind the first convolution only, not behind each")
    ] = False
    units: Annotated[int, Field(ge=1, le=1024, description="of each LSTM")] = 96
    lstms: Annotated[int, Field(ge=1, le=4, description="stacked")] = 1
    input: Annotated[str, Field(description="name of the spectrogram")] = "mel"


class Crnn(Backbone):
    """Convolutions over time with batch normalisation, ReLU, max pooling and dropout; an LSTM."""

    Params = CrnnParams
    params: CrnnParams

    def build(self, inputs: dict[str, Any]) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.network.recurrent import LastOutput

        chosen = self.params
        x = self.log_mel(inputs, chosen.input, min_frames=2**chosen.convolutions, min_bands=1)
        blocks = [
            Block(
                chosen.filters,
                kernel=chosen.kernel,
                pool=(2,),
                dropout=0.0 if number and chosen.dropout_first_only else chosen.dropout,
            )
            for number in range(chosen.convolutions)
        ]
        x = convolve(x, blocks, n_axes=1)
        return LastOutput("lstm", chosen.units, n_layers=chosen.lstms, name="lstm")(x)


ENTRY = Crnn
