"""The verb ``preprocess``: every clip of a data set along the way to the store."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from preprocess.clips.audio_files import MOST_MISSING
from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.engines import pipeline_files
from preprocess.engines.workers import WorkerDied, default_workers, map_in_processes
from preprocess.signal.features import FRONT_ENDS, FrontEnd
from preprocess.signal.windows import windows_of_file
from preprocess.store.file_states import FileStates
from preprocess.store.store import (
    StoredClip,
    StoreSpec,
    StoreWriter,
    read_clip,
    smallest_pickle,
    write_clip,
)
from tagger.base.addresses import is_remote
from tagger.base.errors import AudioError, StoreError
from tagger.base.files import json_hash_of_list, write_text
from tagger.base.log import notice, progress_bar

DEAD_LETTERS = "dead_letters.jsonl"
_UNSURE_SECONDS = 60


@dataclass(frozen=True)
class ClipTask:
    """What a worker needs to know of one clip."""

    record: ClipRecord
    label: npt.NDArray[np.uint8]
    # Set where only the label has changed: its windows are taken from the store.
    stored: StoredClip | None = None


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of the run (picklable: workers make their own front end)."""

    audio_root: Path
    store_root: Path
    spec: StoreSpec
    tags: tuple[str, ...]
    most_missing: float = MOST_MISSING
    # Marks what the workers of this run write as theirs.
    token: str = field(default_factory=pipeline_files.new_token)


# A stored clip, or what became of one that could not be used.
Outcome = StoredClip | str | WorkerDied


class Engine(Protocol):
    """What takes the clips along the way: processes of this machine, or a pipeline elsewhere."""

    def __call__(
        self, tasks: Sequence[ClipTask], job: Job, *, n_workers: int
    ) -> Iterator[tuple[ClipTask, Outcome]]:
        """Yield the outcome of each task, in any order."""


@dataclass
class PreprocessResult:
    """Outcome of a run.

    Parameters
    ----------
    n_clips : int
        Clips now in the store.
    n_written, n_relabelled, n_kept : int
        Clips made anew, given a new label only, and found finished.
    failures : dict of str to str
        One line per clip that could not be used, by clip id.
    padded : list of str
        Paths of the clips that were shorter than a window.
    """

    n_clips: int = 0
    n_written: int = 0
    n_relabelled: int = 0
    n_kept: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    padded: list[str] = field(default_factory=list)


@cache
def _front_end(name: str, params_json: str) -> FrontEnd:
    return FRONT_ENDS.create(name, json.loads(params_json))


def front_end_of(spec: dict[str, Any]) -> FrontEnd:
    """Front end that a stored spec describes; one object per process."""
    return _front_end(spec["name"], json.dumps(spec["params"], sort_keys=True))


def process_clip(task: ClipTask, job: Job) -> StoredClip | str:
    """Take one clip along the way; a failure comes back as its message."""
    record = task.record
    path = job.audio_root / record.path
    try:
        if task.stored is not None:
            stored = read_clip(job.store_root, task.stored, job.spec)
            windows, padded, source = stored["windows"], task.stored.padded, task.stored
            size, mtime = source.source_bytes, source.source_mtime_ns
        else:
            before = _state(path)
            windows, padded = windows_of_file(
                path,
                front_end_of(job.spec.front_end),
                clip=record.id,
                most_missing=job.most_missing,
            )
            # An object at an address changes as a whole: what was read is one version or another,
            # and the older state makes the next run look again.
            if not is_remote(path) and (before is None or _state(path) != before):
                return f"{path}: has changed while it was read; run the command again"
            if before is None:
                return f"{path}: cannot be asked for its version now; run the command again"
            size, mtime = before
        written = write_clip(
            job.store_root, record, windows=windows, label=task.label, dtype=job.spec.dtype
        )
    except (AudioError, StoreError) as error:
        return str(error)
    except MemoryError:
        return f"{path}: not enough memory to decode it; split the file"
    except OSError as error:
        return f"{path}: {error.strerror} while it was stored; check disk space and rights"
    return StoredClip(record, source_bytes=size, source_mtime_ns=mtime, padded=padded, **written)


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file; None where it is not there to be asked."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _plan(
    index: ClipIndex, writer: StoreWriter, audio_root: Path, *, verify: bool
) -> tuple[list[ClipTask], int]:
    """List what is left to do and count the clips that are done."""
    tasks, n_kept = list[ClipTask](), 0
    sources, pickles = FileStates(audio_root), FileStates(writer.root)
    unsure = None if is_remote(writer.root) else _unsure_since(writer, pickles)
    for row, record in enumerate(index.clips):
        stored = writer.finished.get(record.id)
        label = index.labels[row]
        # The audio is as it was when the clip was stored, and the pickle is there.
        if (
            stored is None
            or sources.get(record.path) != (stored.source_bytes, stored.source_mtime_ns)
            or (pickle := pickles.get(stored.file)) is None
            or pickle[0] < smallest_pickle(stored, writer.spec)
        ):
            tasks.append(ClipTask(record, label))
            continue
        if verify or (unsure is not None and pickle[1] >= unsure):
            try:
                read_clip(writer.root, stored, writer.spec)
            except StoreError:
                tasks.append(ClipTask(record, label))
                continue
        if stored.tags == tuple(np.flatnonzero(label)) and stored.record == record:
            n_kept += 1
        else:
            tasks.append(ClipTask(record, label, stored))
    return tasks, n_kept


def _unsure_since(writer: StoreWriter, pickles: FileStates) -> int | None:
    """Time of change (ns) from which on a power cut may have taken the content of pickles.

    Systems write within half a minute what nobody forces to the disk; the names come first.
    """
    if not writer.interrupted:
        return None
    states = [pickles.get(clip.file) for clip in writer.finished.values()]
    newest = max((state[1] for state in states if state is not None), default=0)
    return newest - _UNSURE_SECONDS * 1_000_000_000


def run_here(
    tasks: Sequence[ClipTask], job: Job, *, n_workers: int
) -> Iterator[tuple[ClipTask, Outcome]]:
    """Take the clips along the way in processes of this machine; an `Engine`."""
    yield from map_in_processes(partial(process_clip, job=job), tasks, n_workers=n_workers)


def preprocess(
    index: ClipIndex,
    front_end: FrontEnd,
    *,
    audio_root: Path,
    store_root: Path,
    dtype: str = "float16",
    n_workers: int | None = None,
    most_missing: float = MOST_MISSING,
    verify: bool = False,
    engine: Engine = run_here,
) -> PreprocessResult:
    """Store the windows and labels of every clip; only what is missing or changed is done.

    Parameters
    ----------
    index : ClipIndex
        The clips.
    front_end : FrontEnd
        What makes the windows.
    audio_root : Path
        Folder that clip paths are relative to.
    store_root : Path
        Folder of the store.
    dtype : str
        ``"float16"`` or ``"float32"``.
    n_workers : int, optional
        Processes; default one per processor.
    most_missing : float
        Share of a clip's audio that may be missing or damaged, from 0 to 1.
    verify : bool
        Check every stored pickle against its checksum first, and rebuild those that differ.
    engine : Engine
        What takes the clips along the way; default processes of this machine.

    Returns
    -------
    PreprocessResult
        What was done, and one line per clip that could not be used; `DEAD_LETTERS` in the store
        lists these too.

    Raises
    ------
    StoreError
        If the store cannot be written or holds patches made otherwise.
    """
    spec = StoreSpec.of(front_end, dtype)
    writer = StoreWriter(store_root, spec, tags=index.tags)
    result = PreprocessResult()
    try:
        pipeline_files.take_results(writer)
        tasks, result.n_kept = _plan(index, writer, audio_root, verify=verify)
        job = Job(audio_root, store_root, spec, index.tags, most_missing)
        workers = n_workers or default_workers()
        with progress_bar("preprocess", len(index)) as advance:
            advance(result.n_kept, "")
            for task, outcome in engine(tasks, job, n_workers=workers):
                _record(task, outcome, writer=writer, result=result)
                advance(1, f"{len(result.failures)} failed" if result.failures else "")
    except BaseException as error:
        writer.abandon()
        if isinstance(error, KeyboardInterrupt):
            notice(f"interrupted: {len(writer.finished)} clips are kept; run it again to go on")
        raise
    # A clip that was fine once and fails now must not stay in the manifest.
    for clip_id in result.failures:
        writer.finished.pop(clip_id, None)
    _write_dead_letters(store_root / DEAD_LETTERS, index, result.failures)
    writer.close(index)
    pipeline_files.remove(store_root)
    for record in index.clips:
        stored = writer.finished.get(record.id)
        if stored is not None:
            result.n_clips += 1
            if stored.padded:
                result.padded.append(stored.record.path)
    return result


def _write_dead_letters(path: Path, index: ClipIndex, failures: dict[str, str]) -> None:
    """List the clips that could not be used, a line each in the index's order, if there are any."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    letters = [
        {"id": clip.id, "path": clip.path, "message": failures[clip.id]}
        for clip in index.clips
        if clip.id in failures
    ]
    write_text(path, "".join(json.dumps(letter, ensure_ascii=False) + "\n" for letter in letters))


def _record(
    task: ClipTask,
    outcome: Outcome,
    *,
    writer: StoreWriter,
    result: PreprocessResult,
) -> None:
    if isinstance(outcome, StoredClip):
        writer.add(outcome)
        if task.stored is None:
            result.n_written += 1
        else:
            result.n_relabelled += 1
    elif isinstance(outcome, str):
        result.failures[task.record.id] = outcome
    else:
        result.failures[task.record.id] = (
            f"{task.record.path}: its worker process died twice, perhaps for lack of memory; "
            "split the file or remove the clip"
        )


def store_hash(clips: Sequence[StoredClip]) -> str:
    """Digest of the content of a store: ids and checksums, in order."""
    return json_hash_of_list([clip.record.id, clip.checksum] for clip in clips)
