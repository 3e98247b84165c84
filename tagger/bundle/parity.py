"""Does an exported model answer as the Keras network does? Asked with windows of whole clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from preprocess.signal.features import FrontEnd
from tagger.base.errors import ModelError
from tagger.scoring.scorer import SCORES

if TYPE_CHECKING:
    from preprocess.store.store import Store
    from tagger.scoring.scorer import Outputs

# Enough to meet loud, quiet and silent music; few enough to take a second or two.
_N_CLIPS = 8
_MAX_WINDOWS = 64
_DEMO_SECONDS = 8.0


@dataclass(frozen=True)
class ParityWindows:
    """Windows that both models are asked about.

    Parameters
    ----------
    windows : dict of str to np.ndarray [shape=(n_windows, *input_shapes[name])]
        As float32.
    source : str
        Where they come from, for people.
    """

    windows: dict[str, npt.NDArray[np.float32]]
    source: str

    def __len__(self) -> int:
        return len(next(iter(self.windows.values())))


def printable(name: str) -> str:
    """File name as text: a name need not be Unicode, what is written into a bundle must."""
    return name.encode(errors="replace").decode()


def _join(clips: Sequence[dict[str, npt.NDArray[np.floating]]], source: str) -> ParityWindows:
    """Put the clips together; of many windows, equally spaced ones are taken."""
    joined = {
        name: np.concatenate([clip[name] for clip in clips]).astype(np.float32) for name in clips[0]
    }
    n_windows = len(next(iter(joined.values())))
    chosen = np.unique(np.linspace(0, n_windows - 1, min(n_windows, _MAX_WINDOWS)).astype(int))
    return ParityWindows({name: array[chosen] for name, array in joined.items()}, source)


def windows_of_store(store: "Store", rows: Sequence[int]) -> ParityWindows:
    """Windows of some of a store's clips, equally spaced among `rows`.

    Raises
    ------
    StoreError
        If a clip cannot be read.
    """
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _N_CLIPS)).astype(int))
    clips = [store.read(rows[number]) for number in chosen]
    return _join(clips, f"{len(clips)} validation clips of {printable(store.root.name)}")


def windows_of_files(paths: Sequence[Path], front_end: FrontEnd) -> ParityWindows:
    """Windows of audio files.

    Raises
    ------
    AudioError
        If one cannot be used.
    """
    from preprocess.signal.windows import windows_of_file

    clips = [windows_of_file(path, front_end)[0] for path in paths]
    return _join(clips, f"{len(clips)} files such as {printable(paths[0].name)}")


def windows_of_demo(front_end: FrontEnd) -> ParityWindows:
    """Windows of clips synthesised on the spot, where no others are at hand."""
    from preprocess.clips.demo_corpus import SAMPLE_RATE, plan, render
    from preprocess.signal.audio import prepare_waveform
    from preprocess.signal.windows import windows_of_waveform

    clips = []
    for item in plan(16, seed=0)[:_N_CLIPS]:
        waveform = prepare_waveform(
            render(item, _DEMO_SECONDS, seed=0), SAMPLE_RATE, target_rate=front_end.sample_rate
        )
        clips.append(windows_of_waveform(waveform, front_end)[0])
    return _join(clips, f"{len(clips)} synthesised clips")


def largest_difference(reference: "Outputs", exported: "Outputs") -> float:
    """Largest difference of a score; of any embedding's value where there are no scores.

    Raises
    ------
    ModelError
        If the outputs are not the same ones.
    """
    shapes, found = ({n: a.shape for n, a in sorted(o.items())} for o in (reference, exported))
    if shapes != found:
        raise ModelError(
            f"the exported model gives {found} instead of {shapes}; use another --format"
        )
    names = [SCORES] if SCORES in reference else list(reference)
    difference = max(float(np.abs(reference[name] - exported[name]).max()) for name in names)
    # NaN compares as smaller than any limit.
    return difference if np.isfinite(difference) else float("inf")


def embedding_difference(reference: "Outputs", exported: "Outputs") -> float:
    """Largest difference of an embedding's value, as a share of the embedding's largest value."""
    shares = [0.0]
    for name in set(reference) - {SCORES}:
        scale = float(np.abs(reference[name]).max()) or 1.0
        shares.append(float(np.abs(reference[name] - exported[name]).max()) / scale)
    return max(shares) if np.isfinite(shares).all() else float("inf")
