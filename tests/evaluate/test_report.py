"""Promises of the reports: whole, safe, readable at any number of tags."""

import base64
import hashlib
import json
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile as sf
from signals import noise
from small_model import small_run

from preprocess.store.store import Store
from tagger.base.blocks import Code, Heading, Listing, Paragraph, Table
from tagger.base.errors import AudioError
from tagger.bundle.export import export_run
from tagger.evaluate.evaluate import evaluate_run, evaluate_scores
from tagger.evaluate.report import figures, write_report
from tagger.evaluate.report.card import parse_card
from tagger.evaluate.report.contents import (
    Contents,
    Estimate,
    Frame,
    HeadlineRow,
    Reliability,
    TagFigures,
)
from tagger.evaluate.report.curves import RECALLS, clip_losses, clips_of, precision_over_recall
from tagger.evaluate.report.excerpts import EXCERPT_SECONDS, LARGEST_FILE, excerpt
from tagger.evaluate.report.from_evaluation import audio_of
from tagger.evaluate.report.from_tags import headline_of
from tagger.evaluate.report.sections import framed, tag_sections
from tagger.metrics.calibration import Calibration, Temperature
from tagger.metrics.columns import ArrayColumns
from tagger.metrics.figures import binary_cross_entropy, multilabel_metrics
from tagger.runs.folder import RunFolder
from tagger.tagging.prediction import Prediction
from tagger.tagging.tagger import Tagger

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> `a` | [b](javascript:c) $d$"


def make_contents(*, n_clips=60, tags=("guitar", "slow", "no vocals"), seed=0, **changes):
    """Contents of a model that is somewhat right, with all that reports show."""
    rng = np.random.default_rng(seed)
    n_tags = len(tags)
    labels = (rng.random((n_clips, n_tags)) < rng.uniform(0.1, 0.5, n_tags)).astype(np.uint8)
    labels[0], labels[1] = 1, 0
    scores = np.clip(0.5 * labels + 0.5 * rng.random((n_clips, n_tags)), 0, 1).astype(np.float32)
    metrics = multilabel_metrics(labels, scores)
    counts = np.arange(10)
    values = {
        "facts": [("source", "a run")],
        "tags": tuple(tags),
        "columns": ArrayColumns(labels, scores),
        "per_tag": TagFigures(
            metrics.n_positive,
            metrics.roc_auc,
            metrics.pr_auc,
            {"lift": metrics.pr_auc},
            metrics.pr_auc - 0.1,
            np.minimum(metrics.pr_auc + 0.1, 1),
        ),
        "headline": [
            HeadlineRow("ours", {("PR-AUC", "macro"): Estimate(0.8, 0.7, 0.9)}, ours=True),
            HeadlineRow("theirs", {("PR-AUC", "macro"): Estimate(0.4)}),
        ],
        "thresholded": [("binary accuracy", 0.98, 0.97)],
        "reliability": [Reliability("as they come", counts / 10, counts / 12, counts, 0.05)],
        "confusion": rng.integers(0, 9, (n_tags, n_tags)),
        "confused": [(0, 1, 5, 2.5)],
        "clip_names": [f"0/clip {number}.mp3" for number in range(n_clips)],
    }
    return Contents(**values | changes)


def history(n_epochs):
    return [
        {
            "epoch": epoch,
            "train_loss": 0.5 / epoch,
            "validation_loss": 0.6 / epoch,
            "validation_pr_auc_macro": 0.1 * epoch,
            "learning_rate": 0.001 / epoch,
        }
        for epoch in range(1, n_epochs + 1)
    ]


FRAME = Frame(
    title="a run: test clips",
    history=history(3),
    monitor="pr_auc_macro",
    leakage=["No track is in train and test."],
    card="# A card\n\nWhat it is.",
    versions={"numpy": "2"},
    config="a: 1\n",
)


def report_of(contents, **changes):
    return framed(replace(FRAME, **changes), tag_sections(contents))


def with_taggrams(contents, audio):
    def taggram(row):
        scores = np.random.default_rng(row).random((5, len(contents.tags))).astype(np.float32)
        times = np.arange(5.0)
        return Prediction("x", contents.tags, scores.mean(axis=0), scores, times, 1.0, 5.0)

    return replace(contents, taggram=taggram, audio=lambda row: audio)


class Page(HTMLParser):
    """Elements of a page with their attributes, and the text of the scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.styles = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] in ("script", "style"):
            {"script": self.scripts, "style": self.styles}[self.elements[-1][0]].append(data)

    def handle_endtag(self, tag):
        self.elements.append((f"/{tag}", {}))

    def all(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp3"
    sf.write(path, noise(2.0), 16000)
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory, clip):
    """A report whose every text wants to be more than text."""
    folder = tmp_path_factory.mktemp("report")
    contents = make_contents(tags=(EVIL, "$x_", "slow"))
    contents = replace(
        contents,
        facts=[(EVIL, EVIL)],
        headline=[HeadlineRow(EVIL, {(EVIL, EVIL): Estimate(0.5)})],
        clip_names=[f"{EVIL} \udcff{number}" for number in range(60)],
    )
    report = report_of(
        with_taggrams(contents, clip),
        title=EVIL,
        leakage=[EVIL],
        notes=[EVIL],
        card=f"# {EVIL}\n\n{EVIL}\n\n- {EVIL}\n\n| {EVIL} |\n|---|\n| {EVIL} |\n\n```\n{EVIL}\n",
        versions={EVIL: EVIL},
        config=EVIL,
    )
    return write_report(report, folder)


# HTML


def test_a_report_asks_for_no_other_file(written):
    page = Page(written["report"].read_text())
    sources = [
        attributes[key]
        for _, attributes in page.elements
        for key in ("src", "srcset", "href")
        if key in attributes
    ]
    assert len(sources) > 20
    assert all(source.startswith(("data:image/png", "data:audio/", "#")) for source in sources)
    assert not re.search(r"url\(|@import", "".join(page.styles))


def test_names_are_text_and_never_markup(written):
    page = Page(written["report"].read_text())
    assert len(page.all("script")) == 1 and len(page.scripts) == 1
    assert "alert" not in page.scripts[0]
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert all(image["alt"] for image in page.all("img"))


def test_the_policy_of_a_page_allows_its_own_script_and_style_only(written):
    page = Page(written["report"].read_text())
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)

    def own(text):
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert f"script-src {own(page.scripts[0])};" in policy
    assert f"style-src {own(page.styles[0])};" in policy
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy


def test_elements_of_a_page_are_closed_in_order(written):
    open_elements = []
    for tag, _ in Page(written["report"].read_text()).elements:
        if tag.startswith("/"):
            assert open_elements.pop() == tag[1:]
        elif tag not in ("meta", "img", "source"):
            open_elements.append(tag)
    assert open_elements == []


def test_every_picture_is_in_the_page_and_a_dark_one_inverts_it(written):
    text = written["report"].read_text()
    sources = [image["src"] for image in Page(text).all("img")]
    assert len(sources) == len(set(sources)) > 5
    for source in sources:
        assert base64.b64decode(source.partition(",")[2]).startswith(b"\x89PNG")
    assert "@media (prefers-color-scheme: dark) { img { filter: invert(" in text


def test_players_hold_their_clip(written, clip):
    players = Page(written["report"].read_text()).all("audio")
    assert len(players) == 8
    data = players[0]["src"].removeprefix("data:audio/mpeg;base64,")
    assert base64.b64decode(data) == clip.read_bytes()


def test_a_table_of_tags_can_be_sorted_by_numbers_and_not_their_text(tmp_path):
    contents = make_contents()
    figures_ = replace(contents.per_tag, more={"d'": np.array([np.inf, np.nan, 1.5])})
    text = write_report(report_of(replace(contents, per_tag=figures_)), tmp_path)[
        "report"
    ].read_text()
    cells = re.findall(r'<td class="n" data-value="([^"]*)">([^<]*)', text)
    assert {("Infinity", "∞"), ("NaN", "–"), ("1.5", "1.500")} <= set(cells)


def test_our_own_figures_stand_out_with_their_interval(tmp_path):
    text = write_report(report_of(make_contents()), tmp_path)["report"].read_text()
    row = re.search(r'<tr class="strong">(.*?)</tr>', text)[1]
    assert "ours" in row and "0.8000<small>0.7000–0.9000</small>" in row


# Markdown


def test_markdown_shows_its_pictures_and_names_its_sounds(written):
    path = written["report as Markdown"]
    files = re.findall(r"\]\((report/[^)]*)\)", path.read_text())
    assert len(files) > 10
    assert all((path.parent / file).stat().st_size > 500 for file in files)
    assert {file.name for file in (path.parent / "report").iterdir()} == {
        file.removeprefix("report/") for file in files
    }


def test_names_are_text_in_markdown_too(written):
    outside_code = re.sub(r"(?s)```.*?```", "", written["report as Markdown"].read_text())
    assert "<" not in outside_code
    assert not re.search(r"(?<!\\)\]\(javascript", outside_code)
    # Every row of a table has as many cells as its header.
    for table in re.findall(r"(?m)(?:^\|.*\n)+", outside_code):
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(counts) == 1


def test_code_cannot_leave_its_fence(tmp_path):
    report = report_of(make_contents(), config="a\n```\n# b\n````\nc")
    text = write_report(report, tmp_path)["report as Markdown"].read_text()
    assert "`````\na\n```\n# b\n````\nc\n`````" in text


# What is said


def titles(contents):
    return [section.title for section in report_of(contents).sections]


def test_what_there_is_nothing_of_is_left_out():
    contents = make_contents()
    bare = Contents([], contents.tags, contents.columns, contents.per_tag)
    found = [section.title for section in framed(Frame("bare"), tag_sections(bare)).sections]
    assert found == ["Summary", "Tags", "Precision and recall", "Clips", "Table of tags"]
    assert set(found) < set(titles(contents))


def test_tags_without_positives_or_negatives_are_named(tmp_path):
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]], dtype=np.uint8)
    scores = np.full(labels.shape, 0.5)
    metrics = multilabel_metrics(labels, scores)
    contents = make_contents(
        columns=ArrayColumns(labels, scores),
        per_tag=TagFigures(metrics.n_positive, metrics.roc_auc, metrics.pr_auc),
        clip_names=None,
        confusion=None,
    )
    text = write_report(report_of(contents), tmp_path)["report as Markdown"].read_text()
    assert "as no clip carries them (1): slow." in text
    assert "as every clip carries them (1): no vocals." in text
    assert "| tags | 1 of 3 scored |" in text


def test_a_report_without_any_tag_to_score_is_written(tmp_path):
    labels = np.zeros((4, 3), dtype=np.uint8)
    metrics = multilabel_metrics(labels, labels / 2)
    figures_ = TagFigures(metrics.n_positive, metrics.roc_auc, metrics.pr_auc)
    contents = make_contents(columns=ArrayColumns(labels, labels / 2), per_tag=figures_)
    text = write_report(report_of(contents), tmp_path)["report as Markdown"].read_text()
    assert "No tag has both" in text


def test_missed_and_wrongly_given_tags_of_a_clip_follow_the_thresholds():
    labels = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=np.uint8)
    scores = np.where(labels, 0.9, 0.1)
    scores[1] = [0.35, 0.3, 0.2]
    metrics = multilabel_metrics(labels, scores)
    figures_ = TagFigures(
        metrics.n_positive,
        metrics.roc_auc,
        metrics.pr_auc,
        thresholds=np.array([0.3, 0.25, np.nan]),
    )
    contents = make_contents(columns=ArrayColumns(labels, scores), per_tag=figures_)
    section = next(s for s in report_of(contents).sections if s.title == "Clips")
    table = next(block for block in section.blocks if isinstance(block, Table))
    worst = next(row for row in table.rows if row[0] == "Worst\u00a01")
    assert list(worst[3:]) == ["slow 0.30, no vocals 0.20", "no vocals 0.20", "guitar 0.35"]


def test_scores_over_time_are_those_of_the_tags_that_were_measured(tmp_path):
    contents = make_contents()

    def taggram(row):
        scores = np.tile(np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32), (5, 1))
        tags = ("other", *reversed(contents.tags))
        return Prediction("x", tags, scores[0], scores, np.arange(5.0), 1.0, 5.0)

    views = []

    def remember(view, **options):
        views.append(view)
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tagger.evaluate.report.sections.taggram_html", remember)
        report_of(replace(contents, taggram=taggram))
    assert set(views[0].tags) == set(contents.tags)
    shown = [views[0].tags.index(tag) for tag in contents.tags]
    np.testing.assert_allclose(views[0].cells[shown, 0], [0.4, 0.3, 0.2])


@pytest.mark.campaign
def test_a_clip_that_has_gone_is_told_and_the_others_are_shown(tmp_path):
    contents = with_taggrams(make_contents(), None)
    known = contents.taggram
    best = int(np.argmin(clip_losses(contents.columns, range(3))))

    def taggram(row):
        if row == best:
            raise AudioError("clip.mp3: no such file")
        return known(row)

    write_report(report_of(replace(contents, taggram=taggram)), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "No scores over time: clip.mp3: no such file." in text
    best_clip, _, others = text.partition("### Best 2")
    assert "| over time |" not in best_clip and "| over time |" in others


# Arithmetic


@pytest.mark.parametrize("digits", [1, 6])
@pytest.mark.parametrize("seed", range(5))
def test_the_area_below_a_curve_is_the_average_precision(seed, digits):
    rng = np.random.default_rng(seed)
    labels = np.zeros(300, dtype=bool)
    # As many positives as divide the steps of the recall, so that the area is exact.
    labels[rng.choice(300, 40, replace=False)] = True
    scores = (0.3 * labels + rng.random(300)).round(digits)
    curve = precision_over_recall(labels, scores)
    expected = multilabel_metrics(labels[:, None].astype(np.uint8), scores[:, None]).pr_auc[0]
    assert len(curve) == len(RECALLS)
    assert curve[1:].mean() == pytest.approx(expected, abs=1e-12)


def test_the_loss_of_a_clip_is_its_mean_cross_entropy():
    labels = np.array([[1, 0, 1], [0, 0, 1]], dtype=np.uint8)
    scores = np.array([[0.5, 0.25, 0.1], [0.0, 1.0, 0.9]])
    losses = clip_losses(ArrayColumns(labels, scores), [0, 1])
    assert losses[0] == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 2)
    # A score of one for what is not there costs much, but not infinitely much.
    assert losses[1] == pytest.approx(-np.log(1e-7) / 2)


def test_clips_are_taken_in_the_order_asked_for():
    labels = np.eye(4, 3, dtype=np.uint8)
    found, scores = clips_of(ArrayColumns(labels, labels * 0.5), np.array([2, 0]))
    np.testing.assert_array_equal(found, labels[[2, 0]] == 1)
    np.testing.assert_array_equal(scores, labels[[2, 0]] * 0.5)


# Pictures


def laid_out(figure):
    figure.canvas.draw()
    return figure


def overlaps(texts, figure):
    boxes = [text.get_window_extent() for text in texts if text.get_text() and text.get_visible()]
    return [
        (first, second)
        for number, first in enumerate(boxes)
        for second in boxes[number + 1 :]
        if first.shrunk(0.98, 0.9).overlaps(second.shrunk(0.98, 0.9))
    ]


@pytest.mark.parametrize("n_tags", [1, 32, 50, 188])
def test_names_below_one_another_can_be_read(n_tags):
    rng = np.random.default_rng(0)
    names = [f"a tag with a long name {number}" for number in range(n_tags)]
    values = rng.random(n_tags)
    figure = laid_out(figures.tag_bars(names, values, positive_rate=values / 2))
    labels = [label for axes in figure.axes for label in axes.get_yticklabels()]
    assert len(labels) == n_tags
    assert not overlaps(labels, figure)
    width = figure.get_size_inches()[0] * 100
    assert width < 1200
    for axes in figure.axes:
        assert axes.get_window_extent().width > 0.1 * width
        for label in axes.get_yticklabels():
            assert label.get_window_extent().x0 >= 0


def test_bars_are_in_order_of_their_length_down_the_columns():
    values = np.random.default_rng(0).random(188)
    names = [str(number) for number in range(188)]
    figure = figures.tag_bars(names, values, positive_rate=values)
    shown = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    assert shown == [names[tag] for tag in np.argsort(-values)]


def test_names_of_a_heat_map_can_be_read():
    counts = np.random.default_rng(0).integers(0, 30, (24, 24))
    names = [f"a long name {number}" for number in range(24)]
    figure = laid_out(figures.confusion_map(counts, missed=names, given=names))
    assert not overlaps(figure.axes[0].get_yticklabels(), figure)
    assert not overlaps(figure.axes[0].texts, figure)


@pytest.mark.parametrize("n_epochs", [1, 12])
def test_learning_curves_show_losses_metric_and_rate(n_epochs):
    figure = figures.learning_curves(history(n_epochs), monitor="pr_auc_macro")
    left, middle, right = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch"] * 3
    assert [list(line.get_ydata()) for line in left.lines[:2]] == [
        [row["train_loss"] for row in history(n_epochs)],
        [row["validation_loss"] for row in history(n_epochs)],
    ]
    assert middle.get_ylabel() == "PR-AUC, macro"
    assert f"in epoch {n_epochs}" in middle.get_title()
    assert right.get_yscale() == "log"


@pytest.mark.parametrize(("monitor", "best"), [("loss", 2), ("pr_auc_macro", 3)])
def test_the_best_epoch_has_the_lowest_loss_or_the_highest_metric(monitor, best):
    rows = history(4)
    rows[1]["validation_loss"] = 0.01
    rows[3]["validation_pr_auc_macro"] = float("nan")
    figure = figures.learning_curves(rows, monitor=monitor)
    assert f"in epoch {best} " in figure.axes[1].get_title()


@pytest.mark.parametrize("name", ["$\\frac$", "a_b^c{", "二", "\udcff"])
def test_any_name_can_be_drawn(name, tmp_path):
    write_report(report_of(make_contents(tags=(name, "b", "c"))), tmp_path)
    assert (tmp_path / "report" / "per_tag.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.campaign
def test_a_report_of_188_tags_stays_below_15_megabytes(tmp_path, clip):
    large = tmp_path / "large.mp3"
    large.write_bytes(clip.read_bytes() + bytes(LARGEST_FILE - clip.stat().st_size))
    tags = tuple(f"a tag with a long name {number}" for number in range(188))
    contents = with_taggrams(make_contents(n_clips=300, tags=tags), large)
    path = write_report(report_of(contents), tmp_path / "report")["report"]
    assert path.stat().st_size < 15_000_000


# Sound


def test_a_small_file_is_heard_as_it_is(clip):
    assert excerpt(clip) == (clip.read_bytes(), ".mp3")


def test_of_a_large_file_the_beginning_is_heard(tmp_path):
    path = tmp_path / "long.wav"
    sf.write(path, np.stack([noise(40, rate=22050)] * 2, axis=1), 22050)
    content, suffix = excerpt(path)
    (tmp_path / "short.mp3").write_bytes(content)
    info = sf.info(tmp_path / "short.mp3")
    assert suffix == ".mp3" and info.channels == 1
    assert info.duration == pytest.approx(EXCERPT_SECONDS, abs=0.2)
    assert len(content) < LARGEST_FILE


@pytest.mark.parametrize("content", [None, b"", b"no sound" * 50_000])
def test_what_is_no_sound_is_not_heard(tmp_path, content):
    path = tmp_path / "clip.xyz"
    if content is not None:
        path.write_bytes(content)
    assert excerpt(path) is None


# Model cards


def test_a_card_is_read_as_headings_text_lists_tables_and_code():
    text = (
        "# A\ntext\nmore\n- b\n* c\n\n|d|e|\n|---|--:|\n|1|2|\n|3|\n\n```yaml\nf: 1\n```\n## G ##"
    )
    assert parse_card(text) == [
        Heading("A"),
        Paragraph("text more"),
        Listing(("b", "c")),
        Table(["d", "e"], [["1", "2"], ["3", ""]]),
        Code("f: 1"),
        Heading("G"),
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "|", "|\n-", "```", "-", "#", "a|b\n|", "\0"])
def test_any_text_is_a_card(text):
    parse_card(text)


# From an evaluation


@pytest.fixture
def scores(tmp_path):
    rng = np.random.default_rng(0)
    gt = (rng.random((50, 4)) < 0.4).astype(np.uint8)
    est = np.clip(0.4 * gt + 0.6 * rng.random((50, 4)), 0, 1)
    paths = np.array([f"../{number}.mp3" for number in range(50)])
    path = tmp_path / "scores.npz"
    np.savez(path, est=est, gt=gt, tags=np.array(["a", "b", "c", "<i>"]), paths=paths)
    return path


def test_scores_of_any_model_get_a_report_where_one_is_asked_for(command, scores, tmp_path):
    code, out, _ = command("evaluate", scores, "--report", tmp_path / "new")
    assert code == 0 and f"report: {tmp_path / 'new' / 'report.html'}" in out
    assert "&lt;i&gt;" in (tmp_path / "new" / "report.html").read_text()
    assert command("evaluate", scores)[0] == 0
    assert not (scores.parent / "report.html").exists()


def test_without_matplotlib_the_figures_still_come(command, scores, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = command("evaluate", scores, "--report", tmp_path / "new")
    assert code == 0 and "PR-AUC" in out
    assert "matplotlib is not installed; pip install" in err and "[plots]'" in err
    assert not (tmp_path / "new").exists()


def test_no_file_outside_the_data_gets_into_a_report(scores):
    evaluation = evaluate_scores(scores, n_draws=10)
    paths = ["../a.mp3", "/etc/a.mp3", "b/../../a.mp3", "b/a.mp3"]
    evaluation = replace(
        evaluation,
        audio_root=scores.parent,
        clips=replace(evaluation.clips, paths=paths),
    )
    audio = audio_of(evaluation)
    assert [audio(row) for row in range(4)] == [None, None, None, scores.parent / "b" / "a.mp3"]


def test_saying_no_is_beside_our_figures(scores):
    evaluation = evaluate_scores(scores, n_draws=10)
    ours, *_, no = headline_of(evaluation, evaluation.measured)
    assert ours.ours and not no.ours
    assert no.figures["ROC-AUC", "macro"].value == 0.5
    # What average precision says of scores that are all the same.
    gt = np.load(scores)["gt"]
    same = multilabel_metrics(gt, np.zeros(gt.shape)).pr_auc
    assert no.figures["PR-AUC", "macro"].value == pytest.approx(same.mean())
    weighted = np.average(same, weights=gt.sum(axis=0))
    assert no.figures["PR-AUC", "weighted"].value == pytest.approx(weighted)


@pytest.fixture
def calibrated_run(tmp_path_factory, tmp_path):
    """A trained run with a calibration that changes much, and its bundle."""
    run = shutil.copytree(small_run(tmp_path_factory), tmp_path / "run")
    maps = (Temperature(0.3), None, Temperature(3.0))
    (run / "calibration.json").write_text(json.dumps(Calibration("temperature", maps).to_json()))
    assert export_run(run)
    return run


def test_losses_of_a_report_are_those_of_scores_that_were_calibrated_once(calibrated_run):
    evaluation = evaluate_run(calibrated_run, n_draws=0)
    with np.load(evaluation.scores) as archive:
        labels, scores = archive["gt"], archive["est"].astype(np.float64)
    tags = evaluation.measured.metrics.scored
    expected = np.median(
        [binary_cross_entropy(*pair) for pair in zip(labels[:, tags], scores[:, tags], strict=True)]
    )
    text = evaluation.files["report as Markdown"].read_text()
    assert f"the median of all is {expected:.4f}" in text


def test_the_taggram_of_a_run_is_that_of_its_bundle(calibrated_run, monkeypatch):
    kept = []

    def keep(evaluation, folder, *, run=None, taggrams=None):
        kept.append(taggrams)
        return evaluation

    monkeypatch.setattr("tagger.evaluate.evaluate.with_report", keep)
    evaluation = evaluate_run(calibrated_run, n_draws=0)
    ours = kept[0](3)
    tagger = Tagger.load(calibrated_run)
    store = Store(RunFolder(calibrated_run).load_config().store.root)
    row = [clip.id for clip in store.index.clips].index(evaluation.clips.ids[3])
    theirs = tagger.predict_windows(store.read(row))
    np.testing.assert_allclose(ours.taggram, theirs.taggram, atol=1e-5)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)


@pytest.mark.slow
def test_a_run_gets_a_report_with_taggrams_beside_its_scores(tmp_path_factory):
    run = small_run(tmp_path_factory)
    evaluation = evaluate_run(run, n_draws=10)
    assert evaluation.files["report"] == run / "evaluation" / "test" / "report.html"
    text = evaluation.files["report as Markdown"].read_text()
    assert (
        "| tag | score | over time |" in text and "## Model card" in text and "## Learning" in text
    )


def test_a_report_of_a_run_lies_where_it_is_asked_for(tmp_path_factory, without_pictures):
    run, elsewhere = small_run(tmp_path_factory), tmp_path_factory.mktemp("elsewhere")
    assert evaluate_run(run, report=elsewhere, n_draws=0).files["report"].parent == elsewhere
