"""What a pipeline on other machines leaves in the store while it runs: its tasks and its results.

Both are folders of small objects, each written whole, as a bucket can hold them. They are gone when
the manifest is written; those that a failed or killed run left are taken over by the next. A
pipeline can outlive the process that launched it and go on beside the next one, so each run has a
token, and folders of that name.
"""

import contextlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from preprocess.store.store import StoredClip, StoreSpec, StoreWriter
from tagger.base.addresses import is_remote
from tagger.base.errors import StoreError
from tagger.base.files import content_hash, write_bytes

FOLDER = "pipeline"
TASKS = f"{FOLDER}/tasks"
RESULTS = f"{FOLDER}/results"
# Reading an object of a bucket is waiting, most of the time.
_READERS = 16
# Files whose text is in memory at once.
_FILES_AT_ONCE = 4 * _READERS

# Columns that number the tags of some clips, and of each its id and what became of it.
_Part = tuple[tuple[str, ...], dict[str, StoredClip | str]]


def new_token() -> str:
    """Make a name for a run; of two runs the later has the later name in alphabetical order."""
    return f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"


def tasks_folder(token: str) -> str:
    """Folder of the tasks of a run, relative to the store."""
    return f"{TASKS}/{token}"


def write_results(
    root: Path,
    outcomes: Mapping[str, StoredClip | str],
    *,
    spec: StoreSpec,
    tags: tuple[str, ...],
    token: str,
) -> None:
    """Keep what became of some clips: entries of the manifest, or messages of failure.

    The name is that of the content: what is written again is written in the same place.

    Parameters
    ----------
    root : Path
        Folder of the store.
    outcomes : mapping of str to StoredClip or str
        By clip id.
    spec : StoreSpec
        How the windows were made.
    tags : tuple of str
        Columns that number the entries' tags.
    token : str
        Of the run.
    """
    lines: list[dict[str, Any]] = [{"spec": asdict(spec), "tags": list(tags)}]
    for clip_id, outcome in outcomes.items():
        if isinstance(outcome, str):
            lines.append({"id": clip_id, "failure": outcome})
        else:
            lines.append({"id": clip_id, "stored": outcome.to_json()})
    content = "".join(json.dumps(line) + "\n" for line in lines).encode("utf-8")
    write_bytes(root / RESULTS / token / f"{content_hash(content)}.jsonl", content)


def read_results(
    root: Path, *, spec: StoreSpec, tags: tuple[str, ...], token: str
) -> tuple[dict[str, StoredClip], dict[str, str]]:
    """Read what became of the clips of a run.

    Parameters
    ----------
    root : Path
        Folder of the store.
    spec : StoreSpec
        How the windows are made.
    tags : tuple of str
        Columns that number the entries' tags.
    token : str
        Of the run; what others tell does not count.

    Returns
    -------
    stored : dict of str to StoredClip
        Entries of the manifest, by clip id.
    failures : dict of str to str
        Messages of failure, by clip id. A clip that was tried several times counts as stored if it
        was stored once: it is there.

    Raises
    ------
    StoreError
        If results are damaged.
    """
    stored, failures = dict[str, StoredClip](), dict[str, str]()
    for their_tags, part in _parts(_paths(root, token), spec):
        if their_tags == tags:
            for clip_id, outcome in part.items():
                if isinstance(outcome, str):
                    failures[clip_id] = outcome
                else:
                    stored[clip_id] = outcome
    for clip_id in stored:
        failures.pop(clip_id, None)
    return stored, failures


def take_results(writer: StoreWriter) -> None:
    """Take over what pipelines that did not end well have stored, and remove what they left.

    Where several tell of a clip, the one that was begun last holds.
    """
    paths = _paths(writer.root, "*")
    if paths:
        writer.take_over(
            (tags, [outcome for outcome in part.values() if isinstance(outcome, StoredClip)])
            for tags, part in _parts(paths, writer.spec)
        )
    remove(writer.root)


def _paths(root: Path, token: str) -> list[Path]:
    folder = root / RESULTS
    return sorted(folder.glob(f"{token}/*.jsonl")) if folder.exists() else []


def _parts(paths: Sequence[Path], spec: StoreSpec) -> Iterator[_Part]:
    """Read what became of some clips, file by file."""
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(paths), _FILES_AT_ONCE):
            some = paths[start : start + _FILES_AT_ONCE]
            contents = readers.map(lambda path: path.read_bytes(), some)
            for path, content in zip(some, contents, strict=True):
                part = _read_part(path, content, spec)
                # Those of other windows come from a pipeline that outlived a store that was
                # deleted.
                if part is not None:
                    yield part


def _read_part(path: Path, content: bytes, spec: StoreSpec) -> _Part | None:
    try:
        header, *lines = (json.loads(line) for line in content.splitlines())
        tags = tuple(header["tags"])
        part = {line["id"]: _outcome(line, range(len(tags))) for line in lines}
        theirs = (header["spec"]["front_end_hash"], header["spec"]["dtype"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}: damaged results ({error}); delete it and run 'tagger preprocess' again"
        ) from None
    return (tags, part) if theirs == (spec.front_end_hash, spec.dtype) else None


def _outcome(line: dict[str, Any], tag_numbers: range) -> StoredClip | str:
    if "failure" in line:
        return str(line["failure"])
    clip = StoredClip.from_json(line["stored"])
    clip.check(tag_numbers)
    return clip


def remove(root: Path) -> None:
    """Remove all that a pipeline has left."""
    folder = root / FOLDER
    if not folder.exists():
        return
    for path in list(folder.glob("*/*/*")):
        path.unlink(missing_ok=True)
    # A bucket has no folders: there they are gone already.
    if not is_remote(root):
        for path in (*folder.glob("*/*"), root / TASKS, root / RESULTS, folder):
            with contextlib.suppress(OSError):
                path.rmdir()
