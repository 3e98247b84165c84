"""Blocks of batch normalisation, dropout and a dense layer, as in the reports."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from tagger.base.registry import Params
from tagger.network.heads import Head


class DenseBlocksParams(Params):
    """Parameters of the dense blocks."""

    n_blocks: Annotated[int, Field(ge=1, description="the last block makes the outputs")] = 2
    units: Annotated[int, Field(ge=1, description="of each block but the last")] = 512
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    batch_norm: Annotated[bool, Field(description="at the start of each block")] = True


class DenseBlocks(Head):
    """`n_blocks` times batch-norm, dropout, dense; ReLU between, logits at the end."""

    Params = DenseBlocksParams
    params: DenseBlocksParams

    def build(self, embedding: Any, n_outputs: int) -> Any:  # noqa: D102 (in the contract)
        from tagger.network.keras import keras

        x = embedding
        for block in range(1, self.params.n_blocks + 1):
            last = block == self.params.n_blocks
            if self.params.batch_norm:
                x = keras.layers.BatchNormalization(name=f"block{block}_bn")(x)
            x = keras.layers.Dropout(self.params.dropout, name=f"block{block}_dropout")(x)
            x = keras.layers.Dense(
                n_outputs if last else self.params.units,
                activation=None if last else "relu",
                name=f"block{block}_dense",
            )(x)
        return x

    def embeddings(self, output_of: Callable[[str], Any]) -> dict[str, Any]:  # noqa: D102
        n_blocks = self.params.n_blocks
        if self.params.batch_norm:
            return {"penultimate": output_of(f"block{n_blocks}_bn")}
        if n_blocks > 1:
            return {"penultimate": output_of(f"block{n_blocks - 1}_dense")}
        return {}


ENTRY = DenseBlocks
