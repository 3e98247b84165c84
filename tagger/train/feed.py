"""What the devices of this machine get in each step: batches, and all that is drawn for them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from preprocess.store.store import Store
from tagger.base.log import notice, progress_bar
from tagger.config import Config
from tagger.network.keras import tf
from tagger.train.augment import as_values, augmented_inputs, mixup_plans, spectrogram_plans
from tagger.train.data import PreparedData
from tagger.train.machines import Machines
from tagger.train.progress import Progress
from tagger.train.stream import Batch, TrainingStream, prefetched_side_by_side


class Feed:
    """Training batches of the shares that this machine's devices take.

    Parameters
    ----------
    config : Config
        How to sample and what to change at random.
    data : PreparedData
        Clips and labels.
    store : Store
        What the windows are read from.
    machines : Machines
        Who gets them.
    profile : bool
        Say after each epoch which share of its time was spent waiting for data.

    Attributes
    ----------
    steps_per_epoch : int
        Batches that are an epoch.
    names : list of str
        Of the inputs, in the order in which they are given.
    augmented : dict of str to LogScale or None
        Those of which plans are given; see `tagger.train.augment.augmented_inputs`.

    Raises
    ------
    ConfigError
        If clips or batches cannot be dealt to so many, or the windows cannot be augmented.
    """

    def __init__(
        self,
        config: Config,
        data: PreparedData,
        *,
        store: Store,
        machines: Machines,
        profile: bool,
    ) -> None:
        self._profile = profile
        self._config, self._machines = config, machines
        self._front_end = config.make_front_end()
        self.augmented = augmented_inputs(config.augment, self._front_end)
        stream_config = config.stream
        if config.train.cache_embeddings:
            stream_config = stream_config.model_copy(update={"shard": True})
        rows = data.rows("train")
        distribution = machines.distribution
        n_of_each = machines.n_shares // distribution.n_replicas
        self._streams = {
            replica: [
                TrainingStream(
                    store,
                    rows,
                    labels=data.labels[rows],
                    config=stream_config,
                    seed=config.train.seed,
                    share=share,
                    n_shares=machines.n_shares,
                )
                for share in range(replica * n_of_each, (replica + 1) * n_of_each)
            ]
            for replica in distribution.replicas
        }
        self.names = sorted(store.spec.input_shapes)
        self._first = distribution.replicas[0]
        self.steps_per_epoch = self._streams[self._first][0].steps_per_epoch
        self.patches_per_step = stream_config.batch_size * stream_config.patches_per_bag
        notice(f"{data.describe()}, {self.steps_per_epoch} steps per epoch")
        self._batches: dict[int, Iterator[Batch]] = {}
        self._waited = 0.0

    def next_step(self, step: int, wishes: list[bool]) -> tuple[Any, ...]:
        """Per-replica values of a step, as `tagger.train.steps.make_train_step` takes them.

        Parameters
        ----------
        step : int
            Number of the step: the first call decides where the stream begins, and each further
            one is for the step that follows.
        wishes : list of bool
            What this machine tells the others.
        """
        if not self._batches:
            self._batches = {
                replica: prefetched_side_by_side(streams, step)
                for replica, streams in self._streams.items()
            }
        asked = time.monotonic()
        batch_of = {replica: next(batches) for replica, batches in self._batches.items()}
        self._waited += time.monotonic() - asked
        return self._machines.distribution.per_replica(
            {
                replica: self._values(replica, step, batch_of[replica], wishes)
                for replica in batch_of
            }
        )

    def _values(self, replica: int, step: int, batch: Batch, wishes: list[bool]) -> tuple[Any, ...]:
        streams = self._streams[replica]
        partners, own_part = mixup_plans(streams, step, alpha=self._config.train.mixup_alpha)
        plans = spectrogram_plans(
            streams, step, config=self._config.augment, front_end=self._front_end
        )
        # Each machine wishes once, however many devices it has.
        wished = wishes if replica == self._first else [False] * len(wishes)
        return (
            batch.labels,
            tf.constant(partners),
            tf.constant(own_part),
            tf.constant(wished, dtype=tf.float32),
            *(batch.inputs[name] for name in self.names),
            *(tf.constant(values) for values in as_values(plans, self.augmented)),
        )

    @contextmanager
    def epoch(self, progress: Progress) -> Iterator[Callable[[], None]]:
        """Show how an epoch goes on, and count its seconds.

        Parameters
        ----------
        progress : Progress
            Its seconds and losses are those of the epoch.

        Yields
        ------
        callable
            To be called after each step.
        """
        first, before, started = progress.step, progress.seconds, time.monotonic()
        begin = progress.epoch * self.steps_per_epoch
        self._waited = 0.0
        title = f"epoch {progress.epoch + 1}/{self._config.train.most_epochs}"
        with progress_bar(title, self.steps_per_epoch) as advance:
            advance(first - begin, "")

            def stepped() -> None:
                progress.seconds = before + time.monotonic() - started
                advance(1, f"loss {progress.loss_sum / (progress.step - begin):.4f}")

            yield stepped
        elapsed = time.monotonic() - started
        progress.seconds = before + elapsed
        if self._profile and progress.step > first and elapsed > 0:
            n_patches = (progress.step - first) * self.patches_per_step
            notice(
                f"  input: {100 * self._waited / elapsed:.1f} % of the time was spent waiting for "
                f"data ({n_patches / elapsed:.0f} patches per second learned from)"
            )
