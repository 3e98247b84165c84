"""VGGish on a patch, joined by what a tempogram of the seconds around it tells."""

from typing import Annotated, Any

from pydantic import Field

from tagger.backbones.vggish import VggishBackbone, VggishParams
from tagger.errors import ConfigError


class VggishTempoParams(VggishParams):
    """Parameters of the branch for the tempogram, beside those of VGGish."""

    tempo_input: Annotated[str, Field(description="name of the tempogram input")] = "tempogram"
    tempo_units: Annotated[int, Field(ge=1)] = 64
    tempo_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5


class VggishTempoBackbone(VggishBackbone):
    """VGGish's embedding with a dense layer's answer to the tempogram at its end.

    Layers of VGGish keep their names, so that its weights load as ever.
    """

    Params = VggishTempoParams
    params: VggishTempoParams

    def build(self, inputs: dict[str, Any]) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.keras import keras

        params = self.params
        if params.tempo_input not in inputs:
            raise ConfigError(
                f"backbone {self.name!r} needs the input {params.tempo_input!r}, but the front end "
                f"gives {', '.join(inputs)}; set front_end.name=vggish_tempo"
            )
        heard = super().build(inputs)
        x = keras.layers.Flatten(name="tempo_flatten")(inputs[params.tempo_input])
        x = keras.layers.BatchNormalization(name="tempo_bn")(x)
        x = keras.layers.Dropout(params.tempo_dropout, name="tempo_dropout")(x)
        x = keras.layers.Dense(params.tempo_units, activation="relu", name="tempo_dense")(x)
        return keras.layers.Concatenate(name="with_tempo")([heard, x])


ENTRY = VggishTempoBackbone
