"""How far a training has come, and what follows from it."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from tagger.config import TrainConfig


@dataclass
class Progress:
    """All that training knows besides the network and the optimizer; saved with every state.

    Parameters
    ----------
    epoch : int
        Finished epochs.
    step : int
        Finished steps, over all epochs; the position in the stream.
    loss_sum : float
        Of the losses of the running epoch.
    seconds : float
        Spent in the running epoch.
    best : float or None
        Best value of the monitored metric so far.
    best_epoch : int
        Epoch (from 1) that reached it.
    rate_factor : float
        What reduce-on-plateau has made of the learning rate.
    epochs_since_reduction : int
        Epochs without improvement since the rate was last lowered.
    phase : int
        Of `TrainConfig.phases`; 0 in front of the first.
    phase_began : int
        Epochs that were finished before it.
    history : list of dict
        A row per finished epoch.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    rate_factor: float = 1.0
    epochs_since_reduction: int = 0
    phase: int = 0
    phase_began: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Progress":
        """Inverse of ``dataclasses.asdict``."""
        # States of earlier releases have no phases.
        values = {"phase": 0, "phase_began": 0, **values}
        return cls(**{item.name: values[item.name] for item in fields(cls)})

    def stops_early(self, config: TrainConfig) -> bool:
        """Whether the monitored metric has not improved for too long."""
        patience = config.early_stopping.patience
        since = max(self.best_epoch, self.phase_began)
        return patience is not None and self.epoch - since >= patience

    def has_all_epochs(self, config: TrainConfig) -> bool:
        """Whether this phase has had as many epochs as it may."""
        return self.epoch - self.phase_began >= config.phase_epochs(self.phase)

    def phase_is_over(self, config: TrainConfig) -> bool:
        """Whether this phase has no further epoch."""
        return self.has_all_epochs(config) or self.stops_early(config)

    def is_over(self, config: TrainConfig) -> bool:
        """Whether there is no further epoch at all."""
        return self.phase >= len(config.phases) and self.phase_is_over(config)

    def row(
        self, metrics: dict[str, float], *, rate: float, n_steps: int, n_patches: int
    ) -> dict[str, float]:
        """Figures of the epoch whose steps are done.

        Parameters
        ----------
        metrics : dict of str to float
            Of the validation clips.
        rate : float
            Learning rate of its last step.
        n_steps, n_patches : int
            Of an epoch.
        """
        return {
            "epoch": self.epoch + 1,
            "steps": self.step,
            "train_loss": self.loss_sum / n_steps,
            **{f"validation_{name}": value for name, value in metrics.items()},
            "learning_rate": rate,
            "seconds": self.seconds,
            "patches_per_second": n_patches / max(self.seconds, 1e-9),
        }

    def end_epoch(
        self, config: TrainConfig, row: dict[str, float], *, larger_is_better: bool
    ) -> bool:
        """Count an epoch as finished.

        Parameters
        ----------
        config : TrainConfig
            What is monitored, and what follows where it does not improve.
        row : dict of str to float
            Figures of the epoch.
        larger_is_better : bool
            Of the monitored metric.

        Returns
        -------
        bool
            Whether the epoch is the best so far.
        """
        value = row[f"validation_{config.monitor}"]
        # A metric that cannot be computed (no tag with positives) counts as the worst value. As
        # long as it never could be, the latest weights are as good as any.
        if math.isnan(value):
            value = -math.inf if larger_is_better else math.inf
        improved = (
            self.best is None
            or math.isinf(self.best)
            or (value > self.best if larger_is_better else value < self.best)
        )
        self.epoch += 1
        self.history.append(row)
        self.loss_sum, self.seconds = 0.0, 0.0
        if improved:
            self.best, self.best_epoch = value, self.epoch
            self.epochs_since_reduction = 0
        else:
            self._count_plateau(config)
        if self.phase < len(config.phases) and self.phase_is_over(config):
            self.phase, self.phase_began = self.phase + 1, self.epoch
            self.rate_factor, self.epochs_since_reduction = 1.0, 0
        return improved

    def _count_plateau(self, config: TrainConfig) -> None:
        self.epochs_since_reduction += 1
        plateau = config.reduce_on_plateau
        if plateau.patience is not None and self.epochs_since_reduction >= plateau.patience:
            lowest = min(1.0, plateau.min_learning_rate / config.phase_rate(self.phase))
            self.rate_factor = max(lowest, self.rate_factor * plateau.factor)
            self.epochs_since_reduction = 0
