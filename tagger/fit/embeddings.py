"""What a pretrained model says of the windows of clips, kept so that each is heard once."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tagger.base.errors import TaggerError
from tagger.base.log import progress_bar
from tagger.scoring.scorer import Floats
from tagger.tagging.kept import Kept
from tagger.tagging.tagger import Tagger

MadeT = TypeVar("MadeT")


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
    features: list[MadeT | None] = [None] * len(paths)
    what = [tagger.model.name, tagger.model.version, list(outputs)]
    failures: dict[int, TaggerError] = {}
    with Kept(what) as kept:
        missing = []
        for place, path in enumerate(paths):
            known = kept.get(path)
            if known is None or set(known) != set(outputs):
                missing.append(place)
            else:
                features[place] = make(known)
        if not missing:
            return features, failures
        answers = tagger.attempt_outputs(
            [paths[place] for place in missing], outputs=tuple(outputs)
        )
        with contextlib.closing(answers), progress_bar(title, len(paths)) as advance:
            advance(len(paths) - len(missing), "")
            for place, (_, found) in zip(missing, answers, strict=True):
                if isinstance(found, TaggerError):
                    failures[place] = found
                else:
                    said = {name: found.outputs[name] for name in outputs}
                    features[place] = make(said)
                    kept.put(paths[place], said)
                advance(1, f"{len(failures)} failed" if failures else "")
    return features, failures
