"""What a pretrained model says of the windows of clips, kept so that each is heard once."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from tagger.base.cache import cache_folder
from tagger.base.errors import TaggerError
from tagger.base.files import atomic_write, json_hash
from tagger.base.log import progress_bar
from tagger.scoring.scorer import Floats
from tagger.tagging.tagger import Tagger
from tagger.untrusted.npz import read_arrays

MadeT = TypeVar("MadeT")

# An hour of windows of a second, of ten thousand values each.
_MOST_BYTES = 256 << 20


def features_of_clips(
    tagger: Tagger,
    paths: Sequence[Path],
    *,
    outputs: Sequence[str],
    make: Callable[[Mapping[str, Floats]], MadeT],
    title: str = "embed",
) -> tuple[list[MadeT | None], dict[int, TaggerError]]:
    """Make something of each clip from what a model says of its windows.

    What the model says is kept in the cache folder, by model, file, size and time of change.

    Parameters
    ----------
    tagger : Tagger
        The model.
    paths : sequence of Path
        Audio files.
    outputs : sequence of str
        What of the model is asked for.
    make : callable
        Outputs of all windows of a clip, by name -> vector.
    title : str
        Of the progress bar.

    Returns
    -------
    features : list of np.ndarray or None
        In the order of `paths`; None where a file cannot be used.
    failures : dict of int to TaggerError
        Why, by the place in `paths`.
    """
    folder = cache_folder() / "embeddings" / f"{tagger.model.name}-{tagger.model.version}"
    files = [_kept_in(folder, path, outputs) for path in paths]
    features: list[MadeT | None] = [None] * len(paths)
    missing = []
    for place, file in enumerate(files):
        known = None if file is None else _read(file, outputs)
        if known is None:
            missing.append(place)
        else:
            features[place] = make(known)
    failures: dict[int, TaggerError] = {}
    if not missing:
        return features, failures
    answers = tagger.attempt_outputs([paths[place] for place in missing], outputs=tuple(outputs))
    with contextlib.closing(answers), progress_bar(title, len(paths)) as advance:
        advance(len(paths) - len(missing), "")
        for place, (_, found) in zip(missing, answers, strict=True):
            if isinstance(found, TaggerError):
                failures[place] = found
            else:
                said = {name: found.outputs[name] for name in outputs}
                features[place] = make(said)
                _keep(files[place], said)
            advance(1, f"{len(failures)} failed" if failures else "")
    return features, failures


def _kept_in(folder: Path, path: Path, outputs: Sequence[str]) -> Path | None:
    """File that keeps what was said of an audio file; None where that cannot be asked for."""
    try:
        status = path.stat()
        key = [str(path.absolute()), status.st_size, status.st_mtime_ns, list(outputs)]
    except OSError:
        return None
    name = json_hash(key)
    return folder / name[:2] / f"{name}.npz"


def _read(file: Path, outputs: Sequence[str]) -> dict[str, Floats] | None:
    try:
        content = read_arrays(file, most_bytes=_MOST_BYTES)
    except (OSError, ValueError):
        # Not there, or damaged: computed again.
        return None
    return dict(content) if set(content) == set(outputs) else None


def _keep(file: Path | None, said: Mapping[str, Floats]) -> None:
    if file is None:
        return
    # A cache that cannot be written costs time and nothing else.
    with contextlib.suppress(OSError), atomic_write(file, durable=False) as opened:
        np.savez(opened, **said)  # type: ignore[arg-type]
