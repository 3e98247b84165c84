"""What a training is computed on: devices and machines, and what they have agreed on."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from preprocess.engines.run import store_hash
from tagger.base.files import json_hash
from tagger.base.log import notice
from tagger.config import Config
from tagger.network.devices import Device, choose_precision, cpu_flags, find_device
from tagger.runs.folder import RunFolder
from tagger.train.data import PreparedData
from tagger.train.distribution import Distribution, find_distribution
from tagger.train.resume import number_of_shares, settings_that_count


@dataclass(frozen=True)
class Machines:
    """The devices that train together, of this machine and of others.

    Parameters
    ----------
    distribution : Distribution
        How they share the work.
    device : Device
        What computes here.
    precision : str
        Keras policy.
    n_shares : int
        Shares that clips and batches are dealt to.
    """

    distribution: Distribution
    device: Device
    precision: str
    n_shares: int


@contextlib.contextmanager
def joined_machines(
    config: Config, data: PreparedData, *, resumed: RunFolder | None
) -> Iterator[Machines]:
    """Find the devices, and meet the other machines where there are some.

    All come here before one of them begins a run: each has looked for it before.

    Parameters
    ----------
    config : Config
        Which devices, precision and shares are wanted.
    data : PreparedData
        Its clips must be the same ones everywhere.
    resumed : RunFolder, optional
        The run that goes on: its precision and shares hold.

    Raises
    ------
    ConfigError
        If they cannot be joined, or clips and batches cannot be dealt to them.
    ModelError
        If another machine would train something else; within the context, if one has gone.
    """
    distribution = find_distribution(config.train.strategy)
    with distribution.naming_lost_workers():
        n_shares = number_of_shares(config, resumed, n_replicas=distribution.n_replicas)
        device = find_device()
        precision = choose_precision(config.train.precision, device, cpu_flags())
        if resumed is not None:
            # On another device "auto" might choose another one in the middle of the run.
            precision = resumed.require()["precision"]
        if distribution.n_workers > 1:
            distribution.require_same(
                resumed=int(resumed is not None),
                shares=n_shares,
                precision=precision,
                settings=json_hash(settings_that_count(config)),
                clips=store_hash(data.store.clips),
                split=json_hash(data.parts.tolist()),
            )
        notice(
            f"device: {device.kind} ({device.description}), precision: {precision}"
            f"{distribution.describe()}"
        )
        yield Machines(distribution, device, precision, n_shares)
