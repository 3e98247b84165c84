"""An LSTM that reads a spectrogram frame by frame: the FMA report's plain recurrent network."""

from typing import Annotated, Any

from pydantic import Field

from tagger.base.registry import Params
from tagger.network.backbones import Backbone


class LstmParams(Params):
    """Parameters of the recurrent network."""

    units: Annotated[int, Field(ge=1, le=1024)] = 96
    layers: Annotated[int, Field(ge=1, le=4, description="stacked")] = 1
    input: Annotated[str, Field(description="name of the spectrogram")] = "mel"


class Lstm(Backbone):
    """The last output of an LSTM over all frames; 96 units, as in the CRNN."""

    Params = LstmParams
    params: LstmParams

    def build(self, inputs: dict[str, Any]) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.network.recurrent import LastOutput

        x = self.log_mel(inputs, self.params.input, min_frames=1, min_bands=1)
        return LastOutput("lstm", self.params.units, n_layers=self.params.layers, name="lstm")(x)


ENTRY = Lstm
