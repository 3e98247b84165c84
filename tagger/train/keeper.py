"""What a training leaves in its run folder, when, and in which order."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from preprocess.clips.splits import PARTS
from preprocess.engines.run import store_hash
from tagger.base.addresses import is_remote
from tagger.base.log import notice, warn
from tagger.config import Config
from tagger.network.keras import tf
from tagger.runs.folder import RunFolder, write_csv
from tagger.train.data import PreparedData
from tagger.train.decisions import save_decisions
from tagger.train.feed import Feed
from tagger.train.fit_clip_head import settle_clip_head
from tagger.train.learner import Learner
from tagger.train.machines import Machines
from tagger.train.progress import Progress
from tagger.train.validation import Validated


@dataclass(frozen=True)
class TrainResult:
    """Outcome of a call of `tagger.train.loop.train`.

    Parameters
    ----------
    run : Path
        The run folder.
    finished : bool
        False if it was interrupted and can be resumed.
    best_epoch : int
        Epoch (from 1) whose weights are the best.
    history : list of dict
        A row per epoch.
    """

    run: Path
    finished: bool
    best_epoch: int
    history: list[dict[str, float]]


class Keeper:
    """Keeps states, weights and figures of a training; use `kept_run`.

    Parameters
    ----------
    run : RunFolder
        Where they go.
    address, config_path : Path
        What the user calls the run, and its config.
    config : Config
        Its config.
    learner : Learner
        What learns.
    feed : Feed
        What it learns from.
    machines : Machines
        All do the same, and the first one's folder is the run.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        address: Path,
        config_path: Path,
        config: Config,
        learner: Learner,
        feed: Feed,
        machines: Machines,
    ) -> None:
        self._run, self._address, self._config_path = run, address, config_path
        self._config, self._learner, self._feed, self._machines = config, learner, feed, machines
        self._checkpoints = learner.checkpoints(run)
        self._writer = tf.summary.create_file_writer(str(run.tensorboard))
        self._last_saved = time.monotonic()
        # Where the last state was saved: seconds count for who is about to be taken away.
        self._saved_at: tuple[int, int] | None = None

    def begin_epoch(self) -> None:
        """From now on the minutes until the next state are counted."""
        self._last_saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time for a state within an epoch."""
        return time.monotonic() - self._last_saved > 60 * self._config.train.checkpoint_minutes

    def save_state(self, progress: Progress) -> None:
        """Save a state within an epoch."""
        self._last_saved = time.monotonic()
        self._save(progress)
        self._run.push(patient=True)

    def _save(self, progress: Progress) -> None:
        self._checkpoints.save(progress.step, asdict(progress))
        self._saved_at = (progress.epoch, progress.step)

    def save_epoch(self, progress: Progress, validated: Validated) -> None:
        """Count an epoch as finished, and keep its weights and figures.

        Raises
        ------
        ModelError
            If the state cannot be saved.
        OSError
            If other files cannot be written.
        """
        feed, config = self._feed, self._config
        row = progress.row(
            validated.metrics,
            rate=self._learner.rate(progress, progress.step - 1),
            n_steps=feed.steps_per_epoch,
            n_patches=feed.steps_per_epoch * feed.patches_per_step,
        )
        larger_is_better = self._learner.judge.task.monitors[config.train.monitor]
        phase = progress.phase
        improved = progress.end_epoch(config.train, row, larger_is_better=larger_is_better)
        run, judge = self._run, self._learner.judge
        judge.save_weights(run.last_weights)
        if improved:
            # One that a run has is of the best weights so far, even where an epoch that is
            # repeated finds the same ones again: the decisions that follow are not of it.
            run.clip_head.unlink(missing_ok=True)
            judge.save_weights(run.best_weights)
            save_decisions(
                run,
                judge.task,
                config.calibration,
                labels=validated.labels,
                scores=validated.scores,
            )
        write_csv(run.metrics, list(row), [list(item.values()) for item in progress.history])
        if progress.phase != phase:
            # A state is of the phase that comes next: its optimizer has other variables.
            self._learner.enter_phase(progress.phase)
            self._checkpoints.track(**self._learner.variables)
        # The state comes after the weights and metrics that it speaks of: a run killed in
        # between repeats the epoch and writes the same again.
        self._save(progress)
        self._write_summary(progress.epoch, row)
        run.push(patient=True)
        monitor = config.train.monitor
        notice(
            f"  epoch {progress.epoch}: train loss {row['train_loss']:.4f}, "
            f"validation {monitor} {row[f'validation_{monitor}']:.4f}"
            f"{' (best)' if improved else ''}",
            event="epoch",
            **row,
        )

    def _write_summary(self, epoch: int, row: dict[str, float]) -> None:
        try:
            with self._writer.as_default(step=epoch):
                for name, value in row.items():
                    tf.summary.scalar(name, value)
                self._writer.flush()
        except tf.errors.OpError as error:
            reason = error.message.splitlines()[0]
            warn(
                f"{self._run.tensorboard}: cannot be written ({reason}); check disk space and "
                "rights (metrics.csv holds the same values)"
            )

    def stop(self, progress: Progress) -> TrainResult:
        """Save what a resumed run needs, if it is not there yet, and tell how to resume."""
        if self._saved_at != (progress.epoch, progress.step):
            self._save(progress)
        self._run.push()
        how = f"with: tagger train --config {self._config_path} --resume"
        if is_remote(self._address):
            # The config is there as well, and here in a copy only.
            how = "on any machine with the same command and --resume"
        notice(f"stopped after {progress.step} steps; go on {how}")
        self._machines.distribution.wait_for_all()
        return TrainResult(self._address, False, progress.best_epoch, progress.history)

    def finish(self, progress: Progress, data: PreparedData) -> TrainResult:
        """Fit the clip head and make the bundle."""
        if not progress.has_all_epochs(self._config.train):
            notice(f"stopped early: no improvement since epoch {progress.best_epoch}")
        if self._machines.distribution.is_chief:
            from tagger.bundle.export import export_run

            settle_clip_head(self._run, self._config, data)
            # In a run that was resumed after its end this may be there already.
            for line in export_run(self._run, data=data):
                notice(line)
            self._run.push()
        # A process that ended would be taken for one that was lost.
        self._machines.distribution.wait_for_all()
        return TrainResult(self._address, True, progress.best_epoch, progress.history)


@contextmanager
def kept_run(
    run: RunFolder,
    config: Config,
    data: PreparedData,
    *,
    learner: Learner,
    feed: Feed,
    machines: Machines,
    resumed: bool,
) -> Iterator[Keeper]:
    """Begin a run folder, or go on with it.

    Parameters
    ----------
    run : RunFolder
        The run.
    config : Config
        Kept in it.
    data : PreparedData
        Its tags and split are kept in it.
    learner, feed, machines
        As of `Keeper`.
    resumed : bool
        Whether the run goes on.

    Raises
    ------
    ModelError
        If the folder cannot be sent to its address.
    """
    address, config_path = run.address, run.config
    with ExitStack() as stack:
        is_chief = machines.distribution.is_chief
        if not is_chief:
            # Every machine does the same, but only one may write the run: reading the weights of
            # several devices is something that they do together.
            elsewhere = stack.enter_context(tempfile.TemporaryDirectory())
            run = RunFolder(Path(elsewhere) / "run")
        if resumed and is_chief:
            config.save(run.config)
        else:
            description = {
                "device": asdict(machines.device),
                "precision": machines.precision,
                "n_shares": machines.n_shares,
                "store_hash": store_hash(data.store.clips),
                "n_clips": {part: len(data.rows(part)) for part in PARTS},
            }
            run.start(
                config,
                data.vocabulary,
                index=data.store.index,
                parts=data.parts,
                description=description,
            )
        run.push(patient=True)
        yield Keeper(
            run,
            address=address,
            config_path=config_path,
            config=config,
            learner=learner,
            feed=feed,
            machines=machines,
        )
