"""What a pipeline on other machines leaves in the store while it runs: its tasks and its results.

Both are folders of small objects, each written whole, as a bucket can hold them. They are gone when
the manifest is written; those that a failed or killed run left are taken over by the next.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from preprocess.store import StoredClip, StoreSpec, StoreWriter
from tagger.errors import StoreError
from tagger.files import content_hash, write_bytes

FOLDER = "pipeline"
TASKS = f"{FOLDER}/tasks"
RESULTS = f"{FOLDER}/results"
# Reading an object of a bucket is waiting, most of the time.
_READERS = 16


def write_results(
    root: Path,
    outcomes: Mapping[str, StoredClip | str],
    *,
    spec: StoreSpec,
    tags: tuple[str, ...],
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
    """
    lines: list[dict[str, Any]] = [{"spec": asdict(spec), "tags": list(tags)}]
    for clip_id, outcome in outcomes.items():
        if isinstance(outcome, str):
            lines.append({"id": clip_id, "failure": outcome})
        else:
            lines.append({"id": clip_id, "stored": outcome.to_json()})
    content = "".join(json.dumps(line) + "\n" for line in lines).encode("utf-8")
    write_bytes(root / RESULTS / f"{content_hash(content)}.jsonl", content)


def read_results(
    root: Path, *, spec: StoreSpec, tags: tuple[str, ...]
) -> dict[str, StoredClip | str]:
    """Read what became of the clips, by id, told by workers with this `spec` and these `tags`.

    A clip that was tried several times counts as stored if it was stored once: it is there.
    """
    outcomes: dict[str, StoredClip | str] = {}
    for their_tags, part in _parts(root, spec):
        if their_tags == tags:
            for clip_id, outcome in part.items():
                if isinstance(outcome, StoredClip) or clip_id not in outcomes:
                    outcomes[clip_id] = outcome
    return outcomes


def take_results(writer: StoreWriter) -> None:
    """Take over what a pipeline that did not end well has stored, and remove what it left."""
    parts = [
        (tags, [outcome for outcome in part.values() if isinstance(outcome, StoredClip)])
        for tags, part in _parts(writer.root, writer.spec)
    ]
    if parts:
        writer.take_over(parts)
    remove(writer.root)


def _parts(
    root: Path, spec: StoreSpec
) -> Iterator[tuple[tuple[str, ...], dict[str, StoredClip | str]]]:
    folder = root / RESULTS
    if not folder.exists():
        return
    paths = sorted(folder.glob("*.jsonl"))
    with ThreadPoolExecutor(_READERS) as readers:
        for path, content in zip(
            paths, readers.map(lambda path: path.read_bytes(), paths), strict=True
        ):
            try:
                header, *lines = (json.loads(line) for line in content.splitlines())
                tags = tuple(header["tags"])
                part = {line["id"]: _outcome(line, range(len(tags))) for line in lines}
                same = (header["spec"]["front_end_hash"], header["spec"]["dtype"]) == (
                    spec.front_end_hash,
                    spec.dtype,
                )
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise StoreError(
                    f"{path}: damaged results ({error}); delete it and run 'tagger preprocess' "
                    "again"
                ) from None
            # Those of other windows come from a pipeline that outlived a store that was deleted.
            if same:
                yield tags, part


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
    for path in list(folder.glob("*/*")):
        path.unlink(missing_ok=True)
    # A bucket has no folders: there they are gone already.
    for path in (root / TASKS, root / RESULTS, folder):
        with contextlib.suppress(OSError):
            path.rmdir()
