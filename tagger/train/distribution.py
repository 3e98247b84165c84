"""Training on several devices and machines at once, with tf.distribute.

Every device (replica) learns from its own share of each batch, and all take the same step: the sum
of their gradients. The processes of several machines (workers) run the same loop side by side, on
values that are the same for all, so that none waits for a step that another does not take.
"""

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ConfigError, ModelError
from tagger.base.files import json_hash
from tagger.base.log import notice

Strategy = Literal["auto", "single", "mirrored", "multi_worker"]
_ENVIRONMENT = "TF_CONFIG"


class Distribution:
    """Which processes and devices train together.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
        TensorFlow's own; the default one on a single device.
    worker, n_workers : int
        Number of this process, and how many there are.
    """

    def __init__(self, strategy: Any, *, worker: int = 0, n_workers: int = 1) -> None:
        self.strategy = strategy
        self.worker = worker
        self.n_workers = n_workers
        self.n_replicas = int(strategy.num_replicas_in_sync)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.worker == 0

    @property
    def replicas(self) -> range:
        """Numbers of the replicas of this process, among those of all."""
        n_here = self.n_replicas // self.n_workers
        return range(self.worker * n_here, (self.worker + 1) * n_here)

    def describe(self) -> str:
        """Say who trains together, for people."""
        if self.n_replicas == 1:
            return ""
        machines = f" of {self.n_workers} machines, this is {self.worker}"
        return f", {self.n_replicas} devices{machines if self.n_workers > 1 else ''}"

    def per_replica(self, of_replica: dict[int, tuple[Any, ...]]) -> tuple[Any, ...]:
        """Per-replica values, one for each place in the tuples of this process's replicas."""
        n_values = len(next(iter(of_replica.values())))
        return tuple(
            self.strategy.experimental_distribute_values_from_function(
                lambda context, item=item: of_replica[self._number(context)][item]
            )
            for item in range(n_values)
        )

    def _number(self, context: Any) -> int:
        # On several machines TensorFlow counts the replicas of all, as we do.
        return int(context.replica_id_in_sync_group) if self.n_replicas > 1 else 0

    @contextlib.contextmanager
    def naming_lost_workers(self) -> Iterator[None]:
        """Turn what TensorFlow raises when another machine has gone into one clear error."""
        from tagger.network.keras import tf

        lost = (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.DeadlineExceededError,
            tf.errors.InternalError,
        )
        try:
            yield
        except lost as error:
            if self.n_workers == 1:
                raise
            raise ModelError(
                f"worker {self.worker} of {self.n_workers}: another one has gone "
                f"({type(error).__name__}); see what it says, and start all of them again with "
                "--resume"
            ) from None

    def require_same(self, **values: int | str) -> None:
        """Refuse to train together with a machine that would train something else.

        Gradients of different networks would be added up, and a machine that takes a step that
        another does not take would wait for ever.

        Parameters
        ----------
        **values
            What must be the same on all machines, by what it is called.

        Raises
        ------
        ModelError
            On all machines, naming what differs.
        """
        if self.n_workers == 1:
            return
        table = np.zeros((self.n_workers, len(values)), dtype=np.int64)
        # 60 bits of a digest, so that the sum of one number and zeros is that number.
        table[self.worker] = [
            int(json_hash(value)[:15], 16) if isinstance(value, str) else value
            for value in values.values()
        ]
        table = self.sum_over_workers(table)
        different = [
            f"{name} ({', '.join(map(str, column)) if isinstance(values[name], int) else 'differ'})"
            for name, column in zip(values, table.T.tolist(), strict=True)
            if len(set(column)) > 1
        ]
        if different:
            raise ModelError(
                f"the {self.n_workers} machines do not begin with the same {', '.join(different)}; "
                "give all of them the same config, store and run folder, where all of them see it"
            )

    def sum(self, values: Any) -> Any:
        """Sum of per-replica values over all replicas of all workers."""
        from tagger.network.keras import tf

        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    def sum_over_workers(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Sum of an array of each worker; returns when all workers have come here."""
        from tagger.network.keras import tf

        if self.n_workers == 1:
            return array
        # Each worker's array is counted once, whatever its number of devices.
        first = self.replicas[0]
        (values,) = self.per_replica(
            {
                replica: (tf.constant(array if replica == first else np.zeros_like(array)),)
                for replica in self.replicas
            }
        )
        total: npt.NDArray[Any] = self.sum(values).numpy()
        return total

    def wait_for_all(self) -> None:
        """Return when all workers have come here."""
        self.sum_over_workers(np.zeros(1, dtype=np.float32))


def synchronize_normalization(network: Any) -> None:
    """Make every batch normalisation of a network see the whole batch.

    With the statistics of each device's share alone the outcome would depend on how many there are.

    Parameters
    ----------
    network : keras.Model
        Built in the strategy's scope, and not called since.
    """
    from tagger.network.keras import keras

    for layer in network.submodules:
        # Asked of every such layer, not where each is made: no backbone can forget it.
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
            # The fused kernel knows its own device only.
            layer.fused = False


def find_distribution(wanted: Strategy) -> Distribution:
    """Join the processes and devices that train together.

    Parameters
    ----------
    wanted : str
        ``"single"``: one device. ``"mirrored"``: all GPUs of this machine (all logical processors
        where it has none). ``"multi_worker"``: those of all machines that the environment variable
        ``TF_CONFIG`` lists, one process on each. ``"auto"``: several machines where ``TF_CONFIG``
        lists them, else all GPUs.

    Returns
    -------
    Distribution

    Raises
    ------
    ConfigError
        If ``TF_CONFIG`` is missing or makes no sense, or TensorFlow was used before.
    """
    # Before TensorFlow is imported: it reads the variable as well, with less to say about it.
    worker, n_workers = read_cluster(os.environ.get(_ENVIRONMENT))

    from tagger.network.keras import silent_start, tf

    if wanted == "multi_worker" and n_workers == 1:
        raise ConfigError(
            f"train.strategy=multi_worker: the environment variable {_ENVIRONMENT} lists no other "
            "worker; set it on every machine, or use train.strategy=auto"
        )
    if wanted == "multi_worker" or (wanted == "auto" and n_workers > 1):
        notice(f"worker {worker} of {n_workers}: waiting for the others")
        try:
            with _ended_by_signals(), silent_start():
                strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except RuntimeError:
            raise ConfigError(
                "train.strategy=multi_worker: TensorFlow was in use before the training began; "
                "train in a process of its own"
            ) from None
        except (tf.errors.OpError, ValueError, TypeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ConfigError(
                f"the machines of {_ENVIRONMENT} cannot be joined ({reason}); check the addresses, "
                "and that no earlier process still uses this one's port"
            ) from None
        return Distribution(strategy, worker=worker, n_workers=n_workers)
    gpus = tf.config.list_logical_devices("GPU")
    if wanted == "mirrored" or (wanted == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        return Distribution(tf.distribute.MirroredStrategy([device.name for device in devices]))
    return Distribution(tf.distribute.get_strategy())


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let a signal end the process at once.

    Python's own handlers run between its instructions, and so not while TensorFlow waits.
    """
    previous: dict[int, Any] = {}
    # Signals are handled by the main thread; whoever runs us in another one sees to them.
    with contextlib.suppress(ValueError):
        for caught in (signal.SIGINT, signal.SIGTERM):
            previous[caught] = signal.signal(caught, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def read_cluster(text: str | None) -> tuple[int, int]:
    """Find the number of this worker and of all workers in the text of ``TF_CONFIG``.

    Raises
    ------
    ConfigError
        If the text is not what TensorFlow expects.
    """
    if not text:
        return 0, 1
    try:
        content = json.loads(text)
        cluster, task = content["cluster"], content["task"]
        chiefs, workers = cluster.get("chief", []), cluster.get("worker", [])
        for address in [*_list_of(chiefs), *_list_of(workers)]:
            if not re.fullmatch(r"\S+:\d+", str(address)):
                raise ValueError(f"{address!r} is not HOST:PORT")
        # TensorFlow counts a chief, where there is one, before the workers.
        n_chiefs, n_workers = len(chiefs), len(workers)
        if n_chiefs > 1:
            raise ValueError("there is more than one chief")
        index = int(task["index"])
        if task["type"] not in ("chief", "worker"):
            raise ValueError(f"a task of type {task['type']!r} does not train")
        number = index if task["type"] == "chief" else n_chiefs + index
        if not 0 <= index < len(cluster[task["type"]]):
            raise ValueError(f"{task['type']} {index} is not in the cluster")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the environment variable {_ENVIRONMENT} makes no sense ({error}); give "
            '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}, '
            "or unset it"
        ) from None
    return number, n_chiefs + n_workers


def _list_of(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value
