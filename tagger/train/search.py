"""The verb ``search``: try settings within a declared space, and keep every trial as a run.

The folder of a search holds Optuna's journal, a run folder per trial, ``results.csv`` and
``best.yaml``, the config of the best trial. A search that is started again goes on: with the trial
that was interrupted, at the step where it was.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from tagger.base.errors import ConfigError, ModelError
from tagger.base.log import notice, warn
from tagger.base.registry import describe_validation_error
from tagger.config import Config, with_overrides
from tagger.network.task import TASKS
from tagger.runs.folder import write_csv
from tagger.untrusted import yaml as safe_yaml

if TYPE_CHECKING:
    import optuna

_JOURNAL = "optuna.jsonl"
_RESULTS = "results.csv"
_BEST = "best.yaml"
_STUDY = "search"
_LOCK = "search.lock"
# Where trials are kept, and what makes them comparable.
_SAME_IN_ALL = ("run", "train.monitor", "task.name")


class Range(BaseModel):
    """Numbers between two ends."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: int | float
    high: int | float
    log: bool = False
    step: Annotated[int | float | None, Field(gt=0)] = None

    @model_validator(mode="after")
    def _possible(self) -> "Range":
        if not self.low < self.high:
            raise ValueError("low must be less than high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0 and no step")
        return self


Choice = str | int | float | bool | None
Space = dict[str, Range | Annotated[list[Choice], Field(min_length=1)]]


@dataclass(frozen=True)
class Trial:
    """What one trial was and gave.

    Parameters
    ----------
    number : int
        From 0.
    settings : dict of str to value
        What it set, by key.
    value : float or None
        Best value of the monitored metric; None if it failed.
    """

    number: int
    settings: dict[str, Any]
    value: float | None


@dataclass(frozen=True)
class SearchResult:
    """All trials of a search so far.

    Parameters
    ----------
    monitor : str
        The metric that was looked at.
    trials : tuple of Trial
        The best first, the failed last.
    finished : bool
        False if it was interrupted and can go on.
    """

    monitor: str
    trials: tuple[Trial, ...]
    finished: bool

    @property
    def n_failed(self) -> int:
        """Trials that gave no value."""
        return sum(trial.value is None for trial in self.trials)

    def table(self) -> str:
        """Text for people: a line per trial."""
        keys = sorted({key for trial in self.trials for key in trial.settings})
        rows = [["trial", self.monitor, *keys]]
        for trial in self.trials:
            value = "failed" if trial.value is None else f"{trial.value:.4f}"
            settings = [_short(trial.settings.get(key)) for key in keys]
            rows.append([str(trial.number), value, *settings])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(lines)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def read_space(path: Path) -> Space:
    """Read what may be tried.

    Parameters
    ----------
    path : Path
        YAML: a key of the config to a list of values, or to ``low`` and ``high`` with ``log`` or
        ``step``.

    Raises
    ------
    ConfigError
        If the file is missing or is no such thing.
    """
    try:
        content = safe_yaml.loads(path.read_text(encoding="utf-8"))
        space: Space = TypeAdapter(Space).validate_python(content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check --space") from None
    except ValidationError as error:
        raise ConfigError(
            f"{path}: {describe_validation_error(error)}; write 'key: [values]' or "
            "'key: {low: 1, high: 2}'"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid YAML ({error}); fix it") from None
    if not space:
        raise ConfigError(f"{path}: names no key; add one, e.g. train.learning_rate: [0.001, 0.01]")
    for key in space:
        if any(key == same or key.startswith(f"{same}.") for same in _SAME_IN_ALL):
            raise ConfigError(
                f"{path}: {key} is the same in all trials of a search; set it in the config"
            )
    return space


def search(config: Config, space_path: Path, *, folder: Path, n_trials: int) -> SearchResult:
    """Train with settings that Optuna's TPE sampler suggests, until there are `n_trials`.

    Parameters
    ----------
    config : Config
        What all trials have in common; its seed is the sampler's as well.
    space_path : Path
        See `read_space`.
    folder : Path
        Of the search; an earlier one in it goes on.
    n_trials : int
        Trials in all, with those of earlier starts.

    Returns
    -------
    SearchResult

    Raises
    ------
    ConfigError
        If the space names what the config does not have, the folder holds another search or one
        that cannot be read or is running, or not even the first trial can begin.
    """
    space = read_space(space_path)
    first = {
        key: values.low if isinstance(values, Range) else values[0] for key, values in space.items()
    }
    try:
        # All together: one may need another.
        with_overrides(config, first)
    except ConfigError as error:
        raise ConfigError(f"{space_path}: {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        return _search(config, space, folder=folder, n_trials=n_trials)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Refuse to work in a folder where another process searches."""
    # Only systems like Unix have it.
    import fcntl

    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder}: another search is running in it; wait for its end, or choose another "
                "--output"
            ) from None
        yield


def _open_study(path: Path, *, larger_is_better: bool) -> "optuna.Study":
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if path.exists():
            _drop_half_a_line(path)
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name=_STUDY,
            direction="maximize" if larger_is_better else "minimize",
            load_if_exists=True,
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        # All but the first come from lines that are none of Optuna's.
        raise ConfigError(
            f"{path}: the journal of the search cannot be read ({error}); restore it, or choose "
            "another --output"
        ) from None


def _drop_half_a_line(path: Path) -> None:
    """Cut off what a killed process has begun to write: Optuna would write on in that line."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _search(config: Config, space: Space, *, folder: Path, n_trials: int) -> SearchResult:
    import optuna
    from optuna.trial import TrialState

    larger_is_better = TASKS.get(config.task.name).monitors[config.train.monitor]
    study = _open_study(folder / _JOURNAL, larger_is_better=larger_is_better)
    description = _describe(config, space)
    known = study.user_attrs.get("description")
    if known is None:
        study.set_user_attr("description", description)
    elif known != description:
        raise ConfigError(
            f"{folder}: holds a search with another config or space; choose another --output"
        )
    finished = True
    ended = (TrialState.COMPLETE, TrialState.FAIL)
    # One that was interrupted comes first: its run goes on.
    waiting = study.get_trials(states=(TrialState.RUNNING,))
    while finished and len(study.get_trials(deepcopy=False, states=ended)) < n_trials:
        number = waiting[0].number if waiting else len(study.get_trials(deepcopy=False))
        # With a seed for each trial: one for all would draw the same again after each start.
        seed = np.random.SeedSequence((config.train.seed, number)).generate_state(1)[0]
        study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        if waiting:
            trial = optuna.trial.Trial(study, waiting.pop(0)._trial_id)
        else:
            trial = study.ask()
        finished = _run(trial, study, config=config, space=space, folder=folder)
        _write_results(folder, study, config)
    result = _result(study, config, finished=finished)
    best = next((trial for trial in result.trials if trial.value is not None), None)
    if best is not None:
        with_overrides(config, best.settings).save(folder / _BEST)
    return result


def _describe(config: Config, space: Space) -> dict[str, Any]:
    """Plain values that two starts of one search have in common."""
    settings = config.to_dict()
    settings.pop("run")
    declared = {
        key: values.model_dump() if isinstance(values, Range) else values
        for key, values in space.items()
    }
    return {"config": settings, "space": declared}


def _run(
    trial: "optuna.Trial",
    study: "optuna.Study",
    *,
    config: Config,
    space: Space,
    folder: Path,
) -> bool:
    """Train one trial; tells whether it came to an end."""
    from optuna.trial import TrialState

    from tagger.network.keras import tf
    from tagger.train.loop import train

    settings = {key: _suggest(trial, key, values) for key, values in space.items()}
    shown = ", ".join(f"{key}={_short(value)}" for key, value in settings.items())
    notice(f"trial {trial.number}: {shown}")
    root = folder / "trials" / f"{trial.number:04d}"
    try:
        result = train(with_overrides(config, settings | {"run.root": str(root)}), resume=True)
    except (ConfigError, ModelError, tf.errors.ResourceExhaustedError) as error:
        if trial.number == 0 and isinstance(error, ConfigError):
            # Others would hardly do better. Once the config is mended, it is another search.
            if not root.exists():
                (folder / _JOURNAL).unlink()
            raise
        lacks_memory = isinstance(error, tf.errors.ResourceExhaustedError)
        warn(f"trial {trial.number} failed: {'out of memory' if lacks_memory else error}")
        study.tell(trial, state=TrialState.FAIL)
        return True
    if not result.finished:
        return False
    values = [row[f"validation_{config.train.monitor}"] for row in result.history]
    value = values[result.best_epoch - 1]
    if math.isnan(value):
        warn(f"trial {trial.number} failed: {config.train.monitor} cannot be computed")
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, value)
    return True


def _suggest(trial: "optuna.Trial", key: str, values: Range | list[Choice]) -> Any:
    if isinstance(values, list):
        return trial.suggest_categorical(key, values)
    numbers = (values.low, values.high, values.step)
    if all(isinstance(number, int) for number in numbers if number is not None):
        step = 1 if values.step is None else int(values.step)
        return trial.suggest_int(key, int(values.low), int(values.high), step=step, log=values.log)
    return trial.suggest_float(key, values.low, values.high, step=values.step, log=values.log)


def _result(study: "optuna.Study", config: Config, *, finished: bool) -> SearchResult:
    from optuna.trial import TrialState

    sign = -1 if TASKS.get(config.task.name).monitors[config.train.monitor] else 1
    states = (TrialState.COMPLETE, TrialState.FAIL)
    trials = [
        Trial(frozen.number, dict(frozen.params), frozen.value)
        for frozen in study.get_trials(states=states)
    ]
    trials.sort(key=lambda t: (t.value is None, sign * (t.value or 0.0), t.number))
    return SearchResult(config.train.monitor, tuple(trials), finished)


def _write_results(folder: Path, study: "optuna.Study", config: Config) -> None:
    result = _result(study, config, finished=True)
    keys = sorted({key for trial in result.trials for key in trial.settings})
    rows = [
        [trial.number, "" if trial.value is None else trial.value]
        + [trial.settings.get(key, "") for key in keys]
        for trial in result.trials
    ]
    write_csv(folder / _RESULTS, ["trial", result.monitor, *keys], rows)
