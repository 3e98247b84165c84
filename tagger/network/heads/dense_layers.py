"""Dense layers with dropout behind each: the usual end of the networks of the reports."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from tagger.base.registry import Params
from tagger.network.heads import Head


class DenseLayersParams(Params):
    """Parameters of the dense layers."""

    units: Annotated[
        tuple[Annotated[int, Field(ge=1, le=8192)], ...],
        Field(description="of each layer before the outputs"),
    ] = (128, 64)
    dropout: Annotated[float, Field(ge=0, lt=1, description="behind each but the outputs")] = 0.5


class DenseLayers(Head):
    """ReLU layers with dropout behind each, and logits at the end."""

    Params = DenseLayersParams
    params: DenseLayersParams

    def build(self, embedding: Any, n_outputs: int) -> Any:  # noqa: D102 (in the contract)
        from tagger.network.keras import keras

        x = embedding
        for number, units in enumerate(self.params.units, start=1):
            x = keras.layers.Dense(units, activation="relu", name=f"dense{number}")(x)
            if self.params.dropout:
                x = keras.layers.Dropout(self.params.dropout, name=f"dense{number}_dropout")(x)
        return keras.layers.Dense(n_outputs, name="logits")(x)

    def embeddings(self, output_of: Callable[[str], Any]) -> dict[str, Any]:  # noqa: D102
        return {"penultimate": output_of(f"dense{n}")} if (n := len(self.params.units)) else {}


ENTRY = DenseLayers
