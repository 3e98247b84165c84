"""From audio files to a store of labelled log-mel patches.

The way of the data: `audio` -> `features` -> `patches` -> `store`. `windows` takes a file along it
as far as its patches; `datasets` and `splits` say which clips there are, and `run` takes all of
them to the store.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["log_mel_patches"]


def log_mel_patches(
    waveform: "npt.NDArray[np.floating]", sample_rate: int, *, hop_seconds: float = 0.96
) -> "npt.NDArray[np.float32]":
    """Log-mel patches of a waveform, exactly as VGGish's front end makes them.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,) or (n_samples, n_channels)]
        Samples in [-1, 1]. Channels are averaged; where they cancel one another, the loudest is
        taken.
    sample_rate : int
        Samples per second; resampled to 16 kHz where it differs.
    hop_seconds : float
        Time from the start of one patch to the start of the next; 0.96 s leaves no overlap.

    Returns
    -------
    np.ndarray [shape=(n_patches, 96, 64), dtype=float32]
        0.96 s patches of 96 frames (10 ms) x 64 mel bands (125-7500 Hz).

    Raises
    ------
    tagger.base.errors.AudioError
        If the waveform is empty or holds NaN or infinity.
    tagger.base.errors.ConfigError
        If `hop_seconds` is not a positive multiple of the 10 ms frame hop.

    Warns
    -----
    preprocess.signal.features.ShortClipWarning
        If the clip is shorter than a patch and was padded with zeros to one.
    """
    from preprocess.signal.audio import prepare_waveform
    from preprocess.signal.features import FRONT_ENDS

    front_end = FRONT_ENDS.create("vggish", {"hop_seconds": hop_seconds})
    prepared = prepare_waveform(waveform, sample_rate, target_rate=front_end.sample_rate)
    return front_end.windows(prepared)["log_mel"]
