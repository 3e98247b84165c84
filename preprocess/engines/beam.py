"""Preprocessing as an Apache Beam pipeline: the same clips, the same store, any number of machines.

The launching process plans as for a run of its own, writes the tasks into the store in files of a
thousand (a pipeline that held a million clips itself would be refused for its size), and Create
names these files. A reshuffle spreads the tasks over the workers; a worker takes a clip along the
way, writes its pickle, and gives on its entry of the manifest, or, with the tag ``dead_letters``,
what is wrong with it.

The entries come back through the store: every few seconds, and when a bundle ends, a worker keeps
them in a file of results; the launching process reads these when the pipeline is done and writes
the manifest in the index's order. A step of the pipeline that gathered all of them would bring
them to one worker, and would be reached only if nothing had failed before. So the results of a
pipeline that failed, was cancelled or outlived its launching process are there for the next run of
either engine, which does what is left. One that still runs then disturbs nobody: what workers read
and write bears the token of their run. All writes are atomic and a clip gives the same bytes each
time, so it does no harm that Beam may process a clip more than once.
"""

import contextlib
import importlib
import io
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.clips.index import ClipRecord
from preprocess.engines.pipeline_files import read_results, tasks_folder, write_results
from preprocess.engines.run import ClipTask, Job, Outcome, front_end_of, process_clip
from preprocess.store.store import StoredClip
from tagger.base.addresses import is_remote
from tagger.base.errors import ConfigError, StoreError
from tagger.base.extras import install_command
from tagger.base.files import write_bytes
from tagger.base.log import notice


@contextlib.contextmanager
def _quiet(level: int) -> Iterator[None]:
    """Leave out log messages up to `level`, Beam's and those of others."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


# Without its extra gcp, which Dataflow alone needs, Beam warns as it is imported.
with _quiet(logging.WARNING):
    import apache_beam as beam
    from apache_beam.options.pipeline_options import (
        PipelineOptions,
        SetupOptions,
        StandardOptions,
        WorkerOptions,
    )
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
    from apache_beam.runners.runner import PipelineState

DEAD_LETTERS_TAG = "dead_letters"
_TASKS_PER_FILE = 1000
# Between them lies what a killed worker has to do again, and how many small files a store gets.
_RESULTS_PER_FILE = 1000
_FIRST_SECONDS_PER_FILE, _MAX_SECONDS_PER_FILE = 1.0, 10.0
_DIRECT_RUNNERS = {"direct", "directrunner", "switchingdirectrunner", "fnapirunner"}
_DATAFLOW_RUNNERS = {"dataflow", "dataflowrunner"}


@dataclass(frozen=True)
class DeadLetter:
    """A clip that could not be used.

    Parameters
    ----------
    clip_id : str
        Which.
    message : str
        What is wrong with it, and the remedy.
    """

    clip_id: str
    message: str


def write_tasks(root: Path, tasks: Sequence[ClipTask], *, token: str) -> list[str]:
    """Write tasks into a store for the workers of the run with that `token`.

    Returns
    -------
    list of str
        Names of the files, relative to `root`.
    """
    names = []
    for start in range(0, len(tasks), _TASKS_PER_FILE):
        lines = [
            {
                "record": vars(task.record),
                "tags": np.flatnonzero(task.label).tolist(),
                "stored": task.stored and task.stored.to_json(),
            }
            for task in tasks[start : start + _TASKS_PER_FILE]
        ]
        names.append(f"{tasks_folder(token)}/{start // _TASKS_PER_FILE:06d}.jsonl")
        content = "".join(json.dumps(line) + "\n" for line in lines)
        write_bytes(root / names[-1], content.encode("utf-8"))
    return names


def read_tasks(name: str, job: Job) -> Iterator[ClipTask]:
    """Read the tasks of one file of `write_tasks`."""
    for line in (job.store_root / name).read_bytes().splitlines():
        content = json.loads(line)
        label = np.zeros(len(job.tags), dtype=np.uint8)
        label[content["tags"]] = 1
        stored = content["stored"]
        yield ClipTask(
            ClipRecord(**content["record"]),
            label,
            None if stored is None else StoredClip.from_json(stored),
        )


class ProcessClip(beam.DoFn):
    """Take clips along the way: entries of the manifest, and dead letters under their tag.

    Parameters
    ----------
    job : Job
        The run.
    """

    def __init__(self, job: Job) -> None:
        self._job = job

    def setup(self) -> None:
        """Make the front end; compute on one thread, as every worker does."""
        from threadpoolctl import threadpool_limits

        threadpool_limits(limits=1)
        front_end_of(self._job.spec.front_end)

    def process(self, task: ClipTask) -> Iterable[Any]:
        """Take one clip along the way."""
        outcome = process_clip(task, self._job)
        if isinstance(outcome, str) and task.stored is not None:
            # If it has its new label from an earlier attempt, it is no more what `stored` says.
            outcome = process_clip(replace(task, stored=None), self._job)
        if isinstance(outcome, StoredClip):
            yield outcome
        else:
            letter = DeadLetter(task.record.id, outcome)
            yield beam.pvalue.TaggedOutput(DEAD_LETTERS_TAG, letter)


class KeepResults(beam.DoFn):
    """Keep entries and dead letters in the store, many in a file.

    Parameters
    ----------
    job : Job
        The run.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._outcomes: dict[str, StoredClip | str] = {}

    def start_bundle(self) -> None:
        """Begin the first file of a bundle."""
        self._seconds = _FIRST_SECONDS_PER_FILE
        self._begin()

    def _begin(self) -> None:
        # What is left of a bundle that failed is processed again.
        self._outcomes = {}
        self._begun = time.monotonic()

    def process(self, result: StoredClip | DeadLetter) -> None:
        """Keep one result, sooner or later."""
        if isinstance(result, DeadLetter):
            self._outcomes[result.clip_id] = result.message
        else:
            self._outcomes[result.record.id] = result
        full = len(self._outcomes) >= _RESULTS_PER_FILE
        if full or time.monotonic() - self._begun >= self._seconds:
            self.finish_bundle()
            self._begin()
            self._seconds = min(2 * self._seconds, _MAX_SECONDS_PER_FILE)

    def finish_bundle(self) -> None:
        """Write what is not written yet."""
        if self._outcomes:
            job = self._job
            write_results(
                job.store_root, self._outcomes, spec=job.spec, tags=job.tags, token=job.token
            )


def build(pipeline: beam.Pipeline, names: Sequence[str], job: Job) -> None:
    """Put the steps into a pipeline.

    Parameters
    ----------
    pipeline : beam.Pipeline
        An empty one.
    names : sequence of str
        Files of tasks, from `write_tasks`.
    job : Job
        The run.
    """
    results = (
        pipeline
        | "name the tasks" >> beam.Create(list(names))
        | "read the tasks" >> beam.FlatMap(read_tasks, job)
        # Else all clips of a file would stay with the worker that read it.
        | "spread the clips" >> beam.Reshuffle()
        | "process the clips"
        >> beam.ParDo(ProcessClip(job)).with_outputs(DEAD_LETTERS_TAG, main="stored")
    )
    results["stored"] | "keep the entries" >> beam.ParDo(KeepResults(job))
    results[DEAD_LETTERS_TAG] | "keep the dead letters" >> beam.ParDo(KeepResults(job))


def parse_options(arguments: Sequence[str]) -> PipelineOptions:
    """Parse a user's options of the pipeline.

    Parameters
    ----------
    arguments : sequence of str
        As on a command line.

    Returns
    -------
    PipelineOptions
        Their values.

    Raises
    ------
    ConfigError
        If Beam does not know an option or a value, or a runner lacks one. (Beam itself ignores
        options that it does not know.)
    """
    parsers: list[Any] = []
    # Its own way to let others add options: the parser that knows those of all runners.
    PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            _, unknown = parsers[0].parse_known_args(list(arguments))
        except SystemExit:
            reason = said.getvalue().strip().splitlines()[-1].partition("error: ")[2]
            raise ConfigError(f"Beam options: {reason}") from None
    if unknown:
        raise ConfigError(
            f"Beam knows no option {unknown[0]}; the options after -- are those of Beam's "
            "PipelineOptions, e.g. --runner DataflowRunner"
        )
    return PipelineOptions(list(arguments))


def _check_package(options: PipelineOptions) -> None:
    """Refuse Dataflow workers that would start without this package."""
    setup = options.view_as(SetupOptions)
    image = options.view_as(WorkerOptions).sdk_container_image
    if not (setup.setup_file or setup.extra_packages or setup.requirements_file or image):
        raise ConfigError(
            "the machines of the DataflowRunner need this package; make a wheel of it with "
            "'pip wheel --no-deps .' and add --extra_package FILE.whl, or give an image with "
            "--sdk_container_image"
        )


class BeamEngine:
    """Takes clips along the way in a Beam pipeline; an engine of `engines.run.preprocess`.

    It is for one run.

    Parameters
    ----------
    arguments : sequence of str
        Options of the pipeline. Without any, it runs in this process, one clip after another.

    Raises
    ------
    ConfigError
        If the options cannot be used.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self._arguments = list(arguments)
        options = parse_options(self._arguments)
        runner = options.view_as(StandardOptions).runner
        self.is_dataflow = runner is not None and runner.lower() in _DATAFLOW_RUNNERS
        self._elsewhere: beam.Pipeline | None = None
        if runner is not None and runner.lower() not in _DIRECT_RUNNERS:
            try:
                # At once: here Beam looks for what a runner lacks, on Dataflow also for buckets.
                with _quiet(logging.WARNING):
                    self._elsewhere = beam.Pipeline(options=options)
            except (ValueError, RuntimeError, ImportError) as error:
                reason = " ".join(line.strip() for line in str(error).splitlines())
                raise ConfigError(f"Beam options: {reason}") from None

    def pipeline(self) -> beam.Pipeline:
        """Make an empty pipeline with the user's options."""
        if self._elsewhere is not None:
            return self._elsewhere
        options = parse_options(self._arguments)
        # By the name DirectRunner, Beam would first try a runner that it downloads.
        return beam.Pipeline(runner=FnApiRunner(), options=options)

    def __call__(
        self, tasks: Sequence[ClipTask], job: Job, *, n_workers: int
    ) -> Iterator[tuple[ClipTask, Outcome]]:
        """Run the pipeline and yield what became of each task.

        The pipeline's own options say how many workers it has; `n_workers` does not count.

        Raises
        ------
        ConfigError
            If the runner's packages are not installed, or its machines cannot reach the clips or
            the store.
        StoreError
            If the pipeline fails. What it has stored until then is kept for the next run.
        """
        if self.is_dataflow:
            _check_addresses(job)
            _check_package(self.pipeline().options)
        if not tasks:
            return
        if self.is_dataflow and not _has_dataflow():
            raise ConfigError(
                "the DataflowRunner needs more of Apache Beam than is installed; install it with: "
                f"{install_command('dataflow')}"
            )
        names = write_tasks(job.store_root, tasks, token=job.token)
        pipeline = self.pipeline()
        build(pipeline, names, job)
        _run(pipeline, job.store_root)
        stored, failures = read_results(
            job.store_root, spec=job.spec, tags=job.tags, token=job.token
        )
        for task in tasks:
            clip = stored.get(task.record.id)
            outcome: Outcome | None = failures.get(task.record.id)
            if clip is not None and clip.tags == tuple(np.flatnonzero(task.label)):
                outcome = clip
            if outcome is None:
                raise StoreError(
                    f"{job.store_root}: the pipeline ended without a result for clip "
                    f"{task.record.id}; run it again to go on"
                )
            yield task, outcome


def _check_addresses(job: Job) -> None:
    folders = {"store.root": job.store_root, "data.root": job.audio_root}
    local = {name: folder for name, folder in folders.items() if not is_remote(folder)}
    if local:
        found = " and ".join(f"{name}={folder}" for name, folder in local.items())
        raise ConfigError(
            f"the machines of the DataflowRunner cannot reach {found} on this one; give addresses, "
            f"e.g. {next(iter(local))}=gs://BUCKET/FOLDER, or choose another runner"
        )


def _has_dataflow() -> bool:
    try:
        importlib.import_module("google.cloud.dataflow_v1beta3")
    except ImportError:
        return False
    return True


def _run(pipeline: beam.Pipeline, root: Path) -> None:
    from threadpoolctl import threadpool_limits

    result = None
    try:
        # Workers may be threads of this process.
        with threadpool_limits(limits=1), _quiet(logging.ERROR):
            result = pipeline.run()
            if hasattr(result, "job_id"):
                notice(f"Beam job {result.job_id()}")
            state = result.wait_until_finish()
    except KeyboardInterrupt:
        if result is not None:
            result.cancel()
        raise
    except Exception as error:
        raise _failure(root, _last_line(error)) from error
    if state != PipelineState.DONE:
        raise _failure(root, f"it ended as {state}")


def _failure(root: Path, reason: str) -> StoreError:
    remedy = "run it again to go on: clips finished before are kept"
    return StoreError(f"{root}: the Beam pipeline failed: {reason}; {remedy}")


def _last_line(error: Exception) -> str:
    """Say in a line what an exception says; one from a worker ends with what was raised there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
