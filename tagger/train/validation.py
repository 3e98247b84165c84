"""How good a training is after an epoch: scores and metrics of the validation clips."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocess.store.store import Store
from tagger.base.errors import ModelError
from tagger.base.log import warn
from tagger.config import Config
from tagger.network.model import TaggerModel
from tagger.train.data import PreparedData
from tagger.train.machines import Machines
from tagger.train.progress import Progress
from tagger.train.score_clips import ScoringStoppedError, score_clips
from tagger.train.signals import StopSignals


@dataclass(frozen=True)
class Validated:
    """What the judge says of the validation clips.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        1 where a clip carries a tag.
    scores : np.ndarray [shape=(n_clips, n_tags), dtype=float32]
        Clip scores.
    metrics : dict of str to float
        As the task computes them.
    """

    labels: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float32]
    metrics: dict[str, float]


class Validation:
    """Scores the validation clips, of which every machine takes its part.

    Parameters
    ----------
    judge : TaggerModel
        What scores.
    store : Store
        What its windows are read from.
    data : PreparedData
        Clips and labels.
    config : Config
        Of the run.
    machines : Machines
        Who scores together.
    """

    def __init__(
        self,
        judge: TaggerModel,
        store: Store,
        data: PreparedData,
        *,
        config: Config,
        machines: Machines,
    ) -> None:
        self._judge, self._store, self._config = judge, store, config
        self._distribution = machines.distribution
        self._rows = data.rows("validation")
        self._labels = data.labels[self._rows]

    def __call__(self, progress: Progress, signals: StopSignals) -> Validated | None:
        """Score all clips; None if a signal has come meanwhile.

        Parameters
        ----------
        progress : Progress
            Which epoch this is.
        signals : StopSignals
            Looked at after each batch, where this machine is alone.

        Raises
        ------
        ModelError
            If the scores are no numbers: the training has diverged.
        """
        distribution = self._distribution
        mine = slice(distribution.worker, None, distribution.n_workers)
        scores = np.zeros((len(self._rows), len(self._judge.tags)), dtype=np.float32)
        try:
            scores[mine] = score_clips(
                self._judge,
                self._store,
                rows=self._rows[mine],
                config=self._config.stream,
                title="  validate",
                stop=lambda: signals.stop_now,
            )
        except ScoringStoppedError:
            return None
        scores = distribution.sum_over_workers(scores)
        if not np.isfinite(scores).all():
            raise ModelError(
                f"{self._config.run.root}: training diverged in epoch {progress.epoch + 1} (scores "
                "are NaN); start anew in another run.root with a lower train.learning_rate"
            )
        metrics = self._judge.task.metrics(self._labels, scores)
        monitor = self._config.train.monitor
        if math.isnan(metrics[monitor]) and progress.epoch == 0:
            warn(
                f"{monitor} cannot be computed: among {len(scores)} validation clips no tag has "
                "both positives and negatives; the latest weights are kept as the best. Give more "
                "clips, or set data.split or train.monitor=loss"
            )
        return Validated(self._labels, scores, metrics)
