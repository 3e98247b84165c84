"""Promises of the threads of prediction: order, bounds, errors and ends, whatever the timing."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tagger.base.errors import AudioError, ModelError
from tagger.tagging import pipeline
from tagger.tagging.pipeline import Pipeline, WorkerPool

ROOT = Path(__file__).parents[2]
# Long enough for a slow machine; nothing here takes a second.
PATIENCE_SECONDS = 60


class Clip:
    """Windows of one number each, in chunks."""

    offset_seconds = 1.5
    padded = False
    missing = 0.0

    def __init__(self, n_windows=3, *, start=0, chunk=2, delay=0.0, error=None):
        self.values = np.arange(start, start + n_windows, dtype=np.float32).reshape(-1, 1)
        self.chunk, self.delay, self.error = chunk, delay, error
        self.seconds = 0.5 * n_windows

    def __iter__(self):
        for start in range(0, len(self.values), self.chunk):
            time.sleep(self.delay)
            yield {"x": self.values[start : start + self.chunk]}
        if self.error is not None:
            raise self.error


def double(windows):
    return {"y": 2 * windows["x"], "unused": windows["x"]}


def pool(worker=double):
    return WorkerPool(lambda: worker)


def start(clips, *, jobs=2, workers=None):
    names = [f"clip {number}" for number in range(len(clips))]
    return Pipeline(workers or pool(), ["y"], jobs=jobs).run(names, clips.__getitem__)


def new_threads(before):
    return [thread for thread in threading.enumerate() if thread not in before]


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    before = threading.enumerate()
    yield
    assert not new_threads(before)


def within_patience(function):
    """Result of a function that must not hang."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive(), "hangs"
    (result,) = results
    return result


# Results


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_results_come_in_the_order_of_the_inputs_whatever_takes_how_long(jobs):
    delays = [0.05, 0, 0.02, 0, 0, 0.03, 0, 0.01]
    clips = [Clip(5, start=100 * n, delay=delay) for n, delay in enumerate(delays)]
    results = list(start(clips, jobs=jobs))
    assert [float(found.outputs["y"][0, 0]) for found in results] == [200 * n for n in range(8)]


def test_a_result_holds_each_window_once_and_what_is_known_of_the_clip():
    (found,) = start([Clip(201, chunk=7)])
    np.testing.assert_array_equal(found.outputs["y"], 2 * np.arange(201).reshape(-1, 1))
    assert (found.offset_seconds, found.seconds, found.padded) == (1.5, 100.5, False)
    assert list(found.outputs) == ["y"]


def test_no_clips_give_no_results_and_start_nothing(monkeypatch):
    def refuse(*_):
        raise AssertionError("started")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert list(start([], workers=WorkerPool(refuse))) == []


def test_a_worker_gets_no_more_windows_at_once_than_fit():
    sizes = []

    def worker(windows):
        sizes.append(len(windows["x"]))
        return double(windows)

    list(start([Clip(1000, chunk=256), Clip(5)], workers=pool(worker)))
    assert sum(sizes) == 1005
    assert max(sizes) <= pipeline._MAX_BATCH_WINDOWS


def test_windows_of_several_clips_share_a_batch():
    sizes = []

    def worker(windows):
        sizes.append(len(windows["x"]))
        time.sleep(0.005 if len(sizes) == 1 else 0)
        return double(windows)

    list(start([Clip(1) for _ in range(100)], jobs=4, workers=pool(worker)))
    assert len(sizes) < 100


# Bounds


@pytest.mark.parametrize(("n_clips", "n_windows"), [(1, 6000), (60, 100)])
@pytest.mark.parametrize("jobs", [1, 3])
def test_windows_that_wait_are_bounded_however_long_a_clip_is(n_clips, n_windows, jobs):
    chunk, lock, most = 16, threading.Lock(), 0
    n_made = n_computed = 0

    class Counted(Clip):
        def __iter__(self):
            nonlocal n_made, most
            for windows in super().__iter__():
                with lock:
                    n_made += len(windows["x"])
                    most = max(most, n_made - n_computed)
                yield windows

    def worker(windows):
        nonlocal n_computed
        time.sleep(0.0005)
        with lock:
            n_computed += len(windows["x"])
        return double(windows)

    clips = [Counted(n_windows, chunk=chunk) for _ in range(n_clips)]
    results = list(start(clips, jobs=jobs, workers=pool(worker)))
    assert sum(len(found.outputs["y"]) for found in results) == n_clips * n_windows
    waiting = pipeline._WAITING_PER_WORKER * jobs + chunk
    in_hands = jobs * (chunk + pipeline._MAX_BATCH_WINDOWS)
    assert most <= waiting + in_hands


def test_clips_ahead_of_a_slow_consumer_are_bounded():
    opened = []
    clips = [Clip() for _ in range(200)]

    def open_clip(number):
        opened.append(number)
        return clips[number]

    results = Pipeline(pool(), ["y"], jobs=2).run(["clip"] * 200, open_clip)
    next(results)
    time.sleep(0.3)
    ahead = 2 * pipeline._CLIPS_AHEAD_PER_READER
    assert len(opened) == 1 + ahead
    assert sum(1 for _ in results) == 199


def test_interpreters_are_made_once_for_all_calls():
    made = []

    def make():
        made.append(None)
        return double

    workers = WorkerPool(make)
    for _ in range(6):
        list(start([Clip(50) for _ in range(10)], jobs=2, workers=workers))
    assert 1 <= len(made) <= 2


def test_a_single_short_clip_needs_a_single_interpreter():
    made = []

    def make():
        made.append(None)
        return double

    workers = WorkerPool(make)
    for _ in range(5):
        list(start([Clip(1)], jobs=8, workers=workers))
    assert len(made) == 1


# Errors


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("n_windows", [0, 7, 500])
def test_the_error_of_a_clip_comes_in_its_place_and_stops_no_other(jobs, n_windows):
    clips = [Clip(4, start=n) for n in range(12)]
    clips[5] = Clip(n_windows, error=AudioError("clip 5: torn"))
    results = list(start(clips, jobs=jobs))
    assert str(results.pop(5)) == "clip 5: torn"
    assert [len(found.outputs["y"]) for found in results] == [4] * 11


def test_a_clip_that_cannot_be_opened_stops_no_other():
    def open_clip(number):
        if number == 1:
            raise AudioError("no such file")
        return Clip()

    results = list(Pipeline(pool(), ["y"], jobs=2).run(["a", "b", "c"], open_clip))
    assert [isinstance(found, AudioError) for found in results] == [False, True, False]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(5, "Input/output error"), "clip 1: cannot be read (Input/output error); check"),
        (FileNotFoundError(2, "No such file"), "clip 1: cannot be read (No such file); check"),
        (MemoryError(), "clip 1: not enough memory to decode it; give fewer jobs"),
    ],
)
def test_a_failing_disk_or_lack_of_memory_is_the_error_of_one_clip(error, message):
    good, bad, other = start([Clip(), Clip(error=error), Clip()])
    assert isinstance(bad, AudioError) and str(bad).startswith(message)
    assert len(good.outputs["y"]) == len(other.outputs["y"]) == 3


@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.parametrize("where", ["worker", "reader", "interpreter"])
def test_a_thread_that_crashes_ends_the_run_with_its_exception(jobs, where):
    def crash(*_):
        raise ZeroDivisionError(where)

    clips = [Clip(100) for _ in range(30)]
    workers = {"worker": pool(crash), "interpreter": WorkerPool(crash)}.get(where, pool())
    if where == "reader":
        clips[10] = Clip(error=ZeroDivisionError(where))

    def run():
        with pytest.raises(ZeroDivisionError, match=where):
            list(start(clips, jobs=jobs, workers=workers))
        return True

    assert within_patience(run)


def test_a_model_that_cannot_be_loaded_is_told_as_such():
    def make():
        raise ModelError("model.tflite: damaged")

    with pytest.raises(ModelError, match="damaged"):
        list(start([Clip()], workers=WorkerPool(make)))


def test_an_interpreter_that_failed_is_not_used_again():
    made = []

    def make():
        made.append(None)
        failing = len(made) == 1

        def worker(windows):
            if failing:
                raise RuntimeError("out of order")
            return double(windows)

        return worker

    workers = WorkerPool(make)
    with pytest.raises(RuntimeError, match="out of order"):
        list(start([Clip()], jobs=1, workers=workers))
    (found,) = start([Clip()], jobs=1, workers=workers)
    assert len(found.outputs["y"]) == 3


def test_threads_that_cannot_be_started_end_those_that_were(monkeypatch):
    before, start_thread, n_started = threading.enumerate(), threading.Thread.start, 0

    def limited(thread):
        nonlocal n_started
        n_started += 1
        if n_started == 4:
            raise RuntimeError("can't start new thread")
        start_thread(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(start([Clip() for _ in range(50)], jobs=4))
    assert not new_threads(before)


# Ends


@pytest.mark.parametrize("n_taken", [0, 1, 5])
def test_a_run_that_is_closed_half_way_ends_its_threads(n_taken):
    before = threading.enumerate()
    results = start([Clip(400) for _ in range(40)], jobs=3)
    for _ in range(n_taken):
        next(results)
    results.close()
    assert not new_threads(before)


def test_an_exception_of_the_consumer_ends_the_threads():
    before = threading.enumerate()

    def consume():
        for _ in start([Clip(100) for _ in range(40)]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert not new_threads(before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals of POSIX")
def test_ctrl_c_while_the_consumer_waits_ends_the_run():
    before = threading.enumerate()
    results = start([Clip(10_000, chunk=1, delay=0.01)])
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(results)
    timer.join()
    assert not new_threads(before)


KEPT = """
import sys
import numpy as np
from tagger.tagging.pipeline import Pipeline, WorkerPool

class Clip:
    offset_seconds = seconds = 0.0
    padded = False
    missing = 0.0
    def __iter__(self):
        for _ in range(50):
            yield {"x": np.zeros((1, 1), np.float32)}

pool = WorkerPool(lambda: lambda windows: {"y": windows["x"]})
kept = Pipeline(pool, ["y"], jobs=3).run(["clip"] * 500, lambda number: Clip())
next(kept)
print("end")
"""


def test_a_process_ends_although_a_run_is_kept_half_way():
    done = subprocess.run(
        [sys.executable, "-c", KEPT],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_runs_that_overlap_leave_the_threads_of_matrix_products_as_they_were():
    from threadpoolctl import threadpool_info, threadpool_limits

    def n_threads():
        return [library["num_threads"] for library in threadpool_info()]

    with threadpool_limits(limits=2):
        before = n_threads()
        if 2 not in before:
            pytest.skip("the matrix products of this NumPy have no threads")
        first, second = (start([Clip() for _ in range(50)]) for _ in range(2))
        next(first), next(second)
        assert set(n_threads()) == {1}
        first.close()
        assert set(n_threads()) == {1}
        second.close()
        assert n_threads() == before


def test_matrix_products_have_one_thread_in_a_run_of_any_thread():
    from threadpoolctl import threadpool_info, threadpool_limits

    found = []

    def consume():
        results = start([Clip() for _ in range(50)])
        next(results)
        found.extend(library["num_threads"] for library in threadpool_info())
        results.close()

    # Where the first thread has set limits, those of others may count for nothing.
    with threadpool_limits(limits=2):
        pass
    thread = threading.Thread(target=consume)
    thread.start()
    thread.join()
    assert set(found) == {1}


# Deadlocks


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    jobs=st.integers(1, 4),
    clips=st.lists(
        st.tuples(st.integers(1, 400), st.sampled_from([1, 2, 31, 300]), st.booleans()),
        max_size=30,
    ),
    slow=st.sampled_from(["nobody", "reader", "worker", "consumer"]),
)
def test_no_configuration_hangs_or_mixes_clips_up(jobs, clips, slow):
    def worker(windows):
        time.sleep(0.001 if slow == "worker" else 0)
        return double(windows)

    streams = [
        Clip(
            n_windows,
            start=1000 * number,
            chunk=chunk,
            delay=0.0002 if slow == "reader" else 0,
            error=AudioError("torn") if torn else None,
        )
        for number, (n_windows, chunk, torn) in enumerate(clips)
    ]

    def run():
        results = []
        for found in start(streams, jobs=jobs, workers=pool(worker)):
            time.sleep(0.001 if slow == "consumer" else 0)
            results.append(found)
        return results

    results = within_patience(run)
    for stream, found in zip(streams, results, strict=True):
        if stream.error is not None:
            assert found is stream.error
        else:
            np.testing.assert_array_equal(found.outputs["y"], 2 * stream.values)
