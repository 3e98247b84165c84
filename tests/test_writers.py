"""Promises of the output formats and the pictures."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image

from tagger import plots
from tagger.errors import ConfigError
from tagger.plots import plot_learning_curves, plot_tag_metrics, plot_taggram
from tagger.predict import Prediction
from tagger.writers import WRITERS

TAGS = ("guitar", "no vocals", 'say "hi", twice', "müsik\n二", "drums")
SCORES = (0.25, 0.9, 0.5, 0.75, 0.0)
RANKED = ["no vocals", "müsik\n二", 'say "hi", twice', "guitar", "drums"]


def prediction(path="a.mp3", *, tags=TAGS, scores=SCORES, n_windows=4, **more):
    rng = np.random.default_rng(0)
    return Prediction(
        path=path,
        tags=tuple(tags),
        scores=np.array(scores, np.float32),
        taggram=rng.random((n_windows, len(tags)), dtype=np.float32),
        times=0.96 * np.arange(n_windows),
        window_seconds=0.975,
        **more,
    )


def written(format_, *predictions, top_k=10, threshold=0.0):
    stream = io.StringIO()
    writer = WRITERS.get(format_)(stream, top_k=top_k, threshold=threshold)
    writer.begin()
    for item in predictions:
        writer.write(item)
    writer.end()
    return stream.getvalue()


def tags_in(format_, text):
    """Tags of the first file in the text of a format."""
    if format_ == "json":
        return [entry["tag"] for entry in json.loads(text.splitlines()[0])["tags"]]
    if format_ == "csv":
        return [row["tag"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    return [line.split()[-1] for line in text.splitlines()[1:] if "no tag" not in line]


# Text


def test_the_formats_are_these():
    assert WRITERS.names() == ["csv", "json", "table"]


def test_an_unknown_format_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown output format 'xml'; known: csv, json, table"):
        WRITERS.get("xml")


def test_json_is_one_object_per_file_and_line():
    text = written("json", prediction("a.mp3"), prediction("b ü\n.mp3", padded=True))
    first, second = (json.loads(line) for line in text.split("\n")[:-1])
    assert first["path"] == "a.mp3" and second["path"] == "b ü\n.mp3"
    assert first["seconds"] == pytest.approx(3 * 0.96 + 0.975)
    assert (first["padded"], second["padded"]) == (False, True)
    assert [entry["tag"] for entry in first["tags"]] == RANKED
    assert [entry["score"] for entry in first["tags"]] == [0.9, 0.75, 0.5, 0.25, 0.0]


def test_json_of_a_file_is_complete_before_the_next_file_begins():
    stream = io.StringIO()
    writer = WRITERS.get("json")(stream, top_k=3, threshold=0.0)
    writer.begin()
    writer.write(prediction())
    assert json.loads(stream.getvalue())["path"] == "a.mp3"


def test_csv_has_a_header_and_a_row_per_file_and_tag():
    text = written("csv", prediction("a.mp3"), prediction("b.mp3"), top_k=2)
    assert text.splitlines()[0] == "path,rank,tag,score"
    # One header, however many files.
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(row["path"], row["rank"], row["tag"]) for row in rows] == [
        ("a.mp3", "1", "no vocals"),
        ("a.mp3", "2", "müsik\n二"),
        ("b.mp3", "1", "no vocals"),
        ("b.mp3", "2", "müsik\n二"),
    ]
    assert float(rows[0]["score"]) == pytest.approx(0.9, abs=1e-6)


# Python's csv writer leaves a bare carriage return unquoted.
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=8)


@given(NAMES, st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_any_name_survives_csv_and_json(path, tags):
    item = prediction(path, tags=tags, scores=np.linspace(1, 0.1, len(tags)))
    rows = list(csv.DictReader(io.StringIO(written("csv", item), newline="")))
    assert [(row["path"], row["tag"]) for row in rows] == [(path, tag) for tag in tags]
    lines = written("json", item).split("\n")
    assert len(lines) == 2 and lines[1] == ""
    content = json.loads(lines[0])
    assert content["path"] == path and [entry["tag"] for entry in content["tags"]] == tags


def test_the_table_has_a_line_per_tag_with_its_score_and_bar():
    text = written("table", prediction(tags=["a", "b b"], scores=[0.5, 1.0]))
    assert text.splitlines() == [
        "a.mp3 (3.9 s)",
        "  1.000 #################### b b",
        "  0.500 ##########           a",
    ]


def test_the_table_says_that_a_file_is_shorter_than_a_window():
    assert written("table", prediction(n_windows=1, padded=True)).startswith("a.mp3 (< 0.97 s)")


def test_the_table_says_that_no_tag_reaches_the_threshold():
    assert "no tag scores 0.95 or more" in written("table", prediction(), threshold=0.95)


@pytest.mark.parametrize("format_", ["csv", "json", "table"])
@pytest.mark.parametrize(
    ("top_k", "threshold", "expected"),
    [
        (10, 0.0, ["d", "b", "c", "a", "e"]),
        (2, 0.0, ["d", "b"]),
        (1, 0.0, ["d"]),
        (10, 0.5, ["d", "b", "c"]),
        (2, 0.5, ["d", "b"]),
        (10, 0.95, []),
    ],
)
def test_top_k_and_threshold_both_limit_the_tags(format_, top_k, threshold, expected):
    item = prediction(tags="abcde", scores=[0.25, 0.75, 0.5, 0.9, 0.0])
    text = written(format_, item, top_k=top_k, threshold=threshold)
    assert tags_in(format_, text) == expected


@pytest.mark.parametrize("format_", ["csv", "json", "table"])
def test_tags_of_the_same_score_keep_the_order_of_the_model(format_):
    text = written(format_, prediction(tags="cab", scores=[0.5, 0.5, 0.5]))
    assert tags_in(format_, text) == ["c", "a", "b"]


# Pictures


def decoded(path):
    """Pixels of a PNG that is not all of one colour."""
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = image.imread(path)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20
    return pixels


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they were when they were saved."""
    figures = []
    save = plots._save

    def remember(figure, path):
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "_save", remember)
    return figures


def labels_of(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_a_taggram_is_a_png_with_its_time_in_seconds(tmp_path, drawn):
    plot_taggram(prediction("folder/song.mp3", n_windows=10), tmp_path / "new" / "a.png")
    decoded(tmp_path / "new" / "a.png")
    axes = drawn[0].axes[0]
    assert axes.get_xlabel() == "time (seconds)"
    assert axes.get_xlim() == pytest.approx((0, 9.6))
    assert axes.get_title() == "song.mp3"


def test_a_taggram_has_the_highest_tag_on_top_and_its_own_scores(tmp_path, drawn):
    item = prediction(tags="abc", scores=[0.2, 0.9, 0.5], n_windows=6)
    plot_taggram(item, tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert labels_of(axes) == ["b", "c", "a"]
    bottom, top = axes.get_ylim()
    assert bottom > top
    mesh = axes.collections[0].get_array().reshape(3, 6)
    np.testing.assert_array_equal(mesh, item.taggram[:, [1, 2, 0]].T)


def test_a_taggram_shows_as_many_tags_as_asked_for(tmp_path, drawn):
    item = prediction(tags=[f"t{n}" for n in range(30)], scores=np.linspace(1, 0, 30))
    plot_taggram(item, tmp_path / "a.png")
    plot_taggram(item, tmp_path / "b.png", n_tags=5)
    assert [len(labels_of(figure.axes[0])) for figure in drawn] == [20, 5]


def test_a_taggram_of_a_single_window_or_of_a_waveform_is_drawn(tmp_path, drawn):
    plot_taggram(prediction("", n_windows=1), tmp_path / "a.png")
    decoded(tmp_path / "a.png")
    assert drawn[0].axes[0].get_xlim() == pytest.approx((0, 0.975))
    assert drawn[0].axes[0].get_title() == "taggram"


@pytest.mark.parametrize("name", ["Ke$ha - Tik $_$ Tok", r"$\frac$", "a_b^c{", r"$\alpha$"])
def test_names_are_drawn_as_they_are_and_not_as_formulas(tmp_path, drawn, name):
    plot_taggram(prediction(f"{name}.mp3", tags=[name], scores=[1]), tmp_path / "a.png")
    decoded(tmp_path / "a.png")
    one = np.array([0.5])
    plot_tag_metrics([name], tmp_path / "b.png", roc_auc=one, pr_auc=one, positive_rate=one)
    decoded(tmp_path / "b.png")
    texts = [drawn[0].axes[0].title, *(figure.axes[0].get_yticklabels()[0] for figure in drawn)]
    assert [text.get_text() for text in texts] == [f"{name}.mp3", name, name]
    assert not any(text.get_parse_math() for text in texts)


@pytest.mark.filterwarnings("error")
def test_a_name_in_a_script_that_the_font_lacks_is_drawn_without_a_warning(tmp_path):
    plot_taggram(prediction("二.mp3", tags=["二"], scores=[1]), tmp_path / "a.png")
    decoded(tmp_path / "a.png")


def history(n_epochs):
    return [
        {
            "epoch": epoch,
            "train_loss": 0.5 / epoch,
            "validation_loss": 0.6 / epoch,
            "validation_pr_auc_macro": 0.1 * epoch,
        }
        for epoch in range(1, n_epochs + 1)
    ]


@pytest.mark.parametrize("n_epochs", [1, 12])
def test_learning_curves_show_losses_and_the_monitored_metric(tmp_path, drawn, n_epochs):
    plot_learning_curves(history(n_epochs), tmp_path / "a.png", monitor="pr_auc_macro")
    decoded(tmp_path / "a.png")
    left, right = drawn[0].axes
    assert left.get_xlabel() == "epoch" and right.get_ylabel() == "pr_auc_macro"
    curves = {line.get_label(): list(line.get_ydata()) for line in [*left.lines, *right.lines]}
    assert curves == {
        "training loss": [row["train_loss"] for row in history(n_epochs)],
        "validation loss": [row["validation_loss"] for row in history(n_epochs)],
        "validation pr_auc_macro": [row["validation_pr_auc_macro"] for row in history(n_epochs)],
    }


def test_learning_curves_of_a_run_that_monitors_the_loss_have_one_axis(tmp_path, drawn):
    plot_learning_curves(history(3), tmp_path / "a.png", monitor="loss")
    decoded(tmp_path / "a.png")
    assert len(drawn[0].axes) == 1


def test_learning_curves_with_a_metric_that_could_not_be_computed_are_drawn(tmp_path):
    rows = history(3)
    rows[1]["validation_pr_auc_macro"] = float("nan")
    plot_learning_curves(rows, tmp_path / "a.png", monitor="pr_auc_macro")
    decoded(tmp_path / "a.png")


def test_metrics_of_188_tags_are_drawn_with_every_name_best_first(tmp_path, drawn):
    rng = np.random.default_rng(0)
    tags = [f"tag {number}" for number in range(188)]
    roc_auc, pr_auc, rate = rng.random((3, 188))
    plot_tag_metrics(tags, tmp_path / "a.png", roc_auc=roc_auc, pr_auc=pr_auc, positive_rate=rate)
    height, width, _ = decoded(tmp_path / "a.png").shape
    # 20 pixels and more for each name.
    assert height > 188 * 20 and 500 < width < 2000
    assert labels_of(drawn[0].axes[0]) == [tags[tag] for tag in np.argsort(-roc_auc)]


def test_tags_that_cannot_be_scored_are_left_out_of_the_picture(tmp_path, drawn):
    roc_auc = np.array([0.7, np.nan, 0.9])
    plot_tag_metrics(
        ["a", "b", "c"],
        tmp_path / "a.png",
        roc_auc=roc_auc,
        pr_auc=roc_auc / 2,
        positive_rate=np.array([0.1, 0.0, 0.3]),
    )
    decoded(tmp_path / "a.png")
    assert labels_of(drawn[0].axes[0]) == ["c", "a"]


@pytest.mark.filterwarnings("error")
def test_a_picture_without_any_tag_to_score_is_drawn_without_a_warning(tmp_path):
    nothing = np.full(2, np.nan)
    plot_tag_metrics(
        ["a", "b"], tmp_path / "a.png", roc_auc=nothing, pr_auc=nothing, positive_rate=np.zeros(2)
    )
    decoded(tmp_path / "a.png")


def test_a_picture_that_cannot_be_drawn_leaves_the_one_before(tmp_path):
    path = tmp_path / "a.png"
    plot_taggram(prediction(), path)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        plot_learning_curves(history(2), path, monitor="unknown")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
