"""How loud a file is over time, for pictures."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.signal.audio import stream_audio
from tagger.base.errors import AudioError

# As most models hear it: of a lower one cymbals alone would look like silence.
_RATE = 16_000


def envelope(path: Path, *, n_columns: int, seconds: float) -> npt.NDArray[np.float32] | None:
    """Peak of each of many equal stretches of a file, as a share of the highest.

    Parameters
    ----------
    path : Path
        Audio file.
    n_columns : int
        How many stretches.
    seconds : float
        Length of the audio that they cover.

    Returns
    -------
    np.ndarray [shape=(n_columns,), dtype=float32]
        Between 0 and 1. None where the file cannot be read (any more), e.g. for a waveform.
    """
    if not path.name or seconds <= 0:
        return None
    peaks: npt.NDArray[np.float32] = np.zeros(n_columns, dtype=np.float32)
    at = 0
    try:
        for block in stream_audio(path, target_rate=_RATE, most_missing=1.0):
            columns = ((at + np.arange(len(block))) * (n_columns / (_RATE * seconds))).astype(int)
            np.maximum.at(peaks, np.minimum(columns, n_columns - 1), np.abs(block))
            at += len(block)
    except (OSError, AudioError):
        return None
    highest = float(peaks.max())
    return peaks / highest if highest > 0 else peaks
