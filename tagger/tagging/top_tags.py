"""The best tags of a file in one call."""

import functools
from pathlib import Path

from tagger.tagging.tagger import Source, Tagger


@functools.lru_cache(maxsize=4)
def _loaded(model: str) -> Tagger:
    return Tagger.load(model)


def top_tags(
    source: Source,
    sample_rate: int | None = None,
    *,
    n: int = 10,
    model: str | Path | None = None,
) -> list[tuple[str, float]]:
    """Tags with the highest scores; the model is loaded once and kept.

    Parameters
    ----------
    source : str, Path or np.ndarray [shape=(n_samples,) or (n_samples, n_channels)]
        Audio file, or samples in [-1, 1].
    sample_rate : int, optional
        Samples per second of a waveform.
    n : int
        How many.
    model : str or Path, optional
        As of `Tagger.load`.

    Returns
    -------
    list of tuple of (str, float)
        Tag and score, highest first.

    Raises
    ------
    AudioError
        If the file or waveform cannot be used.
    ModelError
        If the model cannot be had.
    """
    from tagger.bundle.find import default_model

    # By its name: what is used by default may have become another one.
    name = default_model() if model is None else str(model)
    best = _loaded(name).predict(source, sample_rate).top(n)
    return [(tag["label"], tag["score"]) for tag in best]
