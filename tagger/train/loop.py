"""The verb ``train``: stream patches, follow the gradient, keep the best weights.

``python -m tagger.train`` is the same as ``tagger train``.
"""

import math
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from preprocess.clips.splits import PARTS
from preprocess.engines.run import store_hash
from preprocess.store.store import Store
from tagger.base.addresses import is_remote
from tagger.base.errors import ConfigError, ModelError
from tagger.base.files import json_hash
from tagger.base.log import notice, progress_bar, warn
from tagger.config import Config, TrainConfig
from tagger.runs.folder import RunFolder, write_csv
from tagger.train.data import PreparedData, prepare_data
from tagger.train.decisions import save_decisions
from tagger.train.distribution import Distribution, find_distribution, synchronize_normalization
from tagger.train.score_clips import ScoringStoppedError, score_clips

if TYPE_CHECKING:
    from tagger.network.model import TaggerModel
    from tagger.train.stream import Batch

# Settings that may differ when a run is resumed: they change nothing that was learned.
_MAY_DIFFER = frozenset(
    {
        "data.root",
        "store.root",
        "store.workers",
        "run.root",
        "stream.prefetch",
        "stream.shard",
        # What the run began with holds.
        "stream.shares",
        "stream.evaluation_batch_size",
        "stream.evaluation_batch_mb",
        "train.checkpoint_minutes",
        "train.strategy",
        "model.clip_head.name",
        "model.clip_head.layers",
        "calibration.method",
        "calibration.thresholds",
        "calibration.precision",
    }
)


@dataclass
class Progress:
    """How far a run has come: all that the loop knows besides the network and the optimizer.

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
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Progress":
        """Inverse of ``dataclasses.asdict``."""
        return cls(**{item.name: values[item.name] for item in fields(cls)})


@dataclass(frozen=True)
class TrainResult:
    """Outcome of a call of `train`.

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


def _score_together(
    model: "TaggerModel",
    store: Store,
    rows: list[int],
    *,
    config: Config,
    distribution: Distribution,
    stop: Callable[[], bool],
) -> npt.NDArray[np.float32]:
    """Clip scores of `rows`, of which every machine computes its part; one that is alone may stop.

    Raises
    ------
    ScoringStoppedError
        If it has.
    """
    mine = slice(distribution.worker, None, distribution.n_workers)
    scores = np.zeros((len(rows), len(model.tags)), dtype=np.float32)
    scores[mine] = score_clips(
        model,
        store,
        rows=rows[mine],
        config=config.stream,
        title="  validate",
        stop=stop if distribution.n_workers == 1 else None,
    )
    return distribution.sum_over_workers(scores)


@contextmanager
def _stop_on_signals() -> Iterator[list[str]]:
    """Collect the names of SIGINT and SIGTERM instead of dying; a second one dies as usual."""
    received: list[str] = []
    previous: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        del frame
        received.append(signal.Signals(number).name)
        notice(
            f"{received[-1]}: finishing this step and saving the state; once more to quit at once"
        )
        signal.signal(number, previous[number])

    try:
        for caught in (signal.SIGINT, signal.SIGTERM):
            previous[caught] = signal.signal(caught, note)
    except ValueError:
        # Not in the main thread: whoever runs us handles signals.
        previous.clear()
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _refuse_other_config(config: Config, run: RunFolder) -> None:
    ours, theirs = _flatten(config.to_dict()), _flatten(run.load_config().to_dict())
    may_differ = set(_MAY_DIFFER)
    if config.train.final_learning_rate is None:
        # With the cosine another number of epochs is another rate at every step.
        may_differ.add("train.epochs")
    different = [
        f"{key}={ours.get(key)!r} (the run has {theirs.get(key)!r})"
        for key in sorted({*ours, *theirs})
        if key not in may_differ and ours.get(key) != theirs.get(key)
    ]
    if different:
        raise ConfigError(
            f"{run.address}: cannot resume with {'; '.join(different[:3])}; "
            f"use --config {run.config}, or start anew in another run.root"
        )


def _open_run(config: Config, *, resume: bool) -> tuple[RunFolder, bool]:
    """Run folder, and whether it goes on from an earlier start."""
    run = RunFolder.at(config.run.root)
    run.pull()
    if not run.exists():
        return run, False
    if not resume:
        raise ConfigError(
            f"{run.address}: already holds a run; add --resume to go on with it, "
            "or choose another run.root"
        )
    run.require_front_end(config.make_front_end())
    _refuse_other_config(config, run)
    return run, True


def _refuse_other_data(run: RunFolder, data: PreparedData) -> None:
    """Refuse to go on with other clips: a test clip of before might be a training clip now."""
    ids = [clip.id for clip in data.store.index.clips]
    split = dict(zip(ids, data.parts.tolist(), strict=True))
    if run.load_vocabulary() != data.vocabulary or run.load_split() != split:
        raise ConfigError(
            f"{run.address}: cannot resume, as the clips, tags or split of its store have changed "
            "since; restore them, or start anew in another run.root"
        )


def _number_of_shares(config: Config, distribution: Distribution, run: RunFolder | None) -> int:
    """Shares that clips and batches are dealt to: as configured, or as the run has them."""
    wanted = config.stream.shares
    if run is not None:
        # Runs of earlier releases know of one only.
        wanted = int(run.require().get("n_shares", 1))
    n_shares = wanted or distribution.n_replicas
    if n_shares % distribution.n_replicas:
        raise ConfigError(
            f"stream.shares={n_shares} cannot be dealt evenly to {distribution.n_replicas} "
            "devices; make it a multiple of them, or train on fewer (train.strategy=single)"
        )
    return n_shares


def train(config: Config, *, resume: bool = False, profile_input: bool = False) -> TrainResult:
    """Train a tagger on a patch store.

    On several machines all call it with the same config, and with a run folder that all can read;
    the first of them writes it.

    Parameters
    ----------
    config : Config
        Everything.
    resume : bool
        Go on with the run in ``run.root`` if there is one, exactly as if it had never stopped.
    profile_input : bool
        Say after each epoch which share of its time training has waited for data.

    Returns
    -------
    TrainResult
        The run folder holds the rest: effective config, vocabulary, split, metrics per epoch,
        best and last weights, and the state to resume from.

    Raises
    ------
    ConfigError
        If the run folder is taken, or the run to be resumed was started with other settings.
    StoreError
        If the store is missing, damaged or made by another front end.
    ModelError
        If weights to start from do not fit, or another machine has gone.
    """
    with ExitStack() as stack:
        return _train(config, stack, resume=resume, profile_input=profile_input)


def _train(config: Config, stack: ExitStack, *, resume: bool, profile_input: bool) -> TrainResult:
    run, resumed = _open_run(config, resume=resume)
    data = prepare_data(config)
    if resumed:
        _refuse_other_data(run, data)
    front_end = config.make_front_end()

    from tagger.bundle.find_weights import load_backbone_weights
    from tagger.network.devices import choose_precision, cpu_flags, find_device
    from tagger.network.keras import keras, tf
    from tagger.network.model import build_model
    from tagger.train.augment import as_values, augmented_inputs, mixup_plans, spectrogram_plans
    from tagger.train.checkpoint import Checkpoints
    from tagger.train.embedded_store import EmbeddedStore
    from tagger.train.fit_clip_head import require_layers, settle_clip_head
    from tagger.train.optimizer import learning_rate, make_averaging, make_optimizer
    from tagger.train.steps import make_train_step
    from tagger.train.stream import TrainingStream, prefetched_side_by_side

    # Refused before there is a run of it that could neither begin nor go on.
    augmented = augmented_inputs(config.augment, front_end)
    # All machines meet here: each has looked for the run before one of them begins it.
    distribution = find_distribution(config.train.strategy)
    stack.enter_context(distribution.naming_lost_workers())
    n_shares = _number_of_shares(config, distribution, run if resumed else None)
    device = find_device()
    precision = choose_precision(config.train.precision, device, cpu_flags())
    if resumed:
        # On another device "auto" might choose another one in the middle of the run.
        precision = run.require()["precision"]
    if distribution.n_workers > 1:
        distribution.require_same(
            resumed=int(resumed),
            shares=n_shares,
            precision=precision,
            settings=json_hash(
                {k: v for k, v in _flatten(config.to_dict()).items() if k not in _MAY_DIFFER}
            ),
            clips=store_hash(data.store.clips),
            split=json_hash(data.parts.tolist()),
        )
    notice(
        f"device: {device.kind} ({device.description}), precision: {precision}"
        f"{distribution.describe()}"
    )

    build = partial(build_model, config, front_end, data.vocabulary.tags, precision=precision)
    # A network of its own judges and saves where it holds an average of the weights, and on several
    # devices, with a copy of the weights: those of the training one can be read by all machines
    # together only.
    averaging = config.train.average_decay > 0
    judge = build() if averaging or distribution.n_replicas > 1 else None
    keras.backend.clear_session()
    with distribution.strategy.scope():
        keras.utils.set_random_seed(config.train.seed)
        model = build()
        optimizer = make_optimizer(config.train, precision=precision)
        optimizer.build(model.trainable_variables)
    if judge is None:
        judge = model
    elif distribution.n_replicas > 1:
        synchronize_normalization(model.window_model)
    require_layers(config.model.clip_head, model)
    for message in model.task.warnings():
        warn(message)
    variables = {
        "network": model.window_model,
        "time_pooling": model.time_pooling,
        "optimizer": optimizer,
        **{f"random_{name}": state for name, state in model.random_states.items()},
    }
    if averaging:
        variables |= {"average": judge.window_model, "average_pooling": judge.time_pooling}

    progress = Progress()
    saved = Checkpoints(run.checkpoints, **variables).restore() if resumed else None
    if saved is not None:
        progress = Progress.from_dict(saved)
        notice(f"resuming after epoch {progress.epoch}, step {progress.step}")
        if config.train.epochs < progress.epoch:
            raise ConfigError(
                f"{run.address}: has {progress.epoch} epochs already, more than "
                f"train.epochs={config.train.epochs}; ask for at least as many"
            )
    elif config.model.backbone.weights != "none":
        for line in load_backbone_weights(model, config.model.backbone.weights):
            notice(line)
    if judge is not model and (saved is None or not averaging):
        judge.copy_weights(model)
    rows = {part: data.rows(part) for part in PARTS}
    here, shares_of_replica = distribution.replicas, n_shares // distribution.n_replicas
    store, stream_config = data.store, config.stream
    if config.train.cache_embeddings:
        # By the judge, which computes alone: the machine that makes the embeddings must not need
        # the others, as these wait for it.
        store = embedded = EmbeddedStore(data.store, judge, config)
        embedded.prepare()
        stream_config = config.stream.model_copy(update={"shard": True})
        for network in {model, judge}:
            network.take_embeddings()
    streams = {
        replica: [
            TrainingStream(
                store,
                rows["train"],
                labels=data.labels[rows["train"]],
                config=stream_config,
                seed=config.train.seed,
                share=share,
                n_shares=n_shares,
            )
            for share in range(replica * shares_of_replica, (replica + 1) * shares_of_replica)
        ]
        for replica in here
    }
    steps_per_epoch = streams[here[0]][0].steps_per_epoch
    notice(
        f"{len(rows['train'])} clips to train on, {len(rows['validation'])} to validate, "
        f"{len(data.vocabulary)} tags, {steps_per_epoch} steps per epoch"
    )

    distribution.require_same(epoch=progress.epoch, step=progress.step)
    address, saved_config = run.address, run.config
    if not distribution.is_chief:
        # Every machine does the same, but only one may write the run: reading the weights of
        # several devices is something that they do together.
        elsewhere = stack.enter_context(tempfile.TemporaryDirectory())
        run = RunFolder(Path(elsewhere) / "run")
    checkpoints = Checkpoints(run.checkpoints, **variables)
    if not resumed or not distribution.is_chief:
        description = {
            "device": asdict(device),
            "precision": precision,
            "n_shares": n_shares,
            "store_hash": store_hash(data.store.clips),
            "n_clips": {part: len(rows[part]) for part in PARTS},
        }
        run.start(
            config,
            data.vocabulary,
            index=data.store.index,
            parts=data.parts,
            description=description,
        )
    else:
        config.save(run.config)
    run.push(patient=True)

    names = sorted(store.spec.input_shapes)
    train_step = make_train_step(
        model,
        optimizer,
        names=names,
        augmented=augmented,
        mixup=config.train.mixup_alpha > 0,
        distribution=distribution,
    )

    average = None
    if averaging:
        theirs, ours = judge.weights, model.weights
        # The average of what never changes is known, and would take longer than a head's step.
        frozen = model.embedding_model if config.model.backbone.freeze == "all" else None
        still = {id(weight) for weight in frozen.weights} if frozen is not None else set()
        moving = [name for name in theirs if id(ours[name]) not in still]
        average = make_averaging(
            [theirs[name] for name in moving],
            [ours[name] for name in moving],
            decay=config.train.average_decay,
        )

    def values_of(replica: int, batch: "Batch", wishes: list[bool]) -> tuple[Any, ...]:
        partners, own_part = mixup_plans(
            streams[replica], progress.step, alpha=config.train.mixup_alpha
        )
        plans = spectrogram_plans(
            streams[replica], progress.step, config=config.augment, front_end=front_end
        )
        # Each machine wishes once, however many devices it has.
        wished = wishes if replica == here[0] else [False] * len(wishes)
        return (
            batch.labels,
            tf.constant(partners),
            tf.constant(own_part),
            tf.constant(wished, dtype=tf.float32),
            *(batch.inputs[name] for name in names),
            *(tf.constant(values) for values in as_values(plans, augmented)),
        )

    def rate_of(step: int) -> float:
        return learning_rate(
            config.train,
            step=step,
            n_steps=n_steps,
            factor=progress.rate_factor,
            warmup_steps=round(config.train.warmup_epochs * steps_per_epoch),
        )

    larger_is_better = model.task.monitors[config.train.monitor]
    n_steps = config.train.epochs * steps_per_epoch
    batch_size, bag_size = config.stream.batch_size, config.stream.patches_per_bag
    writer = tf.summary.create_file_writer(str(run.tensorboard))
    validation_labels = data.labels[rows["validation"]]
    stopped_early = _should_stop(config.train, progress)
    batches = None
    # Where the last state was saved: seconds count for who is about to be taken away.
    saved_at: tuple[int, int] | None = None

    def stopped() -> TrainResult:
        if saved_at != (progress.epoch, progress.step):
            checkpoints.save(progress.step, asdict(progress))
        run.push()
        how = f"with: tagger train --config {saved_config} --resume"
        if is_remote(address):
            # The config is there as well, and here in a copy only.
            how = "on any machine with the same command and --resume"
        notice(f"stopped after {progress.step} steps; go on {how}")
        distribution.wait_for_all()
        return TrainResult(address, False, progress.best_epoch, progress.history)

    with _stop_on_signals() as signals:
        while progress.epoch < config.train.epochs and not stopped_early:
            if batches is None:
                batches = {
                    replica: prefetched_side_by_side(streams[replica], progress.step)
                    for replica in here
                }
            end = (progress.epoch + 1) * steps_per_epoch
            title = f"epoch {progress.epoch + 1}/{config.train.epochs}"
            started = last_saved = time.monotonic()
            first_step, waited = progress.step, 0.0
            stopping = bool(signals) and distribution.n_workers == 1
            with progress_bar(title, steps_per_epoch) as advance:
                advance(steps_per_epoch - (end - progress.step), "")
                while progress.step < end and not stopping:
                    asked = time.monotonic()
                    batch_of = {replica: next(batches[replica]) for replica in batches}
                    now = time.monotonic()
                    waited += now - asked
                    optimizer.learning_rate = rate_of(progress.step)
                    due = now - last_saved > 60 * config.train.checkpoint_minutes
                    # To stop or to save is what machines do together: one that alone has noticed a
                    # signal or the time tells the others with the step.
                    wishes = [bool(signals), due and distribution.is_chief]
                    values = distribution.per_replica(
                        {replica: values_of(replica, batch_of[replica], wishes) for replica in here}
                    )
                    loss, *agreed = train_step(*values).numpy()
                    save = agreed[1] > 0
                    # With nobody to agree with, what came during the step counts at once.
                    stopping = bool(signals) if distribution.n_workers == 1 else agreed[0] > 0
                    if average is not None:
                        average(tf.constant(progress.step))
                    progress.step += 1
                    progress.loss_sum += float(loss)
                    steps_done = steps_per_epoch - (end - progress.step)
                    advance(1, f"loss {progress.loss_sum / steps_done:.4f}")
                    if save and not stopping:
                        last_saved = time.monotonic()
                        so_far = progress.seconds + last_saved - started
                        checkpoints.save(progress.step, {**asdict(progress), "seconds": so_far})
                        run.push(patient=True)
            elapsed = time.monotonic() - started
            progress.seconds += elapsed
            if profile_input and progress.step > first_step:
                n_patches = (progress.step - first_step) * batch_size * bag_size
                notice(
                    f"  input: {100 * waited / elapsed:.1f} % of the time was spent waiting for "
                    f"data ({n_patches / elapsed:.0f} patches per second learned from)"
                )
            if stopping:
                return stopped()

            if judge is not model and not averaging:
                judge.copy_weights(model)
            try:
                scores = _score_together(
                    judge,
                    store,
                    rows["validation"],
                    config=config,
                    distribution=distribution,
                    stop=lambda: bool(signals),
                )
            except ScoringStoppedError:
                # All steps of the epoch are done; whoever goes on begins with its validation.
                return stopped()
            if not np.isfinite(scores).all():
                raise ModelError(
                    f"{address}: training diverged in epoch {progress.epoch + 1} (scores are "
                    "NaN); start anew in another run.root with a lower train.learning_rate"
                )
            metrics = model.task.metrics(validation_labels, scores)
            if math.isnan(metrics[config.train.monitor]) and progress.epoch == 0:
                warn(
                    f"{config.train.monitor} cannot be computed: among {len(scores)} validation "
                    "clips no tag has both positives and negatives; the latest weights are kept "
                    "as the best. Give more clips, or set data.split or train.monitor=loss"
                )
            row = {
                "epoch": progress.epoch + 1,
                "steps": progress.step,
                "train_loss": progress.loss_sum / steps_per_epoch,
                **{f"validation_{name}": value for name, value in metrics.items()},
                "learning_rate": rate_of(progress.step - 1),
                "seconds": progress.seconds,
                "patches_per_second": steps_per_epoch
                * batch_size
                * bag_size
                / max(progress.seconds, 1e-9),
            }
            improved = _note_epoch(config.train, progress, row, larger_is_better)
            judge.save_weights(run.last_weights)
            if improved:
                # One that a run has is of the best weights so far, even where an epoch that is
                # repeated finds the same ones again: the decisions that follow are not of it.
                run.clip_head.unlink(missing_ok=True)
                judge.save_weights(run.best_weights)
                save_decisions(
                    run, model.task, config.calibration, labels=validation_labels, scores=scores
                )
            write_csv(run.metrics, list(row), [list(item.values()) for item in progress.history])
            # The state comes after the weights and metrics that it speaks of: a run killed in
            # between repeats the epoch and writes the same again.
            checkpoints.save(progress.step, asdict(progress))
            saved_at = (progress.epoch, progress.step)
            try:
                with writer.as_default(step=progress.epoch):
                    for name, value in row.items():
                        tf.summary.scalar(name, value)
                    writer.flush()
            except tf.errors.OpError as error:
                reason = error.message.splitlines()[0]
                warn(
                    f"{run.tensorboard}: cannot be written ({reason}); check disk space and rights "
                    "(metrics.csv holds the same values)"
                )
            run.push(patient=True)
            monitored = row[f"validation_{config.train.monitor}"]
            notice(
                f"  epoch {progress.epoch}: train loss {row['train_loss']:.4f}, "
                f"validation {config.train.monitor} {monitored:.4f}"
                f"{' (best)' if improved else ''}",
                event="epoch",
                **row,
            )
            stopped_early = _should_stop(config.train, progress)
        if signals and distribution.n_workers == 1:
            # What comes now takes minutes, and whoever goes on begins with it.
            return stopped()
    if stopped_early:
        notice(f"stopped early: no improvement since epoch {progress.best_epoch}")
    if distribution.is_chief:
        from tagger.bundle.export import export_run

        settle_clip_head(run, config, data)
        # In a run that was resumed after its end this may be there already.
        for line in export_run(run, data=data):
            notice(line)
        run.push()
    # A process that ended would be taken for one that was lost.
    distribution.wait_for_all()
    return TrainResult(address, True, progress.best_epoch, progress.history)


def _note_epoch(
    config: TrainConfig, progress: Progress, row: dict[str, float], larger_is_better: bool
) -> bool:
    """Enter a finished epoch into `progress`; tells whether it is the best so far."""
    value = row[f"validation_{config.monitor}"]
    # A metric that cannot be computed (no tag with positives) counts as the worst value. As long as
    # it never could be, the latest weights are as good as any.
    if math.isnan(value):
        value = -math.inf if larger_is_better else math.inf
    improved = (
        progress.best is None
        or math.isinf(progress.best)
        or (value > progress.best if larger_is_better else value < progress.best)
    )
    progress.epoch += 1
    progress.history.append(row)
    progress.loss_sum, progress.seconds = 0.0, 0.0
    if improved:
        progress.best, progress.best_epoch = value, progress.epoch
        progress.epochs_since_reduction = 0
        return True
    progress.epochs_since_reduction += 1
    plateau = config.reduce_on_plateau
    if plateau.patience is not None and progress.epochs_since_reduction >= plateau.patience:
        lowest = min(1.0, plateau.min_learning_rate / config.learning_rate)
        progress.rate_factor = max(lowest, progress.rate_factor * plateau.factor)
        progress.epochs_since_reduction = 0
    return False


def _should_stop(config: TrainConfig, progress: Progress) -> bool:
    patience = config.early_stopping.patience
    return patience is not None and progress.epoch - progress.best_epoch >= patience
