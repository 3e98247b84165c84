"""Which runs may be started or resumed with a config."""

from pydantic import BaseModel

from tagger.base.errors import ConfigError
from tagger.base.nested import flatten
from tagger.config import MAY_DIFFER, Config
from tagger.runs.folder import RunFolder
from tagger.train.data import PreparedData


def may_differ(section: type[BaseModel] = Config, prefix: str = "") -> frozenset[str]:
    """Dotted keys, of values or of whole sections, that are marked with `MAY_DIFFER`."""
    keys: set[str] = set()
    for name, field in section.model_fields.items():
        kind = field.annotation
        if MAY_DIFFER in field.metadata:
            keys.add(prefix + name)
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            keys |= may_differ(kind, f"{prefix}{name}.")
    return frozenset(keys)


def settings_that_count(config: Config) -> dict[str, object]:
    """Values that decide what is learned, by dotted key."""
    free = may_differ()
    return {
        key: value
        for key, value in flatten(config.to_dict()).items()
        if key not in free and not any(key.startswith(f"{section}.") for section in free)
    }


def open_run(config: Config, *, resume: bool) -> tuple[RunFolder, bool]:
    """Run folder of a config, and whether it goes on from an earlier start.

    Raises
    ------
    ConfigError
        If the run folder is taken, or its run was started with other settings.
    ModelError
        If the run cannot be read, or was trained on windows that this release no longer makes.
    """
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
    ours, theirs = settings_that_count(config), settings_that_count(run.load_config())
    if config.train.final_learning_rate is None and not config.train.phases:
        # With the cosine another number of epochs is another rate at every step.
        theirs["train.epochs"] = ours["train.epochs"]
    different = [
        f"{key}={ours.get(key)!r} (the run has {theirs.get(key)!r})"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    ]
    if different:
        raise ConfigError(
            f"{run.address}: cannot resume with {'; '.join(different[:3])}; "
            f"use --config {run.config}, or start anew in another run.root"
        )
    return run, True


def require_same_data(run: RunFolder, data: PreparedData) -> None:
    """Refuse to go on with other clips: a test clip of before might be a training clip now.

    Raises
    ------
    ConfigError
        If clips, tags or split have changed since the run was started.
    """
    ids = [clip.id for clip in data.store.index.clips]
    split = dict(zip(ids, data.parts.tolist(), strict=True))
    if run.load_vocabulary() != data.vocabulary or run.load_split() != split:
        raise ConfigError(
            f"{run.address}: cannot resume, as the clips, tags or split of its store have changed "
            "since; restore them, or start anew in another run.root"
        )


def number_of_shares(config: Config, run: RunFolder | None, *, n_replicas: int) -> int:
    """Shares that clips and batches are dealt to: as configured, or as a run to resume has them.

    Raises
    ------
    ConfigError
        If they cannot be dealt evenly to so many devices.
    """
    # Runs of earlier releases know of one only.
    wanted = config.stream.shares if run is None else int(run.require().get("n_shares", 1))
    n_shares = wanted or n_replicas
    if n_shares % n_replicas:
        raise ConfigError(
            f"stream.shares={n_shares} cannot be dealt evenly to {n_replicas} "
            "devices; make it a multiple of them, or train on fewer (train.strategy=single)"
        )
    return n_shares
