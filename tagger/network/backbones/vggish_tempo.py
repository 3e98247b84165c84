"""VGGish on a patch, joined by what a tempogram of the seconds around it tells."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tagger.base.errors import ConfigError
from tagger.base.log import notice
from tagger.network.backbones.vggish import VggishBackbone, VggishParams

# What the names of the layers start with that VGGish does not have.
_TEMPO = "tempo_"


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
        from tagger.network.keras import keras

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

    def load_weights(self, model: Any, path: Path) -> list[str]:
        """Load weights of this backbone, or those of VGGish, which has no branch for the tempogram.

        Parameters
        ----------
        model : keras.Model
            What `build` made.
        path : Path
            Weight file.

        Returns
        -------
        list of str
            Names of the tensors of the file that were used.

        Raises
        ------
        ModelError
            Naming the tensors that are missing or do not fit.
        ConfigError
            If the file has nothing for the branch, and the branch is not to learn either.
        """
        from tagger.network.keras import keras
        from tagger.network.weights import load_by_layer_name, read_tensors

        layers = (layer for name in read_tensors(path) for layer in name.split("/"))
        if any(layer.startswith(_TEMPO) for layer in layers):
            return super().load_weights(model, path)
        if not model.get_layer("tempo_dense").trainable:
            raise ConfigError(
                f"{path}: has no weights for the tempogram ({_TEMPO}*), which must be learned; set "
                "model.backbone.freeze to the last layer that the file has, e.g. conv4_2"
            )
        notice(f"{path}: has no weights for the tempogram; its branch starts from nothing")
        heard, _ = model.get_layer("with_tempo").input
        return load_by_layer_name(keras.Model(model.inputs, heard), path)


ENTRY = VggishTempoBackbone
