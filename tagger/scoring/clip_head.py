"""Clip scores from a clip's embeddings over time; as light as the rest of prediction.

A patch of 0.96 s has a tag in it or it has not, and a mean of such scores knows no more. Mean,
maximum and deviation over time of the embeddings behind them tell what goes on throughout a clip,
what occurs in it and what changes, and a linear layer on all three learns which a tag asks for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ModelError
from tagger.base.files import atomic_write
from tagger.untrusted.npz import open_arrays

# Mean, maximum and deviation.
N_STATISTICS = 3

# What is said of a window is said of so much around it: the statistics of a moment are not those of
# a clip, for which the head was fitted.
STRETCH_SECONDS = 10.0
# Stretches whose statistics are computed together: their embeddings are copied.
_STRETCHES_AT_ONCE = 256

# A thousand tags of ten thousand features take a sixth of it.
_MOST_BYTES = 256 << 20

Floats = npt.NDArray[np.float32]


def clip_features(outputs: Mapping[str, npt.NDArray[np.floating]], layers: Sequence[str]) -> Floats:
    """Mean, maximum and standard deviation over time of some embeddings.

    Parameters
    ----------
    outputs : mapping of str to np.ndarray [shape=(n_windows, n_dimensions)]
        Embeddings of one clip's windows, at least one, by layer.
    layers : sequence of str
        Which of them.

    Returns
    -------
    np.ndarray [shape=(3 * sum of n_dimensions,), dtype=float32]
        All three of the first layer, then of the next.
    """
    features = []
    for layer in layers:
        values = outputs[layer].astype(np.float64)
        features += [values.mean(axis=0), values.max(axis=0), values.std(axis=0)]
    return np.concatenate(features).astype(np.float32)


@dataclass(frozen=True)
class ClipHead:
    """A linear layer and a sigmoid on `clip_features`.

    Parameters
    ----------
    layers : tuple of str
        Embeddings that it looks at.
    weights : np.ndarray [shape=(n_features, n_tags), dtype=float32]
        Of the features as they are.
    bias : np.ndarray [shape=(n_tags,), dtype=float32]
        Of the tags.
    backbone : str
        Checksum of the network's weights that it was fitted to.
    """

    layers: tuple[str, ...]
    weights: Floats
    bias: Floats
    backbone: str = ""

    def __call__(self, outputs: Mapping[str, npt.NDArray[np.floating]]) -> Floats:
        """Scores of one clip [shape=(n_tags,), dtype=float32]; `outputs` as of `clip_features`."""
        return self.of_features(clip_features(outputs, self.layers)[np.newaxis])[0]

    def over_time(
        self, outputs: Mapping[str, npt.NDArray[np.floating]], *, hop_seconds: float
    ) -> Floats:
        """Scores of the stretch of `STRETCH_SECONDS` around each window.

        Parameters
        ----------
        outputs : mapping of str to np.ndarray [shape=(n_windows, n_dimensions)]
            As of `clip_features`.
        hop_seconds : float
            From the start of a window to that of the next.

        Returns
        -------
        np.ndarray [shape=(n_windows, n_tags), dtype=float32]
            Near its ends a clip's first and last stretch; of a clip that is no longer than one,
            its own scores for each window.
        """
        n_windows = len(outputs[self.layers[0]])
        length = min(max(1, round(STRETCH_SECONDS / hop_seconds)), n_windows)
        n_stretches = n_windows - length + 1
        scores = []
        for first in range(0, n_stretches, _STRETCHES_AT_ONCE):
            last = min(first + _STRETCHES_AT_ONCE, n_stretches) + length - 1
            features = []
            for layer in self.layers:
                values = outputs[layer][first:last].astype(np.float64)
                stretches = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)
                features += [f(axis=-1) for f in (stretches.mean, stretches.max, stretches.std)]
            scores.append(self.of_features(np.concatenate(features, axis=1).astype(np.float32)))
        around = np.clip(np.arange(n_windows) - length // 2, 0, n_stretches - 1)
        return np.concatenate(scores)[around]

    def of_features(self, features: Floats) -> Floats:
        """Scores [shape=(n_clips, n_tags)] of features [shape=(n_clips, n_features)]."""
        logits = features.astype(np.float64) @ self.weights + self.bias
        # Without an overflow in either tail.
        scores: Floats = (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)
        return scores

    def save(self, path: Path) -> None:
        """Write it atomically."""
        with atomic_write(path) as file:
            np.savez(
                file,
                layers=np.array(self.layers),
                weights=self.weights,
                bias=self.bias,
                backbone=np.array(self.backbone),
            )

    @classmethod
    def load(cls, path: Path, *, sizes: Mapping[str, int], n_tags: int) -> "ClipHead":
        """Read what `save` wrote.

        Parameters
        ----------
        path : Path
            The file.
        sizes : mapping of str to int
            Length of each embedding that the network gives.
        n_tags : int
            Tags that it has.

        Raises
        ------
        ModelError
            If the file is missing, damaged or of another network.
        """
        try:
            with open_arrays(path) as archive:
                content = {
                    name: archive.read(name, most_bytes=_MOST_BYTES)
                    for name in ("layers", "weights", "bias", "backbone")
                }
            layers = tuple(str(layer) for layer in np.atleast_1d(content["layers"]))
            weights, bias = content["weights"], content["bias"]
            backbone = str(content["backbone"])
        except Exception as error:
            # NumPy and zipfile raise by what of the file is damaged.
            raise ModelError(
                f"{path}: missing or damaged ({error}); train, export or pull the model again"
            ) from None
        unknown = [layer for layer in layers if layer not in sizes]
        shape = (N_STATISTICS * sum(sizes.get(layer, 0) for layer in layers), n_tags)
        whole = (
            weights.shape == shape
            and bias.shape == (n_tags,)
            and weights.dtype == bias.dtype == np.float32
            and bool(np.isfinite(weights).all() and np.isfinite(bias).all())
        )
        if unknown or not whole:
            raise ModelError(
                f"{path}: does not fit the network; train, export or pull the model again"
            )
        return cls(layers, weights, bias, backbone)
