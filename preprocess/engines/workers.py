"""Run one function over many clips in parallel processes, whatever happens to a process."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tagger.base.log import silence_libraries

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

# Enough tasks under way to keep workers busy, few enough to keep memory constant.
_TASKS_PER_WORKER = 4
_CHUNK = 8
_WATCH_SECONDS = 1.0
_KEPT_BYTES = str(1 << 30)
_WORKER_ENVIRONMENT = {
    # Workers compute on one thread each: n processes with n threads each get in one another's way.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc would give the memory of each clip's arrays back to the system and take it anew for the
    # next clip, page by page: a fifth of all time. Other C libraries ignore these.
    "MALLOC_MMAP_THRESHOLD_": _KEPT_BYTES,
    "MALLOC_TRIM_THRESHOLD_": _KEPT_BYTES,
}


class WorkerDied:
    """Result of an item at which a worker process ended, e.g. for lack of memory."""


def _apply(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [function(item) for item in items]


@contextlib.contextmanager
def worker_environment() -> Iterator[None]:
    """Give processes that are started meanwhile the environment in which workers compute.

    It is read when a process starts and when NumPy is imported.
    """
    before = {name: os.environ.get(name) for name in _WORKER_ENVIRONMENT}
    os.environ.update(_WORKER_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when the parent has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence_libraries()

    def watch() -> None:
        # A parent that was killed tells nobody: its workers would wait for work for ever.
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _new_pool(n_workers: int) -> "ProcessPoolExecutor":
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(
        n_workers,
        # Not fork: TensorFlow or a progress bar may hold threads, whose locks a fork would freeze.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(os.getpid(),),
    )


def _wake() -> None:
    """Do nothing, in a worker that has to start for it."""


# Workers that have been started for the next call of `map_in_processes`.
_ready: dict[int, "ProcessPoolExecutor"] = {}


@contextlib.contextmanager
def workers_ready(n_workers: int) -> Iterator[None]:
    """Start worker processes now, for the next call of `map_in_processes` with as many of them.

    They start while the caller finds out what there is to do. Those that nobody has used end with
    the block.

    Parameters
    ----------
    n_workers : int
        Processes; with one nothing is started.
    """
    if n_workers > 1 and n_workers not in _ready:
        with worker_environment():
            pool = _ready[n_workers] = _new_pool(n_workers)
            for _ in range(n_workers):
                pool.submit(_wake)
    try:
        yield
    finally:
        unused = _ready.pop(n_workers, None)
        if unused is not None:
            unused.shutdown(wait=False, cancel_futures=True)


def _taken_pool(n_workers: int) -> "ProcessPoolExecutor":
    return _ready.pop(n_workers, None) or _new_pool(n_workers)


class _Pool(Generic[ItemT, ResultT]):
    def __init__(self, function: Callable[[ItemT], ResultT], n_workers: int) -> None:
        self.function = function
        self.n_workers = n_workers
        self.suspects: list[ItemT] = []

    def run(
        self, items: Iterable[ItemT], *, chunk: int, in_flight: int
    ) -> Iterator[tuple[ItemT, ResultT]]:
        """Yield results as they come; if the pool breaks, what was under way is in `suspects`."""
        # Who asks for `default_workers` alone should not wait for these.
        from concurrent.futures import FIRST_COMPLETED, wait
        from concurrent.futures.process import BrokenProcessPool

        remaining = iter(items)
        pending: dict[Future[list[ResultT]], list[ItemT]] = {}
        try:
            with worker_environment(), _taken_pool(self.n_workers) as pool:
                try:
                    while True:
                        while len(pending) < in_flight:
                            part = list(islice(remaining, chunk))
                            if not part:
                                break
                            # Noted first: submitting to a pool that broke raises.
                            self.suspects = part
                            pending[pool.submit(_apply, self.function, part)] = part
                            self.suspects = []
                        if not pending:
                            return
                        done, _ = wait(pending, return_when=FIRST_COMPLETED)
                        for future in done:
                            results = future.result()
                            part = pending.pop(future)
                            yield from zip(part, results, strict=True)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        except BrokenProcessPool:
            self.suspects += [item for part in pending.values() for item in part]
            self.suspects += list(remaining)


def default_workers() -> int:
    """Processors that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


def map_in_processes(
    function: Callable[[ItemT], ResultT], items: Sequence[ItemT], *, n_workers: int
) -> Iterator[tuple[ItemT, ResultT | WorkerDied]]:
    """Apply `function` to each item in worker processes.

    Parameters
    ----------
    function : callable
        Picklable; returns failures as values rather than raising.
    items : sequence
        Picklable items.
    n_workers : int
        Processes; with one, or a single item, all happens in this process.

    Yields
    ------
    tuple of (item, result)
        As they finish, in no fixed order. An item at which a process died twice, the second time
        alone, yields `WorkerDied`; the others are not affected.
    """
    if n_workers <= 1 or len(items) <= 1:
        from threadpoolctl import threadpool_limits

        # One thread here as well: on several, matrix products round differently, and a store would
        # depend on how many processes made it.
        with threadpool_limits(limits=1):
            for item in items:
                yield item, function(item)
        return
    remaining = list(items)
    while remaining:
        pool = _Pool[ItemT, ResultT](function, n_workers)
        yield from pool.run(remaining, chunk=_CHUNK, in_flight=_TASKS_PER_WORKER * n_workers)
        remaining = pool.suspects
        if not remaining:
            return
        # Some item kills its worker. One worker with one item at a time finds which.
        finished = 0
        pool = _Pool[ItemT, ResultT](function, 1)
        for item, result in pool.run(remaining, chunk=1, in_flight=1):
            finished += 1
            yield item, result
        if pool.suspects:
            yield remaining[finished], WorkerDied()
            finished += 1
        remaining = remaining[finished:]
