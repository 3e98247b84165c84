"""Clip heads: from what the network says of a clip's windows to the clip's scores.

The same ones score clips in validation, evaluation and prediction, as light as the rest of
prediction. Some only aggregate the scores of windows; others learn from embeddings, once the
network has been trained.
"""

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ConfigError, ModelError
from tagger.base.files import atomic_write
from tagger.base.registry import Entry, Registry
from tagger.scoring.clip_heads._stretches import around_windows, stretch_length
from tagger.scoring.scorer import SCORES, Floats
from tagger.untrusted.npz import read_arrays

# A thousand tags of ten thousand features take a sixth of it.
_MOST_BYTES = 256 << 20

Labels = npt.NDArray[np.uint8]


class ClipHead(Entry):
    """Contract of a clip head.

    A subclass sits in a module of its own in this package, bound to the name ``ENTRY``.

    Attributes
    ----------
    backbone : str
        Checksum of the network's weights that it was fitted to; empty where it was not fitted.
    """

    backbone: str = ""
    # Whether what it has learned comes from the network's own pooling, and from nowhere else.
    is_learned_by_network: ClassVar[bool] = False

    @classmethod
    def filled_in(
        cls, params: Mapping[str, Any], *, embeddings: Sequence[str], decides_one: bool
    ) -> dict[str, Any]:
        """Fill in parameters that were left to the network and to the task; unless overridden none.

        Parameters
        ----------
        params : mapping of str to value
            As the config gives them.
        embeddings : sequence of str
            Names of the outputs of the network that are no scores.
        decides_one : bool
            Whether each clip carries exactly one label.
        """
        del embeddings, decides_one
        return dict(params)

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of the network that it looks at."""

    @abstractmethod
    def features(self, outputs: Mapping[str, npt.NDArray[np.floating]]) -> Floats:
        """Compute what it goes by, of one clip.

        Parameters
        ----------
        outputs : mapping of str to np.ndarray [shape=(n_windows, n_dimensions)]
            Of the clip's windows, at least one, by name.

        Returns
        -------
        np.ndarray [shape=(n_features,), dtype=float32]
            What `together` takes.
        """

    def together(self, of_clips: Sequence[Floats]) -> Floats:
        """Put the `features` of several clips together, a row for each.

        A head whose features of a clip are a row for each of its windows makes an array of objects
        of them, which can be indexed by clips like any other.
        """
        return np.stack(of_clips)

    @abstractmethod
    def scores(self, features: Floats) -> Floats:
        """Scores [shape=(n_clips, n_tags)] of features [shape=(n_clips, n_features)]."""

    def fit(
        self,
        features: Floats,
        labels: Labels,
        *,
        validation: tuple[Floats, Labels],
        groups: Sequence[str] = (),
    ) -> str:
        """Learn from the training clips; nothing is learned unless overridden.

        Parameters
        ----------
        features : np.ndarray [shape=(n_clips, n_features), dtype=float32]
            As `features` makes them.
        labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
            1 where a clip carries a tag.
        validation : tuple of (features, labels)
            Of the clips that choose.
        groups : sequence of str, optional
            Artist or track of each training clip, for a head that validates within them.

        Returns
        -------
        str
            What was found, for people.
        """
        del features, labels, validation, groups
        return self.describe()

    def fits(
        self, features: Floats, labels: Labels, *, groups: Sequence[str] = ()
    ) -> Iterator["ClipHead"]:
        """Fit in each way that it knows, e.g. with several penalties, for folds to choose from.

        Parameters
        ----------
        features, labels, groups
            As of `fit`.

        Yields
        ------
        ClipHead
            In the same order whatever the clips, the most careful first; unless overridden itself,
            of which nothing is learned.
        """
        del features, labels, groups
        yield self

    def loss(self, features: Floats, labels: Labels) -> float:
        """Mean loss by which folds choose; unless overridden the squared error of the scores."""
        return float(((self.scores(features) - labels) ** 2).mean())

    def describe(self) -> str:
        """Say what was found, for people."""
        return "nothing to learn"

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Give what was learned, by name; nothing unless overridden."""
        return {}

    def restore(
        self, arrays: Mapping[str, npt.NDArray[Any]], *, sizes: Mapping[str, int], n_tags: int
    ) -> None:
        """Take what `arrays` gave.

        Parameters
        ----------
        arrays : mapping of str to np.ndarray
            As they come from a file.
        sizes : mapping of str to int
            Length of each output of the network.
        n_tags : int
            Tags that it has.

        Raises
        ------
        ValueError
            If they do not fit.
        KeyError
            If one is missing.
        """
        del arrays, sizes, n_tags

    def __call__(self, outputs: Mapping[str, npt.NDArray[np.floating]]) -> Floats:
        """Scores of one clip [shape=(n_tags,), dtype=float32]; `outputs` as of `features`."""
        return self.scores(self.together([self.features(outputs)]))[0]

    def over_time(
        self, outputs: Mapping[str, npt.NDArray[np.floating]], *, hop_seconds: float
    ) -> Floats:
        """Scores of each window: those of the ten seconds around it.

        Parameters
        ----------
        outputs : mapping of str to np.ndarray [shape=(n_windows, n_dimensions)]
            As of `features`.
        hop_seconds : float
            From the start of a window to that of the next.

        Returns
        -------
        np.ndarray [shape=(n_windows, n_tags), dtype=float32]
            Near its ends a clip's first and last stretch; of a clip that is no longer than one,
            its own scores for each window.
        """
        n_windows = len(outputs[self.outputs[0]])
        length = stretch_length(n_windows, hop_seconds)
        features = [
            self.features({name: outputs[name][first : first + length] for name in self.outputs})
            for first in range(n_windows - length + 1)
        ]
        return around_windows(self.scores(self.together(features)), n_windows, length)


CLIP_HEADS: Registry[ClipHead] = Registry("tagger.scoring.clip_heads", "clip head")


class OfWindowScores(ClipHead):
    """Base of the heads that aggregate the scores of windows over time."""

    @property
    def outputs(self) -> tuple[str, ...]:  # noqa: D102 (the contract documents it)
        return (SCORES,)

    def scores(self, features: Floats) -> Floats:  # noqa: D102
        return features

    def over_time(  # noqa: D102
        self, outputs: Mapping[str, npt.NDArray[np.floating]], *, hop_seconds: float
    ) -> Floats:
        del hop_seconds
        return outputs[SCORES].astype(np.float32, copy=False)


def pooling_head(aggregate: str, alpha: Floats | None) -> ClipHead:
    """Head that does to the scores of windows what the network's own pooling does.

    Parameters
    ----------
    aggregate : str
        ``"mean"``, ``"max"`` or ``"autopool"``.
    alpha : np.ndarray [shape=(n_tags,)], optional
        Learned weights of AutoPool.
    """
    head = CLIP_HEADS.create(aggregate, {})
    if alpha is not None:
        head.restore({"alpha": alpha}, sizes={SCORES: len(alpha)}, n_tags=len(alpha))
    return head


def save_clip_head(head: ClipHead, path: Path) -> None:
    """Write a head atomically: its name, its parameters and arrays, and no code."""
    arrays: dict[str, Any] = {f"array_{name}": array for name, array in head.arrays().items()}
    with atomic_write(path) as file:
        np.savez(
            file,
            head=np.array(head.name),
            params=np.array(head.params.model_dump_json()),
            backbone=np.array(head.backbone),
            **arrays,
        )


def load_clip_head(path: Path, *, sizes: Mapping[str, int], n_tags: int) -> ClipHead:
    """Read what `save_clip_head` wrote.

    Parameters
    ----------
    path : Path
        The file.
    sizes : mapping of str to int
        Length of each output that the network gives.
    n_tags : int
        Tags that it has.

    Raises
    ------
    ModelError
        If the file is missing, damaged, of another network or of a head that is not installed.
    """
    try:
        content = read_arrays(path, most_bytes=_MOST_BYTES)
        name, params = str(content["head"]), json.loads(str(content["params"]))
        backbone = str(content["backbone"])
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path}: missing or damaged ({error}); train, export or pull the model again"
        ) from None
    arrays = {
        name.removeprefix("array_"): array
        for name, array in content.items()
        if name.startswith("array_")
    }
    try:
        head = CLIP_HEADS.create(name, params)
        unknown = [output for output in head.outputs if output not in sizes]
        if unknown:
            raise ValueError(f"the network has no output {unknown[0]!r}")
        head.restore(arrays, sizes=sizes, n_tags=n_tags)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: does not fit the network ({error}); train, export or pull the model again"
        ) from None
    head.backbone = backbone
    return head
