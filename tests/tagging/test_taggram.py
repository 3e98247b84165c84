"""Promises of taggrams: what they show, as a picture and on a page."""

import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import soundfile
from matplotlib import image
from predictions import make_prediction

from tagger.tagging.taggram import plot_taggram, taggram_figure
from tagger.tagging.taggram_html import STYLE, png, taggram_html
from tagger.tagging.taggram_view import N_COLUMNS, clock, sparklines, taggram_view, time_marks
from tagger.tagging.waveform import envelope

TAGS = ("guitar", "no vocals", 'say "hi", <twice>', "drums")
SCORES = (0.25, 0.9, 0.5, 0.0)


prediction = partial(make_prediction, tags=TAGS, scores=SCORES)


def column(seconds, view):
    """The column of a view at a time."""
    return view.cells[:, int(seconds / view.seconds * N_COLUMNS)]


# What is shown


def test_the_highest_tag_is_on_top_with_its_own_scores_over_time():
    item = prediction(tags="abc", scores=[0.2, 0.9, 0.5], n_windows=6)
    view = taggram_view(item)
    assert view.tags == ("b", "c", "a")
    np.testing.assert_array_equal(view.scores, item.scores[[1, 2, 0]])
    for window in range(6):
        np.testing.assert_array_equal(
            column(0.96 * window + 0.5, view), item.taggram[window, [1, 2, 0]]
        )


def test_twenty_tags_are_shown_or_those_that_are_asked_for():
    item = prediction(tags=[f"t{n}" for n in range(30)], scores=np.linspace(1, 0, 30))
    assert len(taggram_view(item).tags) == 20
    assert taggram_view(item, shown=[7, 3]).tags == ("t7", "t3")


def test_the_whole_duration_is_shown_also_where_no_window_is():
    item = prediction(n_windows=3, hop=10.0, seconds=40.0)
    view = taggram_view(item)
    assert view.seconds == 40
    for seconds in (0.5, 10.5, 20.5):
        assert np.isfinite(column(seconds, view)).all()
    for seconds in (5, 15, 25, 39.9):
        assert np.isnan(column(seconds, view)).all()


def test_the_middle_of_a_file_stands_where_it_was():
    item = prediction(times=30 + 0.96 * np.arange(4), seconds=3.855)
    view = taggram_view(item)
    assert view.seconds == pytest.approx(33.855)
    assert np.isnan(column(29, view)).all() and np.isfinite(column(31, view)).all()


def test_overlapping_windows_are_shown_up_to_the_next_one():
    item = prediction(n_windows=6, hop=0.25)
    view = taggram_view(item, shown=[0])
    assert column(0.3, view) == item.taggram[1, 0]
    assert column(2.0, view) == item.taggram[5, 0]


@pytest.mark.parametrize("hop", [0.96, 0.1, 2.0])
def test_of_hours_the_peaks_are_kept(hop):
    item = prediction(n_windows=11_000, hop=hop)
    item.taggram[:] = 0.1
    item.taggram[5_432, 1] = 0.95
    view = taggram_view(item)
    assert view.cells.shape == (4, N_COLUMNS)
    assert view.cells[0].max() == np.float32(0.95)


def test_loudness_comes_from_the_file_where_that_can_be_read(tmp_path):
    samples = np.concatenate([np.zeros(16000), 0.5 * np.sin(np.arange(16000))])
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    loud = envelope(tmp_path / "a.wav", n_columns=100, seconds=2.0)
    assert loud.max() == 1 and loud[:45].max() < 0.01 and loud[55:].min() > 0.3
    assert envelope(tmp_path / "gone.wav", n_columns=10, seconds=1.0) is None
    assert taggram_view(prediction("")).loudness is None
    assert taggram_view(prediction(str(tmp_path / "a.wav"))).loudness.shape == (N_COLUMNS,)


@pytest.mark.parametrize("seconds", [0.4, 1, 29.1, 61, 600, 3600, 86400, 500_000])
def test_times_have_few_marks_in_minutes_and_hours(seconds):
    marks = time_marks(seconds)
    assert 1 <= len(marks) <= 24 and marks[0] == (0, "0:00")
    assert all(at <= seconds for at, _ in marks)
    assert (clock(61), clock(3600), clock(59.9)) == ("1:01", "1:00:00", "0:59")


def test_a_line_of_blocks_rises_with_the_scores():
    item = prediction(tags="a", scores=[0.5], n_windows=24, hop=1.0)
    item.taggram[:, 0] = np.linspace(0, 1, 24)
    ((tag, score, line),) = sparklines(taggram_view(item))
    assert (tag, score, len(line)) == ("a", "0.50", 24)
    assert line[0] == "▁" and line[-1] == "█" and list(line) == sorted(line)


# As a picture


def decoded(path):
    """Pixels of a PNG that is not all of one colour."""
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = image.imread(path)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20
    return pixels


def test_a_picture_has_names_scores_thresholds_and_a_waveform(tmp_path):
    soundfile.write(tmp_path / "song.wav", np.sin(np.arange(62_000)) / 2, 16000)
    thresholds = np.array([0.5, 0.5, np.nan, 0.5], np.float32)
    item = prediction(str(tmp_path / "song.wav"), thresholds=thresholds)
    heat, scores, wave = taggram_figure(taggram_view(item)).axes
    labels = heat.get_yticklabels()
    assert [label.get_text() for label in labels] == ["no vocals", TAGS[2], "guitar", "drums"]
    # Bold: those that apply.
    assert [label.get_fontweight() for label in labels] == ["bold", *["normal"] * 3]
    assert [bar.get_width() for bar in scores.patches] == pytest.approx([0.9, 0.5, 0.25, 0])
    np.testing.assert_allclose(scores.lines[0].get_xdata(), 0.5)
    assert len(scores.lines[0].get_xdata()) == 3
    assert wave.get_title(loc="left") == "song.wav"
    assert heat.get_xticklabels()[0].get_text() == "0:00"
    assert heat.get_xlim() == pytest.approx((0, item.seconds))


@pytest.mark.parametrize("item", [prediction("", n_windows=1), prediction(n_windows=9, seconds=8)])
def test_a_picture_of_a_single_window_or_of_a_waveform_is_drawn(tmp_path, item):
    plot_taggram(item, tmp_path / "new" / "a.png")
    decoded(tmp_path / "new" / "a.png")


@pytest.mark.parametrize("name", ["Ke$ha - Tik $_$ Tok", r"$\frac$", "a_b^c{", r"$\alpha$"])
def test_names_are_drawn_as_they_are_and_not_as_formulas(tmp_path, name):
    item = prediction(f"{name}.mp3", tags=[name], scores=[1])
    plot_taggram(item, tmp_path / "a.png")
    axes = taggram_figure(taggram_view(item)).axes[0]
    texts = [axes._left_title, axes.get_yticklabels()[0]]
    assert [text.get_text() for text in texts] == [f"{name}.mp3", name]
    assert not any(text.get_parse_math() for text in texts)


@pytest.mark.filterwarnings("error")
def test_a_name_in_a_script_that_the_font_lacks_is_drawn_without_a_warning(tmp_path):
    plot_taggram(prediction("二.mp3", tags=["二"], scores=[1]), tmp_path / "a.png")
    decoded(tmp_path / "a.png")


def test_a_picture_that_cannot_be_drawn_leaves_the_one_before(tmp_path):
    path = tmp_path / "a.png"
    plot_taggram(prediction(), path)
    before = path.read_bytes()
    with pytest.raises(IndexError):
        plot_taggram(replace(prediction(), scores=np.ones(99)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# On a page


def test_a_page_shows_names_scores_and_what_applies_as_text():
    thresholds = np.array([0.3, 0.5, 0.6, np.nan], np.float32)
    marked = np.array([True, False, False, False])
    view = taggram_view(prediction(thresholds=thresholds), marked=marked)
    text = taggram_html(view)
    names = re.findall(r'<span class="([^"]*)" title="([^"]*)">', text)
    assert names == [
        ("tg-on", "no vocals"),
        ("", "say &quot;hi&quot;, &lt;twice&gt;"),
        ("tg-true", "guitar"),
        ("", "drums"),
    ]
    assert [float(score) for score in re.findall(r">(0\.\d\d)</span>", text)] == [0.9, 0.5, 0.25, 0]
    assert text.count("tg-limit") == 3
    # Pages forbid what a name could bring along.
    assert "style=" not in text and "<script" not in text


def test_every_class_of_a_page_has_a_style():
    view = taggram_view(prediction(), marked=np.ones(4, dtype=bool))
    view = replace(view, loudness=np.ones(N_COLUMNS, np.float32))
    used = set(" ".join(re.findall(r'class="([^"]*)"', taggram_html(view, player="p"))).split())
    assert used and all(f".{name}" in STYLE for name in used)


def test_a_png_is_what_other_programs_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(png(pixels))
    np.testing.assert_allclose(image.imread(tmp_path / "a.png") * 255, pixels, atol=0.5)
