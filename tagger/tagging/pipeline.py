"""Many clips through a network at once: decoding, features and inference overlap.

Reader threads decode clips and compute their windows; each worker thread has an interpreter of its
own and takes windows that wait, of one clip or of several. All of it is native code that leaves
Python's lock, so that threads use all processors without copying anything between processes.
"""

import atexit
import contextlib
import math
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from tagger.base.errors import AudioError, TaggerError
from tagger.scoring.scorer import Outputs, Scorer

if TYPE_CHECKING:
    from preprocess.signal.features import Windows

# Windows that a worker takes at once: as many as it computes in this time, so that the overhead of
# a call does not count, and no more, as activations of heavy networks take memory and a clip's
# windows are better shared among workers.
_BATCH_SECONDS = 0.01
_MAX_BATCH_WINDOWS = 32
# Windows that may wait for each worker, and clips that may be ahead of the one whose turn it is:
# enough that nobody waits, few enough that memory does not depend on the number of clips.
_WAITING_PER_WORKER = 2 * _MAX_BATCH_WINDOWS
_CLIPS_AHEAD_PER_READER = 8
# For what threads have under way when the process ends.
_LAST_SECONDS = 5.0


# Number of a clip, position of its first window in the clip, and windows.
_Share = tuple[int, int, dict[str, npt.NDArray[np.float32]]]


def _length(windows: "Windows") -> int:
    return len(next(iter(windows.values())))


def _join(batch: list[_Share]) -> "Windows":
    first = batch[0][2]
    if len(batch) == 1:
        return first
    return {name: np.concatenate([windows[name] for _, _, windows in batch]) for name in first}


def _batch_size(window_seconds: float) -> int:
    """Power of two: at each new size an interpreter allocates anew."""
    fitting = max(1.0, _BATCH_SECONDS / max(window_seconds, 1e-6))
    return int(min(_MAX_BATCH_WINDOWS, 2 ** math.floor(math.log2(fitting))))


class WorkerPool:
    """Interpreters that wait between calls: a model is loaded once, not once per file.

    Parameters
    ----------
    make : callable
        Makes an interpreter: windows -> outputs.
    """

    def __init__(self, make: Callable[[], Scorer]) -> None:
        self._make = make
        self._idle: list[Scorer] = []
        self._lock = threading.Lock()

    def take(self) -> Scorer:
        """Take an interpreter that waits, or a new one."""
        with self._lock:
            # Made under the lock: several at once would only get in one another's way.
            return self._idle.pop() if self._idle else self._make()

    def give_back(self, worker: Scorer) -> None:
        """Let it wait for the next call."""
        with self._lock:
            self._idle.append(worker)


class _SingleThreadedProducts:
    """Matrix products on one thread each while anybody wants it: there are threads enough.

    On several threads they also round differently, and results would depend on the machine. The
    setting is that of the whole process. Callers overlap in any order, so that each of them cannot
    put back what it found.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_users = 0
        self._limits: Any = None

    def __enter__(self) -> None:
        from threadpoolctl import threadpool_limits

        with self._lock:
            if self._n_users == 0:
                _let_any_thread_limit()
                self._limits = threadpool_limits(limits=1)
            self._n_users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._n_users -= 1
            # Nothing can be imported any more, and nobody computes, when Python itself ends.
            if self._n_users == 0 and not sys.is_finalizing():
                _let_any_thread_limit()
                self._limits.restore_original_limits()
                self._limits = None
                _let_any_thread_limit()


def _let_any_thread_limit() -> None:
    """Take the limit of OpenBLAS out of the hands of the one thread that has set it before.

    Newer versions of threadpoolctl ignore all other threads without a word.
    """
    from threadpoolctl import OpenBLASController

    release = getattr(OpenBLASController, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)


_single_threaded_products = _SingleThreadedProducts()


class Stream(Protocol):
    """What a reader takes: chunks of windows, then what is known at their end."""

    offset_seconds: float

    def __iter__(self) -> "Iterator[Windows]": ...

    @property
    def seconds(self) -> float:
        """Length of the audio."""

    @property
    def padded(self) -> bool:
        """Whether it was shorter than a window."""

    @property
    def missing(self) -> float:
        """Share of the audio that is missing."""


@dataclass(frozen=True)
class ClipOutputs:
    """Outputs of all windows of a clip.

    Parameters
    ----------
    outputs : dict of str to np.ndarray [shape=(n_windows, n_dimensions), dtype=float32]
        In the order of the windows.
    offset_seconds : float
        Start of the first window within the file.
    seconds : float
        Length of the audio that was read.
    padded : bool
        It was shorter than a window.
    missing : float
        Share of the audio that is not there.
    read_seconds, compute_seconds : float
        What decoding and the front end took, and the model.
    """

    outputs: Outputs
    offset_seconds: float
    seconds: float
    padded: bool
    missing: float = 0.0
    read_seconds: float = 0.0
    compute_seconds: float = 0.0


@dataclass
class _Clip:
    """A clip on its way."""

    n_read: int = 0
    n_done: int = 0
    # Set when all is read.
    stream: Stream | None = None
    error: Exception | None = None
    parts: list[tuple[int, Outputs]] = field(default_factory=list)
    read_seconds: float = 0.0
    compute_seconds: float = 0.0

    @property
    def finished(self) -> bool:
        return self.error is not None or (self.stream is not None and self.n_done == self.n_read)


class Pipeline:
    """Threads that share windows; use `run`.

    Parameters
    ----------
    workers : WorkerPool
        Interpreters.
    outputs : sequence of str
        Names of the outputs that are kept.
    jobs : int
        Reader threads, and worker threads.
    """

    def __init__(
        self,
        workers: "WorkerPool",
        outputs: Sequence[str],
        *,
        jobs: int,
    ) -> None:
        self._workers = workers
        self._outputs = tuple(outputs)
        self._jobs = jobs
        self._changed = threading.Condition()
        self._clips: dict[int, _Clip] = {}
        self._waiting: deque[_Share] = deque()
        self._n_waiting = 0
        self._n_idle = 0
        self._turn = 0
        self._stopped = False
        self._crash: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def run(
        self, names: Sequence[str], open_clip: Callable[[int], Stream]
    ) -> Generator[ClipOutputs | TaggerError, None, None]:
        """Compute the outputs of each clip, in order.

        Parameters
        ----------
        names : sequence of str
            What the clips are called in messages.
        open_clip : callable
            Opens the clip of a number; called in a reader thread.

        Yields
        ------
        ClipOutputs or TaggerError
            What went wrong with one clip stops no other.
        """
        if not names:
            return
        numbers = iter(range(len(names)))
        with _single_threaded_products:
            _running.add(self)
            try:
                for _ in range(min(self._jobs, len(names))):
                    self._start(self._read, names, open_clip, numbers)
                for _ in range(self._jobs):
                    self._start(self._work)
                for number in range(len(names)):
                    yield self._result(number)
            finally:
                self.stop()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        # Else a generator that nobody closes would keep the process from ending, see below.
        thread = threading.Thread(target=self._guard, args=(target, *arguments), daemon=True)
        thread.start()
        self._threads.append(thread)

    def stop(self, timeout: float | None = None) -> None:
        """End all threads and wait for them, each at most `timeout` seconds."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout)

    def _result(self, number: int) -> ClipOutputs | TaggerError:
        with self._changed:
            self._turn = number
            self._changed.notify_all()
            self._wait(lambda: number in self._clips and self._clips[number].finished)
            if self._crash is not None:
                raise self._crash
            if self._stopped:
                raise RuntimeError("the process is ending")
            clip = self._clips.pop(number)
        if isinstance(clip.error, TaggerError):
            return clip.error
        if clip.error is not None:
            raise clip.error
        assert clip.stream is not None
        parts = [outputs for _, outputs in sorted(clip.parts, key=lambda part: part[0])]
        return ClipOutputs(
            outputs={
                name: np.concatenate([part[name] for part in parts]) for name in self._outputs
            },
            offset_seconds=clip.stream.offset_seconds,
            seconds=clip.stream.seconds,
            padded=clip.stream.padded,
            missing=clip.stream.missing,
            read_seconds=clip.read_seconds,
            compute_seconds=clip.compute_seconds,
        )

    def _wait(self, until: Callable[[], bool]) -> None:
        """Wait with the lock held; in steps, as Ctrl-C is not seen in an endless wait."""
        while not (until() or self._stopped or self._crash is not None):
            self._changed.wait(timeout=1.0)

    def _guard(self, target: Callable[..., None], *arguments: object) -> None:
        try:
            target(*arguments)
        except BaseException as error:
            with self._changed:
                # Others may only follow from the first.
                self._crash = self._crash or error
                self._changed.notify_all()

    def _read(
        self, names: Sequence[str], open_clip: Callable[[int], Stream], numbers: Iterator[int]
    ) -> None:
        ahead = _CLIPS_AHEAD_PER_READER * self._jobs
        while True:
            with self._changed:
                number = next(numbers, None)
                if number is None:
                    return
                self._wait(lambda n=number: n <= self._turn + ahead)  # type: ignore[misc]
                if self._stopped or self._crash is not None:
                    return
                clip = self._clips[number] = _Clip()
            started = time.perf_counter()
            try:
                stream = open_clip(number)
                for windows in stream:
                    clip.read_seconds += time.perf_counter() - started
                    if not self._offer(number, clip, windows):
                        return
                    # What it had to wait for is not its own.
                    started = time.perf_counter()
                error: Exception | None = None
            except TaggerError as caught:
                error = caught
            except OSError as caught:
                # It went away, or its disk did, while it was read.
                error = AudioError(
                    f"{names[number]}: cannot be read ({caught.strerror or caught}); check the "
                    "file and its disk"
                )
            except MemoryError:
                error = AudioError(
                    f"{names[number]}: not enough memory to decode it; give fewer jobs, or split "
                    "the file"
                )
            with self._changed:
                clip.error = error
                clip.stream = None if error is not None else stream
                self._changed.notify_all()

    def _offer(self, number: int, clip: _Clip, windows: "Windows") -> bool:
        n_windows = _length(windows)
        most = _WAITING_PER_WORKER * self._jobs
        with self._changed:
            # Workers take windows whosever turn it is, so that there is room again in any case.
            self._wait(lambda: self._n_waiting < most)
            if self._stopped or self._crash is not None:
                return False
            self._waiting.append((number, clip.n_read, windows))
            clip.n_read += n_windows
            self._n_waiting += n_windows
            self._changed.notify_all()
        return True

    def _work(self) -> None:
        worker = None
        most = 1
        while True:
            with self._changed:
                self._n_idle += 1
                self._wait(lambda: bool(self._waiting))
                if self._stopped or self._crash is not None:
                    break
                batch = self._take(most)
                self._n_idle -= 1
            if worker is None:
                # Not before there is work: a single short clip needs one interpreter only.
                worker = self._workers.take()
            joined = _join(batch)
            started = time.perf_counter()
            outputs = worker(joined)
            each_seconds = (time.perf_counter() - started) / _length(joined)
            most = _batch_size(each_seconds)
            self._hand_out(batch, outputs, each_seconds)
        # One that has failed is in no known state and is not used again.
        if worker is not None:
            self._workers.give_back(worker)

    def _hand_out(self, batch: "list[_Share]", outputs: Outputs, each_seconds: float) -> None:
        with self._changed:
            start = 0
            for number, position, windows in batch:
                end = start + _length(windows)
                clip = self._clips.get(number)
                if clip is not None:
                    # Copied: a slice would keep the outputs of the whole batch alive.
                    part = {name: outputs[name][start:end].copy() for name in self._outputs}
                    clip.parts.append((position, part))
                    clip.n_done += end - start
                    clip.compute_seconds += each_seconds * (end - start)
                start = end
            self._changed.notify_all()

    def _take(self, most: int) -> "list[_Share]":
        """Take this worker's share of the windows that wait, at most so many."""
        wanted = min(most, -(-self._n_waiting // max(1, self._n_idle)))
        batch = []
        while wanted > 0 and self._waiting:
            number, position, windows = self._waiting.popleft()
            n_windows = _length(windows)
            if n_windows > wanted:
                rest = {name: array[wanted:] for name, array in windows.items()}
                self._waiting.appendleft((number, position + wanted, rest))
                windows = {name: array[:wanted] for name, array in windows.items()}
                n_windows = wanted
            batch.append((number, position, windows))
            self._n_waiting -= n_windows
            wanted -= n_windows
        return batch


# Threads that still run when Python ends might crash it, and threads that Python waits for would
# never end where a generator is kept half way, e.g. in a global variable.
_running: "weakref.WeakSet[Pipeline]" = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for pipeline in list(_running):
        with contextlib.suppress(Exception):
            pipeline.stop(_LAST_SECONDS)
