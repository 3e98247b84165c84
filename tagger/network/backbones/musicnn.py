"""MusiCNN (Pons & Serra, "musicnn", ISMIR 2019 late-breaking): filters shaped for music.

Tall filters see timbre, long ones tempo; each keeps its strongest answer over all bands. Three
densely connected convolutions over time follow, then maximum and mean over time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from tagger.base.registry import Params
from tagger.network.backbones import Backbone


@dataclass(frozen=True)
class _Bank:
    """A bank of the front: filters of `n_frames` x `band_share` of the bands (None: one band)."""

    name: str
    n_filters: int
    n_frames: int
    band_share: float | None
    # Measured: all of a short filter and 4 frames of a long one are the fastest.
    fold: int


# The published configuration "7774timbraltemporal": 128 timbral and 32 temporal filters in a bank,
# times 1.6.
FRONT: tuple[_Bank, ...] = (
    _Bank("timbral74", 204, 7, 0.4, 7),
    _Bank("timbral77", 204, 7, 0.7, 7),
    _Bank("temporal128", 51, 128, None, 4),
    _Bank("temporal64", 51, 64, None, 4),
    _Bank("temporal32", 51, 32, None, 4),
)
N_MIDDLE = 3
_MIDDLE_FRAMES = 7


class MusicnnParams(Params):
    """Parameters of the MusiCNN backbone."""

    middle_filters: Annotated[
        int, Field(ge=1, description="of each convolution of the middle; 512 in the large one")
    ] = 64
    input: Annotated[str, Field(description="name of the log-mel input")] = "log_mel"


class MusicnnBackbone(Backbone):
    """Timbral and temporal filters, a densely connected middle, max and mean over time."""

    Params = MusicnnParams
    params: MusicnnParams

    def build(self, inputs: dict[str, Any]) -> Any:  # noqa: D102 (the contract documents it)
        from tagger.network.filter_banks import BandMaximum, FilterBank
        from tagger.network.keras import keras
        from tagger.network.pooling import MaxPool, MeanPool

        layers = keras.layers
        x = self.log_mel(inputs, self.params.input, min_frames=1, min_bands=2)
        n_bands = x.shape[2]
        image = layers.Reshape((*x.shape[1:], 1), name="as_image")(x)
        image = layers.BatchNormalization(name="input_bn")(image)
        spectrogram = layers.Reshape(x.shape[1:], name="as_spectrogram")(image)
        answers = []
        for bank in FRONT:
            height = 1 if bank.band_share is None else max(1, int(bank.band_share * n_bands))
            y = FilterBank(bank.n_filters, bank.n_frames, height, fold=bank.fold, name=bank.name)(
                spectrogram
            )
            answers.append(BandMaximum(name=f"{bank.name}_bn")(y))
        x = layers.Concatenate(name="front")(answers)
        features = [x]
        for number in range(1, N_MIDDLE + 1):
            y = layers.Conv1D(
                self.params.middle_filters,
                _MIDDLE_FRAMES,
                padding="same",
                activation="relu",
                name=f"middle{number}",
            )(x)
            y = layers.BatchNormalization(name=f"middle{number}_bn")(y)
            # From the second on with a shortcut; the first one changes the width.
            x = y if number == 1 else layers.Add(name=f"middle{number}_sum")([y, x])
            features.append(x)
        x = layers.Concatenate(name="features")(features)
        pooled = [MaxPool(name="max_pool")(x), MeanPool(name="mean_pool")(x)]
        # The published dense layer expects maximum and mean of one feature, then of the next.
        pairs = layers.Concatenate(name="pairs")(
            [layers.Reshape((-1, 1), name=f"{y.node.layer.name}_column")(y) for y in pooled]
        )
        return layers.Flatten(name="pooled")(pairs)

    def embeddings(self, output_of: Callable[[str], Any]) -> dict[str, Any]:  # noqa: D102
        return {"mean_pool": output_of("mean_pool"), "max_pool": output_of("max_pool")}


ENTRY = MusicnnBackbone
