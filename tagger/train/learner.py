"""The network that learns, the one that is judged, and the step in between."""

from functools import partial
from typing import Any

from preprocess.store.store import Store
from tagger.base.errors import ConfigError
from tagger.base.log import notice, warn
from tagger.bundle.find_weights import load_backbone_weights
from tagger.config import Config
from tagger.network.keras import keras, tf
from tagger.network.model import build_model
from tagger.runs.folder import RunFolder
from tagger.train.checkpoint import Checkpoints
from tagger.train.data import PreparedData
from tagger.train.distribution import synchronize_normalization
from tagger.train.embedded_store import EmbeddedStore
from tagger.train.feed import Feed
from tagger.train.fit_clip_head import clip_head_of
from tagger.train.machines import Machines
from tagger.train.optimizer import learning_rate, make_averaging, make_optimizer
from tagger.train.progress import Progress
from tagger.train.standardise import standardise_inputs
from tagger.train.steps import make_train_step


class Learner:
    """A network in training.

    Parameters
    ----------
    config : Config
        Of the network and its training.
    tags : tuple of str
        Names of its outputs.
    machines : Machines
        What computes.

    Attributes
    ----------
    model : TaggerModel
        What learns.
    judge : TaggerModel
        What is validated and saved. A network of its own where it holds an average of the weights,
        and on several devices, with a copy of the weights: those of the training one can be read
        by all machines together only.

    Raises
    ------
    ConfigError
        If the network lacks an embedding that the clip head is to look at.
    """

    def __init__(self, config: Config, tags: tuple[str, ...], machines: Machines) -> None:
        self._config, self._machines = config, machines
        distribution = machines.distribution
        build = partial(
            build_model, config, config.make_front_end(), tags, precision=machines.precision
        )
        self._averaging = config.train.average_decay > 0
        judge = build() if self._averaging or distribution.n_replicas > 1 else None
        keras.backend.clear_session()
        with distribution.strategy.scope():
            keras.utils.set_random_seed(config.train.seed)
            self.model = build()
        self._feed: Feed | None = None
        # A layer that is not there is told before there is a run; the first phase comes last.
        for phase in reversed(range(len(config.train.phases) + 1)):
            self.enter_phase(phase)
        if judge is not None and distribution.n_replicas > 1:
            synchronize_normalization(self.model.window_model)
        self.judge = judge or self.model
        # Refused before there is a run of it.
        clip_head_of(config, self.model)
        for message in self.model.task.warnings():
            warn(message)

    def enter_phase(self, phase: int) -> None:
        """Freeze what a phase freezes, and begin with a new optimizer."""
        settings = self._config.train.phase(phase)
        if settings is None:
            self.model.freeze(self._config.model.backbone.freeze, "model.backbone.freeze")
        else:
            self.model.freeze(settings.freeze, f"train.phases[{phase - 1}].freeze")
        with self._machines.distribution.strategy.scope():
            self._optimizer = make_optimizer(self._config.train, precision=self._machines.precision)
            self._optimizer.build(self.model.trainable_variables)
        if self._feed is not None:
            self.compile(self._feed)

    @property
    def variables(self) -> dict[str, Any]:
        """What a state of this training consists of, by name."""
        variables = {
            "network": self.model.window_model,
            "time_pooling": self.model.time_pooling,
            "optimizer": self._optimizer,
            **{f"random_{name}": state for name, state in self.model.random_states.items()},
        }
        if self._averaging:
            variables |= {
                "average": self.judge.window_model,
                "average_pooling": self.judge.time_pooling,
            }
        return variables

    def checkpoints(self, run: RunFolder) -> Checkpoints:
        """States of this training in a run folder."""
        return Checkpoints(run.checkpoints, **self.variables)

    def begin(self, run: RunFolder, data: PreparedData, *, resumed: bool) -> Progress:
        """Take the weights to begin with: of the run's newest state, else of config and data.

        Raises
        ------
        ConfigError
            If the run has more epochs than wanted.
        ModelError
            If weights cannot be read or do not fit, or other machines begin elsewhere.
        """
        checkpoints = self.checkpoints(run)

        def ready(saved: dict[str, Any]) -> None:
            self.enter_phase(Progress.from_dict(saved).phase)
            checkpoints.track(**self.variables)

        saved = checkpoints.restore(ready) if resumed else None
        progress = Progress()
        if saved is not None:
            progress = Progress.from_dict(saved)
            notice(f"resuming after epoch {progress.epoch}, step {progress.step}")
            if self._config.train.most_epochs < progress.epoch:
                raise ConfigError(
                    f"{run.address}: has {progress.epoch} epochs already, more than "
                    f"train.epochs={self._config.train.most_epochs}; ask for at least as many"
                )
        elif self._config.model.backbone.weights != "none":
            for line in load_backbone_weights(self.model, self._config.model.backbone.weights):
                notice(line)
        if saved is None:
            standardise_inputs(self.model, data.store, data.rows("train"))
        if self.judge is not self.model and (saved is None or not self._averaging):
            self.judge.copy_weights(self.model)
        self._machines.distribution.require_same(epoch=progress.epoch, step=progress.step)
        return progress

    def source(self, store: Store) -> Store:
        """Choose what to learn from: the store, or embeddings of its windows that never change.

        Raises
        ------
        StoreError
            If a pickle cannot be read, or there is no room on the disk.
        """
        if not self._config.train.cache_embeddings:
            return store
        # By the judge, which computes alone: the machine that makes the embeddings must not need
        # the others, as these wait for it.
        embedded = EmbeddedStore(store, self.judge, self._config)
        embedded.prepare()
        for network in {self.model, self.judge}:
            network.take_embeddings()
        return embedded

    def compile(self, feed: Feed) -> None:
        """Make the graphs of a step with what a feed gives."""
        config, self._feed = self._config.train, feed
        self._warmup_steps = round(config.warmup_epochs * feed.steps_per_epoch)
        self._n_steps = config.epochs * feed.steps_per_epoch
        self._train_step = make_train_step(
            self.model,
            self._optimizer,
            names=feed.names,
            augmented=feed.augmented,
            mixup=config.mixup_alpha > 0,
            l2=config.l2,
            distribution=self._machines.distribution,
        )
        self._average = None
        if self._averaging:
            theirs, ours = self.judge.weights, self.model.weights
            # The average of what never changes is known, and would take longer than a head's step.
            is_frozen = not self.model.embedding_model.trainable
            still = {id(w) for w in self.model.embedding_model.weights} if is_frozen else set()
            moving = [name for name in theirs if id(ours[name]) not in still]
            self._average = make_averaging(
                [theirs[name] for name in moving],
                [ours[name] for name in moving],
                decay=config.average_decay,
            )

    def rate(self, progress: Progress, step: int) -> float:
        """Learning rate of a step."""
        return learning_rate(
            self._config.train,
            step=step,
            n_steps=self._n_steps,
            factor=progress.rate_factor,
            phase=progress.phase,
            warmup_steps=self._warmup_steps,
        )

    def step(self, values: tuple[Any, ...], progress: Progress) -> list[float]:
        """Follow the gradient of one batch.

        Parameters
        ----------
        values : tuple of per-replica values
            As `tagger.train.feed.Feed` gives them.
        progress : Progress
            Up to here; it counts the step.

        Returns
        -------
        list of float
            Sum over machines of each wish.
        """
        self._optimizer.learning_rate = self.rate(progress, progress.step)
        loss, *wishes = self._train_step(*values).numpy()
        if self._average is not None:
            self._average(tf.constant(progress.step))
        progress.step += 1
        progress.loss_sum += float(loss)
        return [float(wish) for wish in wishes]

    def bring_judge_up_to_date(self) -> None:
        """Give the judge the weights of now, unless it holds their average."""
        if self.judge is not self.model and not self._averaging:
            self.judge.copy_weights(self.model)
