"""Two branches whose middle layers learn from one another: a spectrogram, and a row of values.

Liu, Wang & Zha, "A middle-level learning feature interaction method with deep learning for
multi-feature music genre classification" (Electronics 10(18), 2021), as Arcaro & D'Onofrio have
built it again (MLFI report). The vision branch is five convolution blocks and a recurrent network
of two layers, the audio branch five dense layers; both are joined before the outputs. In between

- ``audio``: what the vision branch sees is joined to the output of the dense layer at a path: 1 to
  4 for 1024, 512, 256 and 128 units; sub-mode A takes it in front of the recurrent network, B
  behind;
- ``vision``: the output of a dense layer, a to e for 64, 128, 256, 512 and 1024 units, is joined to
  the vision branch in front of its recurrent network, the input of which is of the size that the
  report tells;
- ``two_way``: both, where path 1 goes with e, 2 with d, 3 with c and 4 with b.

That makes 22 networks, with ``benchmark``, which has nothing in between. What the report leaves
open was chosen so: filters 16, 32, 64, 64 and 128 of 3 x 3, which end in its Conv(128)-Max(4,4);
ReLU behind each convolution and dense layer; a GRU of 64 units in each recurrent layer, as many as
the last dense layer has; the 128 values of the vision branch folded into 16 steps of 8 where
nothing is joined to them; dropout 0.3, in the dense layers too; and both branches joined before the
outputs in all modes.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tagger.base.errors import ConfigError
from tagger.base.registry import Params
from tagger.network.backbones import Backbone
from tagger.network.backbones._convolutions import Block, convolve

# Filters and pooling of the blocks: 130 x 128 becomes one value for each of the last filters.
_BLOCKS = ((16, 2), (32, 2), (64, 2), (64, 4), (128, 4))
_DENSE = (1024, 512, 256, 128, 64)
_PATHS = {"1": 1024, "2": 512, "3": 256, "4": 128}
_LAYERS = {"a": 64, "b": 128, "c": 256, "d": 512, "e": 1024}
_PARTNERS = {"1": "e", "2": "d", "3": "c", "4": "b"}
# Steps and values of the recurrent network's input, by how many values are folded into it.
FOLDED = {128: (16, 8), 192: (16, 12), 256: (16, 16), 384: (24, 16), 640: (40, 16), 1152: (72, 16)}


class MlfiParams(Params):
    """Which of the 22 networks."""

    mode: Annotated[
        Literal["benchmark", "audio", "vision", "two_way"],
        Field(description="which branch learns from the other in its middle"),
    ] = "benchmark"
    sub_mode: Annotated[
        Literal["A", "B"],
        Field(description="visual features in front of the recurrent network, or behind"),
    ] = "A"
    path: Annotated[
        Literal["1", "2", "3", "4", "a", "b", "c", "d", "e"] | None,
        Field(description="1 to 4 for audio and two_way, a to e for vision"),
    ] = None
    pooling: Annotated[Literal["max", "average"], Field(description="in the blocks")] = "max"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    standardise: Annotated[
        bool, Field(description="both inputs, by the moments of the training clips")
    ] = True
    spectrogram: Annotated[str, Field(description="name of that input")] = "mel"
    values: Annotated[str, Field(description="name of that input")] = "values"

    @model_validator(mode="after")
    def _path_fits_mode(self) -> "MlfiParams":
        allowed = {
            "benchmark": (None,),
            "audio": tuple(_PATHS),
            "vision": tuple(_LAYERS),
            "two_way": tuple(_PATHS),
        }[self.mode]
        if self.path not in allowed:
            wanted = "none" if allowed == (None,) else f"one of {', '.join(map(str, allowed))}"
            raise ValueError(f"path={self.path} does not go with mode={self.mode}; give {wanted}")
        return self


class Mlfi(Backbone):
    """A vision and an audio branch, with or without interaction between their middle layers."""

    Params = MlfiParams
    params: MlfiParams

    def build(self, inputs: dict[str, Any]) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.network.keras import keras

        seen = self._seen(inputs)
        values = self._standardised(self._values(inputs), self.params.values)
        mode, path = self.params.mode, self.params.path
        to_audio = path if mode in ("audio", "two_way") else None
        layer = path if mode == "vision" else _PARTNERS[path or ""] if mode == "two_way" else None
        to_vision = None if layer is None else _LAYERS[layer]
        joining = None if to_audio is None else _PATHS[to_audio]
        behind, x = None, values
        for number, units in enumerate(_DENSE, start=1):
            x = keras.layers.Dense(units, activation="relu", name=f"audio{number}")(x)
            if units == to_vision:
                behind = self._remembered(keras.layers.Concatenate(name="to_vision")([seen, x]))
            if self.params.dropout:
                x = keras.layers.Dropout(self.params.dropout, name=f"audio{number}_dropout")(x)
            if units == joining:
                if self.params.sub_mode == "B" and behind is None:
                    behind = self._remembered(seen)
                visual = seen if self.params.sub_mode == "A" else behind
                x = keras.layers.Concatenate(name="to_audio")([x, visual])
        if behind is None:
            behind = self._remembered(seen)
        return keras.layers.Concatenate(name="both")([behind, x])

    def _values(self, inputs: dict[str, Any]) -> Any:
        name = self.params.values
        if name not in inputs or len(inputs[name].shape) != 2:
            raise ConfigError(
                f"backbone {self.name!r} needs a row of values named {name!r} beside the "
                f"spectrogram, but the front end gives {', '.join(inputs)}; use the front end "
                "mel_segments"
            )
        return inputs[name]

    def _standardised(self, x: Any, name: str) -> Any:
        from tagger.network.standardise import Standardise

        return Standardise(name, name=f"standardise_{name}")(x) if self.params.standardise else x

    def _seen(self, inputs: dict[str, Any]) -> Any:
        """Visual features [shape=(n_windows, 128)], one value for each filter."""
        from tagger.network.keras import keras

        name, smallest = self.params.spectrogram, 128
        x = self.log_mel(inputs, name, min_frames=smallest, min_bands=smallest)
        x = self._standardised(x, name)
        x = keras.layers.Reshape((*x.shape[1:], 1), name="as_image")(x)
        blocks = [
            Block(
                filters,
                pool=(pool, pool),
                pooling=self.params.pooling,
                dropout=self.params.dropout,
                # What is left over at the end of a side is dropped: 65 frames become 32.
                pool_padding="valid",
            )
            for filters, pool in _BLOCKS
        ]
        x = convolve(x, blocks, n_axes=2)
        if tuple(x.shape[1:3]) != (1, 1):
            raise ConfigError(
                f"backbone {self.name!r} needs spectrograms that its pools make one value of, such "
                f"as 130 x 128; of these they make {x.shape[1]} x {x.shape[2]}"
            )
        return keras.layers.Flatten(name="seen")(x)

    def _remembered(self, features: Any) -> Any:
        """Output of the recurrent network [shape=(n_windows, 64)]."""
        from tagger.network.keras import keras
        from tagger.network.recurrent import LastOutput

        folded = keras.layers.Reshape(FOLDED[features.shape[-1]], name="folded")(features)
        return LastOutput("gru", _DENSE[-1], n_layers=2, name="gru")(folded)


ENTRY = Mlfi
