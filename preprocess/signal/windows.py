"""Windows of a file or a waveform: decoding, resampling and a front end, one after the other."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.clips.audio_files import MOST_MISSING
from preprocess.signal.audio import AudioStream, stream_audio
from preprocess.signal.decoders import Waveform
from preprocess.signal.features import FrontEnd, Windows

# Windows given out at once at most, also by a front end that makes all of them at once.
_CHUNK_WINDOWS = 256


class WindowStream:
    """Windows of a file, chunk by chunk; use `stream_windows`.

    Each iteration decodes the file anew. An iterator that is dropped half way leaves nothing open.

    Attributes
    ----------
    offset_seconds : float
        Where the part that is read starts within the file; 0 for the whole.
    """

    def __init__(self, audio: AudioStream, front_end: FrontEnd) -> None:
        self._audio = audio
        self._front_end = front_end
        self._n_samples: int | None = None
        self.offset_seconds = audio.offset_seconds

    def __iter__(self) -> Generator[Windows, None, None]:
        self._n_samples = None
        n_samples = 0

        def counted(blocks: Iterable[Waveform]) -> Iterator[Waveform]:
            nonlocal n_samples
            for block in blocks:
                n_samples += len(block)
                yield block

        with closing(iter(self._audio)) as blocks:
            for windows in self._front_end.stream(counted(blocks)):
                n_windows = len(next(iter(windows.values())))
                for start in range(0, n_windows, _CHUNK_WINDOWS):
                    end = start + _CHUNK_WINDOWS
                    yield {name: array[start:end] for name, array in windows.items()}
        self._n_samples = n_samples

    @property
    def seconds(self) -> float:
        """Length of the audio that was read; known once the iterator is exhausted."""
        return self._known_samples() / self._front_end.sample_rate

    @property
    def padded(self) -> bool:
        """Whether it was shorter than a window; known once the iterator is exhausted."""
        return self._front_end.is_short(self._known_samples())

    @property
    def missing(self) -> float:
        """Share of the audio that is missing; known once the iterator is exhausted."""
        return self._audio.missing

    def _known_samples(self) -> int:
        if self._n_samples is None:
            raise RuntimeError("the length is known only when all windows have been read")
        return self._n_samples


class HeldWindows:
    """Windows that a file holds which is no audio; otherwise as a `WindowStream`.

    Their length in seconds is that of what they were made of, as far as the front end tells.
    """

    offset_seconds = 0.0
    padded = False
    missing = 0.0

    def __init__(self, windows: Windows, front_end: FrontEnd) -> None:
        self._windows = windows
        n_windows = len(next(iter(windows.values())))
        hop, length = front_end.hop_seconds or 0.0, front_end.window_seconds or 0.0
        self.seconds = (n_windows - 1) * hop + length

    def __iter__(self) -> Iterator[Windows]:
        yield self._windows


def stream_windows(
    path: Path,
    front_end: FrontEnd,
    *,
    middle_seconds: float | None = None,
    most_missing: float = MOST_MISSING,
) -> WindowStream | HeldWindows:
    """Decode a file and compute its windows, block by block, or read those that it holds.

    Memory does not grow with the length of the file where the front end's `stream` keeps it
    constant.

    Parameters
    ----------
    path : Path
        Audio file of any length and sample rate, or one that `holds_windows`.
    front_end : FrontEnd
        What computes the windows.
    middle_seconds : float, optional
        Only so many seconds in the middle of the file are read, and the whole of a shorter one;
        default the whole file.
    most_missing : float
        Share of its audio that may be missing or damaged, from 0 to 1.

    Returns
    -------
    WindowStream
        An iterable of chunks of at least one window; together, bit for bit, the windows of the
        file in one piece.

    Raises
    ------
    AudioError
        If the file cannot be used. What only decoding shows is raised by the iterator.
    """
    if holds_windows(path, front_end):
        return HeldWindows(front_end.windows_in(path, path.stem), front_end)
    audio = stream_audio(
        path,
        target_rate=front_end.sample_rate,
        middle_seconds=middle_seconds,
        most_missing=most_missing,
    )
    return WindowStream(audio, front_end)


def holds_windows(path: Path, front_end: FrontEnd) -> bool:
    """Tell whether a file is no audio but holds windows that the front end reads, by its suffix."""
    return path.suffix.lower() in front_end.suffixes


def windows_of_file(
    path: Path, front_end: FrontEnd, *, clip: str = "", most_missing: float = MOST_MISSING
) -> tuple[Windows, bool]:
    """Decode a file and compute its windows, or read those that it holds.

    Parameters
    ----------
    path : Path
        Audio file, or one that `holds_windows`.
    front_end : FrontEnd
        What computes or reads them.
    clip : str
        Id of the clip, which matters where a file holds windows of many.
    most_missing : float
        Share of its audio that may be missing or damaged, from 0 to 1.

    Returns
    -------
    windows : dict of str to np.ndarray [shape=(n_windows, *input_shapes[name])]
        Features of every window.
    padded : bool
        The clip was shorter than a window and was padded to one.

    Raises
    ------
    AudioError
        If the file cannot be used.
    """
    if holds_windows(path, front_end):
        return front_end.windows_in(path, clip), False
    stream = stream_windows(path, front_end, most_missing=most_missing)
    return _joined(stream), stream.padded


def windows_of_waveform(
    waveform: npt.NDArray[np.float32], front_end: FrontEnd
) -> tuple[Windows, bool]:
    """Compute the windows of a mono waveform at the front end's rate, as `windows_of_file`."""
    return _joined(front_end.stream([waveform])), front_end.is_short(len(waveform))


def _joined(chunks: Iterable[Windows]) -> Windows:
    parts = list(chunks)
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
