"""Promises of slicing frames into windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.signal.patches import n_windows, slice_stream, slice_windows

SIZES = {
    "n_frames": st.integers(0, 300),
    "window_frames": st.integers(1, 60),
    "hop_frames": st.integers(1, 90),
    "keep_partial": st.booleans(),
}


def numbered(n_frames):
    # From one: a zero in a window is padding.
    return np.arange(1, 2 * n_frames + 1, dtype=np.float32).reshape(n_frames, 2)


@given(**SIZES)
def test_there_are_as_many_windows_as_counted(n_frames, **sizes):
    windows = slice_windows(numbered(n_frames), **sizes)
    assert windows.shape == (n_windows(n_frames, **sizes), sizes["window_frames"], 2)
    assert windows.dtype == np.float32
    assert windows.flags.c_contiguous


@given(**SIZES)
def test_every_window_is_its_slice_with_zeros_after_the_end(n_frames, **sizes):
    frames = numbered(n_frames)
    for number, window in enumerate(slice_windows(frames, **sizes)):
        start = number * sizes["hop_frames"]
        part = frames[start : start + sizes["window_frames"]]
        np.testing.assert_array_equal(window[: len(part)], part)
        assert (window[len(part) :] == 0).all()


@given(**SIZES)
def test_no_window_but_that_of_an_empty_clip_is_padding_alone(n_frames, **sizes):
    windows = slice_windows(numbered(n_frames), **sizes)
    if n_frames:
        assert (windows != 0).any(axis=(1, 2)).all()


@given(**SIZES)
def test_only_whole_windows_are_made_unless_the_partial_one_is_kept(n_frames, **sizes):
    windows = slice_windows(numbered(n_frames), **sizes)
    padded = (windows == 0).any(axis=(1, 2))
    if n_frames < sizes["window_frames"]:
        assert padded.tolist() == [True]
    elif sizes["keep_partial"]:
        assert not padded[:-1].any()
    else:
        assert not padded.any()


@given(**{**SIZES, "keep_partial": st.just(True)})
def test_keeping_the_partial_window_leaves_no_frame_out_that_a_window_reaches(n_frames, **sizes):
    window, hop = sizes["window_frames"], sizes["hop_frames"]
    found = set(slice_windows(numbered(n_frames), **sizes)[..., 0].ravel()) - {0.0}
    wanted = {
        numbered(n_frames)[frame, 0]
        for frame in range(n_frames)
        # A hop longer than a window skips the frames between two windows.
        if frame % hop < window or frame < window
    }
    assert wanted <= found


@pytest.mark.parametrize(
    ("n_frames", "hop", "whole", "with_partial"),
    [
        (0, 96, 1, 1),
        (95, 96, 1, 1),
        (96, 96, 1, 1),
        (97, 96, 1, 2),
        (192, 96, 2, 2),
        (2925, 96, 30, 31),
        (144, 48, 2, 2),
        (150, 48, 2, 3),
        # The frames left lie before the start of the next window.
        (150, 200, 1, 1),
        (201, 200, 1, 2),
    ],
)
def test_windows_are_counted_as_by_hand(n_frames, hop, whole, with_partial):
    sizes = {"window_frames": 96, "hop_frames": hop}
    assert n_windows(n_frames, keep_partial=False, **sizes) == whole
    assert n_windows(n_frames, keep_partial=True, **sizes) == with_partial


@given(
    cuts=st.lists(st.integers(0, 300), max_size=8),
    fill=st.sampled_from(["zeros", "repeat"]),
    **SIZES,
)
def test_frames_that_arrive_in_chunks_give_the_same_windows(n_frames, cuts, fill, **sizes):
    frames = numbered(n_frames)
    chunks = np.split(frames, sorted(cuts))
    windows = list(slice_stream(chunks, n_bands=2, fill=fill, **sizes))
    assert all(len(chunk) for chunk in windows)
    np.testing.assert_array_equal(
        np.concatenate(windows), slice_windows(frames, fill=fill, **sizes)
    )


def test_no_chunk_at_all_is_one_window_of_zeros():
    windows = list(slice_stream([], n_bands=3, window_frames=4, hop_frames=4))
    assert [window.shape for window in windows] == [(1, 4, 3)]
    assert not windows[0].any()


@given(**SIZES)
def test_a_short_clip_is_repeated_where_that_is_asked_for(n_frames, **sizes):
    windows = slice_windows(numbered(n_frames), fill="repeat", **sizes)
    if 0 < n_frames < sizes["window_frames"]:
        wanted = np.resize(numbered(n_frames), (1, sizes["window_frames"], 2))
    else:
        wanted = slice_windows(numbered(n_frames), **sizes)
    np.testing.assert_array_equal(windows, wanted)
