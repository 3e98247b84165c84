"""What front ends of short-time spectra share: samples that arrive in blocks, as chunks of frames.

Chunks are counted from the start of the waveform, so that the same frames go into the same matrix
products however the samples arrive: a stream gives bit for bit what one piece gives.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

# Frames transformed at once: their spectra stay in the processor's cache, which is twice as fast as
# whole files at a time, and memory does not grow with the length of the file.
CHUNK_FRAMES = 256


def periodic_hann(length: int) -> npt.NDArray[np.float64]:
    """Hann window whose period is its length [shape=(length,)], as spectra want it."""
    phase = 2 * np.pi / length * np.arange(length, dtype=np.float64)
    return 0.5 - 0.5 * np.cos(phase)


def frame_chunks(
    blocks: Iterable[Samples], *, frame_samples: int, hop_samples: int
) -> Iterator[Samples]:
    """Cut samples into overlapping frames, `CHUNK_FRAMES` at a time.

    Parameters
    ----------
    blocks : iterable of np.ndarray [shape=(n_samples,), dtype=float32]
        Consecutive samples, in blocks of any size.
    frame_samples, hop_samples : int
        Length of a frame and distance between the starts of two, in samples.

    Yields
    ------
    np.ndarray [shape=(n_frames, frame_samples), dtype=float32]
        Frames that lie wholly inside the waveform, a read-only view; `CHUNK_FRAMES` of them in
        every chunk but the last, which holds at least one.
    """
    step = CHUNK_FRAMES * hop_samples
    # With a hop longer than a frame, the samples between two chunks belong to none.
    needed = max(step, step - hop_samples + frame_samples)
    waiting: list[Samples] = []
    n_waiting = 0
    for block in blocks:
        waiting.append(np.ascontiguousarray(block, dtype=np.float32))
        n_waiting += len(block)
        if n_waiting < needed:
            continue
        # A waveform in one piece is not copied.
        samples = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
        start = 0
        while len(samples) - start >= needed:
            yield _frames(samples[start : start + needed], frame_samples, hop_samples)[
                :CHUNK_FRAMES
            ]
            start += step
        waiting = [samples[start:]]
        n_waiting = len(samples) - start
    if n_waiting >= frame_samples:
        yield _frames(np.concatenate(waiting), frame_samples, hop_samples)


def _frames(samples: Samples, frame_samples: int, hop_samples: int) -> Samples:
    return np.lib.stride_tricks.sliding_window_view(samples, frame_samples)[::hop_samples]


def reflected(blocks: Iterable[Samples], *, margin: int) -> Iterator[Samples]:
    """Continue a waveform at both ends by its mirror image, without repeating the end itself.

    Parameters
    ----------
    blocks : iterable of np.ndarray [shape=(n_samples,), dtype=float32]
        Consecutive samples, in blocks of any size; at least one sample in all.
    margin : int
        Samples to add at each end. Of a waveform that is no longer than that, the mirror image is
        mirrored again, and a single sample repeated.

    Yields
    ------
    np.ndarray [shape=(n_samples,), dtype=float32]
        Consecutive samples of the longer waveform: those of ``numpy.pad(waveform, margin,
        mode="reflect")``.
    """
    held: list[Samples] = []
    n_held = 0
    # Once the start is given out, the last samples, which the end mirrors.
    tail: Samples | None = None
    for block in blocks:
        if tail is not None:
            yield block
            tail = np.concatenate([tail, block[-margin - 1 :]])[-margin - 1 :]
            continue
        held.append(block)
        n_held += len(block)
        if n_held > margin:
            start = held[0] if len(held) == 1 else np.concatenate(held)
            yield start[margin:0:-1]
            yield start
            tail = start[-margin - 1 :].copy()
            held = []
    if tail is not None:
        yield tail[-2::-1]
    else:
        yield np.pad(np.concatenate(held), margin, mode="reflect")


def complex_spectra(
    chunks: Iterable[Samples], window: npt.NDArray[np.float64], *, n_fft: int
) -> Iterator[npt.NDArray[np.complex64]]:
    """Fourier transform frames, weighted by a window and padded with zeros to `n_fft`.

    The transform alone is in float64: in float32 its rounding reaches 2.6e-4 in the log-mel of the
    silent bands beside a pure tone. Everything after it can be float32.

    Parameters
    ----------
    chunks : iterable of np.ndarray [shape=(n_frames, frame_samples), dtype=float32]
        At most `CHUNK_FRAMES` frames each.
    window : np.ndarray [shape=(frame_samples,), dtype=float64]
        Weight of each sample of a frame.
    n_fft : int
        Length of the transform; at least `frame_samples`.

    Yields
    ------
    np.ndarray [shape=(n_frames, n_fft // 2 + 1), dtype=complex64]
        Spectra of a chunk.
    """
    # Padded here, for numpy would pad frame by frame, which takes as long as half of the transform.
    padded = np.zeros((CHUNK_FRAMES, n_fft))
    spectra = np.empty((CHUNK_FRAMES, n_fft // 2 + 1), dtype=np.complex128)
    for frames in chunks:
        count = len(frames)
        np.multiply(frames, window, out=padded[:count, : len(window)])
        np.fft.rfft(padded[:count], axis=1, out=spectra[:count])
        with np.errstate(over="ignore"):
            rounded = spectra[:count].astype(np.complex64)
        yield rounded
