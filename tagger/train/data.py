"""The clips of a store, split and labelled as a config asks for."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocess.clips.vocabulary import Vocabulary, read_synonyms, resolve_vocabulary
from preprocess.store.store import Store
from tagger.base.errors import ConfigError
from tagger.config import Config
from tagger.runs.store_copy import local_store


@dataclass(frozen=True)
class PreparedData:
    """A store's clips, split and labelled as a config asks for.

    Parameters
    ----------
    store : Store
        Where the patches are.
    vocabulary : Vocabulary
        The tags.
    labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        Of every clip of the store.
    parts : np.ndarray [shape=(n_clips,), dtype=str]
        Of every clip of the store.
    """

    store: Store
    vocabulary: Vocabulary
    labels: npt.NDArray[np.uint8]
    parts: npt.NDArray[np.str_]

    def rows(self, part: str) -> list[int]:
        """Rows of the clips of one part."""
        return [int(row) for row in np.flatnonzero(self.parts == part)]

    def describe(self) -> str:
        """How much there is, for people."""
        return (
            f"{len(self.rows('train'))} clips to train on, {len(self.rows('validation'))} to "
            f"validate, {len(self.vocabulary)} tags"
        )


def prepare_data(config: Config) -> PreparedData:
    """Open the store of a config, split its clips and pick its tags.

    Raises
    ------
    StoreError
        If there is no store, or it was made by another front end.
    ConfigError
        If tags or split do not fit the data, or no clip is left to train or to validate on.
    """
    store = Store(config.store.root)
    store.require_front_end(config.make_front_end(), user="the config")
    index = store.index
    synonyms = read_synonyms(config.data.synonyms) if config.data.synonyms else None
    vocabulary = resolve_vocabulary(index, config.data.tags, synonyms=synonyms)
    labels = vocabulary.labels(index.labels, index.tags)
    parts = config.parts_of(index)
    for part in ("train", "validation"):
        if not (parts == part).any():
            raise ConfigError(
                f"{store.root}: no clip in the {part} part of the split {config.data.split!r}; "
                "preprocess more clips or choose another data.split"
            )
    # Fetched only now, as it may take long.
    return PreparedData(local_store(store), vocabulary, labels, parts)
