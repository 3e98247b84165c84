"""Slice a sequence of feature frames into the windows that a model sees at once."""

import numpy as np
import numpy.typing as npt


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

    Returns
    -------
    np.ndarray [shape=(n_windows, window_frames, n_bands), dtype=float32]
        Contiguous; without overlap it may share its memory with `frames`. Fewer frames than a
        window give one window padded with zeros.
    """
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
