"""Embeddings of a store's windows by a frozen backbone: computed once, read from then on.

A head on a backbone that does not learn sees the same embeddings in every epoch. They are kept
beside the patches, in the layout of a shard, under a name made of all that decides them: weights
and parameters of the backbone, and the front end.
"""

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from preprocess.store.shards import Shard, open_shard
from preprocess.store.store import Store, StoreSpec
from tagger.base.files import json_hash
from tagger.base.log import notice
from tagger.config import Config
from tagger.train.score_clips import windows_at_once

if TYPE_CHECKING:
    from tagger.network.model import TaggerModel

EMBEDDING = "embedding"
_FOLDER = "embeddings"
# Enough of a digest to tell networks apart, and short enough to read.
_KEY_LENGTH = 16


class EmbeddedStore(Store):
    """A store whose windows are embeddings, under the name ``embedding``.

    Parameters
    ----------
    store : Store
        Where the patches are.
    model : TaggerModel
        Its backbone makes the embeddings, in inference mode.
    config : Config
        Of the model; as many windows are embedded at once as it evaluates at once.
    """

    def __init__(self, store: Store, model: "TaggerModel", config: Config) -> None:
        size = int(model.embedding_model.output.shape[-1])
        self.root = store.root / _FOLDER / embedding_key(model, config, store.spec)
        self.clips = store.clips
        self.tags = store.tags
        self.spec = StoreSpec(
            store.spec.front_end, store.spec.front_end_hash, {EMBEDDING: (size,)}, "float32"
        )
        self._store = store
        self._embed = model.embed_windows
        self._n_at_once = windows_at_once(model, config.stream)
        self._shard: Shard | None = None

    def prepare(self) -> None:
        """Compute what has not been computed before.

        Raises
        ------
        StoreError
            If a pickle cannot be read, or there is no room on the disk.
        """
        known = Shard(self).is_current()
        notice(f"{self.root}: {'has the' if known else 'computing'} embeddings of all patches")
        self._shard = open_shard(self)

    def read(self, row: int) -> dict[str, npt.NDArray[np.floating]]:
        """Embeddings of the clip at `row` [shape=(n_windows, n_dimensions), dtype=float32]."""
        if self._shard is None:
            windows = self._store.read(row)
            # A long clip at once would need some megabytes of memory per window.
            parts = [
                self._embed({name: a[i : i + self._n_at_once] for name, a in windows.items()})
                for i in range(0, int(self.n_windows[row]), self._n_at_once)
            ]
            return {EMBEDDING: np.concatenate(parts)}
        first = int(self._shard.starts[row])
        embeddings = self._shard.memory_map(EMBEDDING)
        return {EMBEDDING: embeddings[first : first + int(self.n_windows[row])]}


def embedding_key(model: "TaggerModel", config: Config, spec: StoreSpec) -> str:
    """Name of the embeddings that a backbone makes of a store's windows.

    Parameters
    ----------
    model : TaggerModel
        With the backbone's weights.
    config : Config
        Parameters of the backbone.
    spec : StoreSpec
        Front end and precision of the windows.
    """
    digest = hashlib.sha256()
    for variable in model.embedding_model.weights:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    settings: dict[str, Any] = {
        "backbone": config.model.backbone.name,
        "params": config.model.backbone.params,
        "weights": digest.hexdigest(),
        "front_end": spec.front_end_hash,
        "dtype": spec.dtype,
        "precision": str(model.embedding_model.layers[-1].compute_dtype),
    }
    return json_hash(settings)[:_KEY_LENGTH]
