"""The verb ``train``: stream patches, follow the gradient, keep the best weights.

``python -m tagger.train`` is the same as ``tagger train``.
"""

from contextlib import ExitStack
from typing import TYPE_CHECKING

from tagger.config import Config
from tagger.train.data import prepare_data
from tagger.train.resume import open_run, require_same_data

if TYPE_CHECKING:
    from tagger.train.feed import Feed
    from tagger.train.keeper import Keeper, TrainResult
    from tagger.train.learner import Learner
    from tagger.train.progress import Progress
    from tagger.train.signals import StopSignals
    from tagger.train.validation import Validation


def train(config: Config, *, resume: bool = False, profile_input: bool = False) -> "TrainResult":
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
    run, resumed = open_run(config, resume=resume)
    data = prepare_data(config)
    if resumed:
        require_same_data(run, data)

    # What imports TensorFlow waits until the config and the data are known to be good.
    from tagger.train.feed import Feed
    from tagger.train.keeper import kept_run
    from tagger.train.learner import Learner
    from tagger.train.machines import joined_machines
    from tagger.train.signals import StopSignals
    from tagger.train.validation import Validation

    with ExitStack() as stack:
        machines = stack.enter_context(
            joined_machines(config, data, resumed=run if resumed else None)
        )
        learner = Learner(config, data.vocabulary.tags, machines)
        progress = learner.begin(run, data, resumed=resumed)
        store = learner.source(data.store)
        feed = Feed(config, data, store=store, machines=machines, profile=profile_input)
        keeper = stack.enter_context(
            kept_run(
                run, config, data, learner=learner, feed=feed, machines=machines, resumed=resumed
            )
        )
        learner.compile(feed)
        validation = Validation(learner.judge, store, data, config=config, machines=machines)

        with StopSignals(machines.distribution) as signals:
            done = _learn(
                config,
                progress,
                learner=learner,
                feed=feed,
                validation=validation,
                keeper=keeper,
                signals=signals,
            )
        # What comes at the end takes minutes: who was stopped begins with it the next time.
        return keeper.finish(progress, data) if done else keeper.stop(progress)


def _learn(
    config: Config,
    progress: "Progress",
    *,
    learner: "Learner",
    feed: "Feed",
    validation: "Validation",
    keeper: "Keeper",
    signals: "StopSignals",
) -> bool:
    """Learn epoch by epoch; False if a signal has stopped it."""
    while not progress.is_over(config.train):
        end = (progress.epoch + 1) * feed.steps_per_epoch
        stopping = signals.stop_now
        keeper.begin_epoch()
        with feed.epoch(progress) as stepped:
            while progress.step < end and not stopping:
                wishes = signals.wishes(save=keeper.is_due())
                said = learner.step(feed.next_step(progress.step, wishes), progress)
                stopping, save = signals.agreed(said)
                stepped()
                if save and not stopping:
                    keeper.save_state(progress)
        if stopping:
            return False
        learner.bring_judge_up_to_date()
        validated = validation(progress, signals)
        if validated is None:
            # All steps of the epoch are done; whoever goes on begins with its validation.
            return False
        keeper.save_epoch(progress, validated)
    return not signals.stop_now
