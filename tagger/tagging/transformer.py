"""Embeddings of audio files as a step of a scikit-learn pipeline."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from tagger.base.errors import TaggerError
from tagger.tagging.tagger import Tagger


class EmbeddingTransformer(TransformerMixin, BaseEstimator):
    """Audio files -> a row of numbers each: the mean of an embedding over time.

    There is nothing to fit. A file that cannot be used is an error, as a row for it would be made
    up.

    Parameters
    ----------
    model : str or Path, optional
        As of `Tagger.load`.
    layer : str, optional
        One of the model's embeddings; default the penultimate.
    jobs : int, optional
        Threads; default one per processor.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression  # doctest: +SKIP
    >>> from sklearn.pipeline import make_pipeline  # doctest: +SKIP
    >>> genres = make_pipeline(EmbeddingTransformer(), LogisticRegression())  # doctest: +SKIP
    >>> genres.fit(["a.mp3", "b.mp3"], ["rock", "jazz"]).predict(["c.mp3"])  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        layer: str | None = None,
        jobs: int | None = None,
    ) -> None:
        self.model = model
        self.layer = layer
        self.jobs = jobs

    def fit(self, X: Iterable[str | Path], y: Any = None) -> "EmbeddingTransformer":
        """Do nothing: the model is trained already."""
        del X, y
        return self

    def transform(self, X: Iterable[str | Path]) -> npt.NDArray[np.float32]:
        """Compute embeddings.

        Parameters
        ----------
        X : iterable of str or Path
            Audio files.

        Returns
        -------
        np.ndarray [shape=(n_files, n_dimensions), dtype=float32]

        Raises
        ------
        AudioError
            If a file cannot be used.
        ModelError
            If the model cannot be had, or has no such layer.
        """
        tagger = Tagger.load(self.model, jobs=self.jobs)
        rows = []
        for _, found in tagger.attempt_embed_many(map(str, X), layer=self.layer):
            if isinstance(found, TaggerError):
                raise found
            rows.append(found.mean())
        size = tagger.model.output_sizes[self.layer or tagger.default_layer]
        return np.array(rows, dtype=np.float32).reshape(-1, size)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Names of the columns: the layer's, and a number."""
        del input_features
        tagger = Tagger.load(self.model, jobs=1)
        layer = self.layer or tagger.default_layer
        names = [f"{layer}_{number}" for number in range(tagger.model.output_sizes[layer])]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags
