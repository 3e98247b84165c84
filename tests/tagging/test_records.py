"""Promises of the choice of what is shown of a prediction."""

import numpy as np
import pytest
from hypothesis import strategies as st

from tagger.tagging.prediction import Prediction
from tagger.tagging.records import Record, Row, Selection, failed_record, make_record


def prediction(taggram, *, tags="abcde", hop=1.0, window=1.0, start=0.0, seconds=None, **more):
    taggram = np.array(taggram, np.float32)
    n_windows, n_tags = taggram.shape
    times = start + hop * np.arange(n_windows)
    fields = {
        "path": "a.mp3",
        "tags": tuple(tags[:n_tags]),
        "scores": taggram.mean(axis=0),
        "taggram": taggram,
        "times": times,
        "window_seconds": window,
        "seconds": times[-1] - start + window if seconds is None else seconds,
    }
    return Prediction(**fields | more)


def labels(record):
    return [row.label for row in record.rows]


def segments(record):
    return [(row.label, round(row.start, 6), round(row.end, 6)) for row in record.rows]


# Whole files


@pytest.mark.parametrize(
    ("top_k", "threshold", "expected"),
    [
        (None, None, "dbcae"),
        (10, None, "dbcae"),
        (2, None, "db"),
        (1, 0.0, "d"),
        (10, 0.5, "dbc"),
        (None, 0.5, "dbc"),
        (2, 0.5, "db"),
        (10, 0.95, ""),
    ],
)
def test_top_k_and_threshold_limit_the_tags_of_a_file_each_by_itself(top_k, threshold, expected):
    item = prediction([[0.25, 0.75, 0.5, 0.9, 0.0]])
    record = make_record(item, Selection(top_k=top_k, threshold=threshold))
    assert labels(record) == list(expected)
    assert all(row.start is None and row.end is None for row in record.rows)


def test_a_score_that_is_shown_as_the_threshold_reaches_it():
    item = prediction([[0.9, 0.1]])
    assert float(item.scores[0]) < 0.9  # as a float32
    assert labels(make_record(item, Selection(threshold=0.9))) == ["a"]


def test_tags_of_the_same_score_keep_the_order_of_the_model():
    item = prediction([[0.5, 0.5, 0.5]], tags="cab")
    assert labels(make_record(item, Selection())) == ["c", "a", "b"]


def test_the_models_thresholds_are_used_for_each_tag_when_asked_for():
    own = np.array([0.3, 0.8, np.nan], np.float32)
    item = prediction([[0.4, 0.7, 0.6]], thresholds=own)
    assert labels(make_record(item, Selection())) == ["b", "c", "a"]
    assert labels(make_record(item, Selection(model_thresholds=True))) == ["c", "a"]


def test_a_model_without_thresholds_has_one_half_for_each_tag():
    item = prediction([[0.4, 0.7, 0.5]])
    assert labels(make_record(item, Selection(model_thresholds=True))) == ["b", "c"]


def test_a_record_tells_the_length_of_the_audio_and_whether_it_was_padded():
    record = make_record(prediction([[0.4]], seconds=0.25, padded=True), Selection())
    assert (record.path, record.seconds, record.padded, record.error) == ("a.mp3", 0.25, True, None)


# Windows


def test_each_window_has_its_own_ranking():
    item = prediction([[0.2, 0.9], [0.8, 0.1]], hop=0.5)
    record = make_record(item, Selection(segments="windows"))
    assert segments(record) == [("b", 0, 1), ("a", 0, 1), ("a", 0.5, 1.5), ("b", 0.5, 1.5)]
    assert [round(row.score, 6) for row in record.rows] == [0.9, 0.2, 0.8, 0.1]


def test_top_k_and_threshold_apply_to_each_window():
    item = prediction([[0.2, 0.9, 0.6], [0.1, 0.1, 0.7], [0.1, 0.1, 0.1]])
    record = make_record(item, Selection(top_k=1, segments="windows"))
    assert segments(record) == [("b", 0, 1), ("c", 1, 2), ("a", 2, 3)]
    record = make_record(item, Selection(threshold=0.5, segments="windows"))
    assert segments(record) == [("b", 0, 1), ("c", 0, 1), ("c", 1, 2)]


def test_the_last_window_ends_with_the_audio():
    item = prediction([[0.9], [0.9]], start=30, seconds=1.25)
    record = make_record(item, Selection(segments="windows"))
    assert segments(record) == [("a", 30, 31), ("a", 31, 31.25)]


def test_windows_with_gaps_between_them_keep_their_length():
    record = make_record(prediction([[0.9], [0.9]], hop=5), Selection(segments="windows"))
    assert segments(record) == [("a", 0, 1), ("a", 5, 6)]


# Merged segments


def merged(item, **more):
    return make_record(item, Selection(segments="merged", **more))


def test_neighbouring_windows_over_the_threshold_are_one_segment_with_their_mean_score():
    item = prediction([[0.6], [0.8], [0.2], [0.5], [0.1]])
    record = merged(item)
    assert segments(record) == [("a", 0, 2), ("a", 3, 4)]
    assert [row.score for row in record.rows] == pytest.approx([0.7, 0.5])


def test_overlapping_windows_make_a_segment_up_to_the_end_of_its_last_one():
    item = prediction([[0.9], [0.9], [0.1], [0.1], [0.1]], hop=0.5, window=2.0)
    assert segments(merged(item)) == [("a", 0, 2.5)]


def test_windows_with_gaps_between_them_are_no_neighbours():
    item = prediction([[0.9], [0.9]], hop=1.5)
    assert segments(merged(item)) == [("a", 0, 1), ("a", 1.5, 2.5)]


def test_a_rounding_error_between_windows_is_no_gap():
    item = prediction([[0.9]] * 1000, hop=0.1, window=0.1)
    assert segments(merged(item)) == [("a", 0, 100)]


def test_segments_use_the_models_own_thresholds_unless_one_is_given():
    own = np.array([0.3, 0.8], np.float32)
    item = prediction([[0.4, 0.7]], thresholds=own)
    assert labels(merged(item)) == ["a"]
    assert labels(merged(item, threshold=0.5)) == ["b"]
    assert labels(merged(item, threshold=0.5, model_thresholds=True)) == ["a"]


def test_segments_of_a_model_without_thresholds_begin_at_one_half():
    assert labels(merged(prediction([[0.4, 0.7, 0.5]]))) == ["b", "c"]


def test_top_k_keeps_the_tags_with_segments_that_score_highest_in_the_whole_file():
    # The tag a has the highest mean and no segment; b and c have two and one.
    item = prediction([[0.49, 0.9, 0.1], [0.49, 0.0, 0.1], [0.49, 0.5, 0.6]])
    assert labels(merged(item, top_k=1)) == ["b", "b"]
    assert labels(merged(item, top_k=2)) == ["b", "c", "b"]


def test_segments_are_sorted_by_start_and_then_by_score():
    item = prediction([[0.6, 0.9, 0.0], [0.6, 0.0, 0.9]])
    assert segments(merged(item)) == [("b", 0, 1), ("a", 0, 2), ("c", 1, 2)]


def test_a_padded_file_has_segments_as_long_as_its_audio():
    item = prediction([[0.9]], seconds=0.25, padded=True)
    assert segments(merged(item)) == [("a", 0, 0.25)]


# As JSON

TEXT = st.text(max_size=8)
SCORE = st.floats(0, 1, width=32)
TIME = st.none() | st.floats(0, 1e6)
RECORDS = st.builds(
    Record,
    path=TEXT | st.just("bytes \udcff"),
    seconds=st.floats(0, 1e6),
    padded=st.booleans(),
    rows=st.lists(st.builds(Row, TEXT, SCORE, TIME, TIME), max_size=3).map(tuple),
    error=st.none() | TEXT,
)


def test_the_record_of_a_failed_file_holds_its_error_alone():
    record = failed_record("a.mp3", "a.mp3: empty file; copy it again")
    assert record == Record("a.mp3", 0.0, False, (), "a.mp3: empty file; copy it again")


# Tags that mean the same


def test_tags_that_mean_the_same_become_one_with_the_highest_score_and_threshold():
    thresholds = np.array([0.2, 0.6, 0.3, np.nan, np.nan], np.float32)
    item = prediction([[0.1, 0.5, 0.2, 0.3, 0.4], [0.3, 0.1, 0.2, 0.3, 0.4]], thresholds=thresholds)
    found = item.merged({"z": ["b", "a"], "d": ["d", "e"], "unknown": ["x"]})
    assert found.tags == ("z", "c", "d")
    np.testing.assert_allclose(found.taggram, [[0.5, 0.2, 0.4], [0.3, 0.2, 0.4]])
    a, b, c, d, e = item.scores
    np.testing.assert_allclose(found.scores, [max(a, b), c, max(d, e)])
    np.testing.assert_allclose(found.thresholds, [0.6, 0.3, np.nan])
    assert item.merged({}).tags == item.tags
