"""Slice a sequence of feature frames into the windows that a model sees at once."""

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

# What fills the window of a clip that is shorter than one: silence, or the clip again.
Filling = Literal["zeros", "repeat"]


def n_windows(n_frames: int, *, window_frames: int, hop_frames: int, keep_partial: bool) -> int:
    """Count the windows that `slice_windows` makes of `n_frames` frames (at least one)."""
    if n_frames < window_frames:
        return 1
    whole = 1 + (n_frames - window_frames) // hop_frames
    covered = (whole - 1) * hop_frames + window_frames
    # With a hop longer than a window the frames left may lie before the start of the next one.
    left_over = n_frames > max(covered, whole * hop_frames)
    return whole + 1 if keep_partial and left_over else whole


def slice_windows(
    frames: npt.NDArray[np.float32],
    *,
    window_frames: int,
    hop_frames: int,
    keep_partial: bool = False,
    fill: Filling = "zeros",
) -> npt.NDArray[np.float32]:
    """Cut frames into windows.

    Parameters
    ----------
    frames : np.ndarray [shape=(n_frames, n_bands), dtype=float32]
        Feature frames in time order.
    window_frames, hop_frames : int
        Length of a window and distance between the starts of two, in frames.
    keep_partial : bool
        Keep the frames left at the end as one more window, padded with zeros.
    fill : {"zeros", "repeat"}
        Fewer frames than a window give one window: the frames and zeros, or the frames over and
        over. No frames at all give zeros.

    Returns
    -------
    np.ndarray [shape=(n_windows, window_frames, n_bands), dtype=float32]
        Contiguous; without overlap it may share its memory with `frames`.
    """
    if fill == "repeat" and 0 < len(frames) < window_frames:
        frames = frames[np.arange(window_frames) % len(frames)]
    count = n_windows(
        len(frames), window_frames=window_frames, hop_frames=hop_frames, keep_partial=keep_partial
    )
    needed = (count - 1) * hop_frames + window_frames
    if needed > len(frames):
        frames = np.pad(frames, ((0, needed - len(frames)), (0, 0)))
    if hop_frames == window_frames:
        return np.ascontiguousarray(frames[:needed]).reshape(count, window_frames, frames.shape[1])
    view = np.lib.stride_tricks.sliding_window_view(frames, window_frames, axis=0)
    return np.ascontiguousarray(view[::hop_frames][:count].transpose(0, 2, 1))


def slice_stream(
    chunks: Iterable[npt.NDArray[np.float32]],
    *,
    n_bands: int,
    window_frames: int,
    hop_frames: int,
    keep_partial: bool = False,
    fill: Filling = "zeros",
) -> Iterator[npt.NDArray[np.float32]]:
    """Cut frames that arrive in chunks into windows.

    Parameters
    ----------
    chunks : iterable of np.ndarray [shape=(n_frames, n_bands), dtype=float32]
        Consecutive feature frames, in chunks of any size.
    n_bands : int
        Columns of a chunk; needed where there is none.
    window_frames, hop_frames, keep_partial, fill
        As those of `slice_windows`.

    Yields
    ------
    np.ndarray [shape=(n_windows, window_frames, n_bands), dtype=float32]
        At least one window each time, and together those of `slice_windows`. No more frames are
        held than a chunk and a window.
    """
    # The frames from the start of the next window on; that start may lie beyond them.
    frames = np.empty((0, n_bands), dtype=np.float32)
    n_skipped = n_frames = n_given = 0
    for chunk in chunks:
        n_frames += len(chunk)
        skipped = min(n_skipped, len(chunk))
        n_skipped -= skipped
        frames = np.concatenate([frames, chunk[skipped:]])
        if len(frames) < window_frames:
            continue
        windows = slice_windows(frames, window_frames=window_frames, hop_frames=hop_frames)
        yield windows
        n_given += len(windows)
        next_start = len(windows) * hop_frames
        n_skipped = max(0, next_start - len(frames))
        frames = frames[next_start:]
    count = n_windows(
        n_frames, window_frames=window_frames, hop_frames=hop_frames, keep_partial=keep_partial
    )
    if n_given < count:
        # The partial window at the end is filled with zeros; the only window of a clip as asked.
        yield slice_windows(
            frames,
            window_frames=window_frames,
            hop_frames=window_frames,
            fill=fill if n_given == 0 else "zeros",
        )
