"""From what a report shows to its sections: what is said, in which order."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.base.blocks import (
    Block,
    Cell,
    Code,
    Heading,
    Listing,
    Number,
    Paragraph,
    Picture,
    Player,
    Report,
    Section,
    Table,
    Taggram,
    Verdict,
)
from tagger.base.errors import ModelError, TaggerError
from tagger.evaluate.report.card import parse_card
from tagger.evaluate.report.contents import Contents, Estimate, Floats, Frame
from tagger.evaluate.report.curves import clip_losses, clips_of, precision_over_recall
from tagger.evaluate.report.excerpts import EXCERPT_SECONDS, LARGEST_FILE, excerpt
from tagger.tagging.prediction import Prediction
from tagger.tagging.taggram_html import taggram_html
from tagger.tagging.taggram_view import sparklines, taggram_view

# Pictures and sounds of each end of the ranking.
_CLIPS_SHOWN = 4
_CLIPS_LISTED = 10
# Tags of a taggram: those that the clip carries, then those with the highest scores.
_TAGGRAM_TAGS = 14
_CONFUSION_TAGS = 24
# More would not be read, and are in the table.
_MOST_BARS = 192
# More tags are shown by their best, median and worst.
_ALL_CURVES = 36
_CURVES_OF_GROUP = 12
_NAMES_IN_SENTENCE = 6


def framed(frame: Frame, sections: Sequence[Section]) -> Report:
    """Put sections on what was measured between those on everything else.

    Parameters
    ----------
    frame : Frame
        The rest. What there is nothing to show of is left out.
    sections : sequence of Section
        The most important first.

    Returns
    -------
    Report
        Its pictures are not drawn yet.
    """
    first, *others = sections
    begun = [Verdict(f"{frame.verdict[:1].upper()}{frame.verdict[1:]}.")] if frame.verdict else []
    about = [Paragraph(frame.about)] if frame.about else []
    notes: list[Block] = []
    if frame.notes:
        notes = [Heading("Notes"), Listing(tuple(frame.notes))]
    whole = [
        Section(first.title, [*begun, *about, *first.blocks, *notes]),
        Section("Learning", list(_learning(frame))),
        *others,
        Section("Leakage", [Paragraph(sentence) for sentence in frame.leakage]),
        Section("Model card", parse_card(frame.card), folded=True),
        Section("Versions", list(_versions(frame)), folded=True),
        Section("Config", [Code(frame.config)] if frame.config else [], folded=True),
    ]
    return Report(frame.title, [section for section in whole if section.blocks])


def tag_sections(contents: Contents) -> list[Section]:
    """Lay out what there is to show of tags."""
    return [
        Section("Summary", list(_summary(contents))),
        Section("Tags", list(_bars(contents))),
        Section("Precision and recall", list(_curves(contents))),
        Section("Calibration", list(_calibration(contents))),
        Section("Clips", list(_clips(contents))),
        Section("Confusions", list(_confusions(contents))),
        Section("Table of tags", list(_table(contents))),
    ]


def _number(value: float, digits: int = 4) -> Number:
    if math.isnan(value):
        return Number(math.nan, "–")
    if math.isinf(value):
        return Number(value, "∞" if value > 0 else "−∞")
    return Number(value, f"{value:.{digits}f}")


def _estimate(estimate: Estimate, digits: int = 4) -> Number:
    number = _number(estimate.value, digits)
    if math.isnan(estimate.low) or math.isnan(number.value):
        return number
    note = f"{estimate.low:.{digits}f}–{estimate.high:.{digits}f}"
    return Number(number.value, number.text, note)


def _summary(contents: Contents) -> Iterator[Block]:
    n_clips, n_tags = contents.columns.shape
    n_scored = len(contents.per_tag.scored)
    facts = [*contents.facts, ("clips", f"{n_clips}"), ("tags", f"{n_scored} of {n_tags} scored")]
    yield Table(("evaluated", ""), [list(fact) for fact in facts])
    if contents.headline:
        yield from _headline(contents)
    if contents.thresholded:
        yield Heading("With yes or no for each tag")
        yield Paragraph(
            "Most clips lack most tags: to say no to everything is right almost always. These "
            "figures mean something only beside those of saying no."
        )
        yield Table(
            ("", "here", "says no to everything"),
            [(name, _number(ours), _number(no)) for name, ours, no in contents.thresholded],
        )
    n_positive = contents.per_tag.n_positive
    for reason, left_out in (
        ("no clip carries", np.flatnonzero(n_positive == 0)),
        ("every clip carries", np.flatnonzero(n_positive == n_clips)),
    ):
        if len(left_out):
            names = ", ".join(contents.tags[tag] for tag in left_out)
            yield Paragraph(
                f"Left out of all averages, as {reason} them ({len(left_out)}): {names}."
            )


def _headline(contents: Contents) -> Iterator[Block]:
    keys = list(dict.fromkeys(key for row in contents.headline for key in row.figures))
    rows: list[list[Cell]] = []
    for row in contents.headline:
        cells = [
            _estimate(row.figures[key]) if key in row.figures else Number(math.nan, "")
            for key in keys
        ]
        rows.append([row.name, *cells])
    known = any(
        not math.isnan(figure.low) for row in contents.headline for figure in row.figures.values()
    )
    yield Heading("How good it is")
    yield Table(
        ["", *(f"{metric}, {average}" for metric, average in keys)],
        rows,
        strong=sum(row.ours for row in contents.headline),
    )
    intervals = ""
    if known:
        # As they come, draws of few positives have a higher average precision than the clips.
        intervals = (
            " With each figure comes its 95 % interval: as bootstrap draws lie around their mean, "
            "put around the figure."
        )
    yield Paragraph(
        "Macro is the mean of the tags, weighted the mean by how many clips carry them, micro one "
        f"ranking of all scores together.{intervals}"
    )


def _learning(frame: Frame) -> Iterator[Block]:
    if frame.history:
        yield Picture(
            "learning_curves",
            _drawing("learning_curves", frame.history, monitor=frame.monitor),
            "Training and validation loss, the monitored metric and the learning rate by epoch",
        )


def _drawing(name: str, *arguments: Any, **options: Any) -> Callable[[], Any]:
    """Call of a function of `tagger.evaluate.report.figures` that waits until it is needed."""

    def draw() -> Any:
        from tagger.evaluate.report import figures

        return getattr(figures, name)(*arguments, **options)

    return draw


def _bars(contents: Contents) -> Iterator[Block]:
    figures = contents.per_tag
    scored = figures.scored
    if len(scored) == 0:
        yield Paragraph("No tag has both clips that carry it and clips that do not.")
        return
    low, high = figures.pr_auc_low, figures.pr_auc_high
    rate = figures.n_positive / contents.columns.shape[0]
    shown = scored
    said = ""
    if len(scored) > _MOST_BARS:
        order = scored[np.argsort(-figures.pr_auc[scored], kind="stable")]
        shown = np.concatenate([order[: _MOST_BARS // 2], order[-_MOST_BARS // 2 :]])
        said = f" Shown are the {_MOST_BARS // 2} best and as many worst."
    yield Paragraph(f"The area below the curve of precision over recall, by tag.{said}")
    yield Picture(
        "per_tag",
        _drawing(
            "tag_bars",
            [contents.tags[tag] for tag in shown],
            figures.pr_auc[shown],
            positive_rate=rate[shown],
            low=None if low is None else low[shown],
            high=None if high is None else high[shown],
        ),
        "PR-AUC of every tag with its interval, beside its positive rate",
    )


def _curves(contents: Contents) -> Iterator[Block]:
    scored = contents.per_tag.scored
    if len(scored) == 0:
        return
    curves = np.array([precision_over_recall(*contents.columns.column(int(t))) for t in scored])
    rates = contents.per_tag.n_positive[scored] / contents.columns.shape[0]
    yield Picture(
        "precision_recall",
        _drawing("average_curve", curves, positive_rate=float(rates.mean())),
        "Precision over recall: half of the tags, eight of ten, median and mean",
    )
    order = np.argsort(-contents.per_tag.pr_auc[scored], kind="stable")
    if len(order) <= _ALL_CURVES:
        groups = [("", order)]
        said = "every tag, the best first"
    else:
        middle = (len(order) - _CURVES_OF_GROUP) // 2
        groups = [
            ("best", order[:_CURVES_OF_GROUP]),
            ("median", order[middle : middle + _CURVES_OF_GROUP]),
            ("worst", order[-_CURVES_OF_GROUP:]),
        ]
        said = "the best, the median and the worst tags"
    yield Paragraph(f"Curves of {said}, each with its area; dotted is guessing.")
    described = [
        (
            title,
            [
                (
                    contents.tags[scored[place]],
                    curves[place],
                    float(contents.per_tag.pr_auc[scored[place]]),
                    float(rates[place]),
                )
                for place in places
            ],
        )
        for title, places in groups
    ]
    yield Picture(
        "precision_recall_by_tag",
        _drawing("curve_grid", described),
        f"Precision over recall of {said}",
    )


def _calibration(contents: Contents) -> Iterator[Block]:
    if not contents.reliability:
        return
    yield Paragraph(
        "Of the clips with a score of 0.7 for a tag, seven of ten should carry it. The expected "
        "calibration error is the mean distance from that, each score counted once."
    )
    yield Picture(
        "calibration",
        _drawing("reliability_diagram", contents.reliability),
        "Share of positives over mean score, and the number of scores",
    )
    yield Table(
        ("scores", "expected calibration error"),
        [(curve.name, _number(curve.error)) for curve in contents.reliability],
    )


def _clips(contents: Contents) -> Iterator[Block]:
    scored = contents.per_tag.scored
    if len(scored) == 0:
        return
    losses = clip_losses(contents.columns, (int(tag) for tag in scored))
    order = np.argsort(losses, kind="stable")
    n_shown = min(_CLIPS_SHOWN if contents.taggram else _CLIPS_LISTED, len(order) // 2)
    ends = [("Best", order[:n_shown]), ("Worst", order[::-1][:n_shown])]
    rows = np.concatenate([clips for _, clips in ends])
    labels, scores = clips_of(contents.columns, rows)
    thresholds = contents.per_tag.thresholds
    given_from = np.full(len(contents.tags), 0.5) if thresholds is None else thresholds.copy()
    given_from[np.isnan(given_from)] = 0.5
    given = scores >= given_from
    whose = contents.confusion_thresholds or "one half"
    yield Paragraph(
        "Clips by the cross-entropy of their scores with their labels, mean of the tags scored; "
        f"the median of all is {np.median(losses):.4f}. Missed and wrongly given by thresholds: "
        f"{whose}."
    )
    lines: list[list[Cell]] = []
    place = 0
    pictured: list[Block] = []
    for title, clips in ends:
        for rank, clip in enumerate(clips, start=1):
            name = f"{title} {rank}"
            label, score = labels[place], scores[place]
            missed = _names(contents, label & ~given[place], score)
            wrong = _names(contents, given[place] & ~label, score)
            label_names = _names(contents, label, score)
            clip_name = contents.clip_names[clip] if contents.clip_names else f"clip\u00a0{clip}"
            loss = _number(float(losses[clip]))
            lines.append([f"{title}\u00a0{rank}", clip_name, loss, label_names, missed, wrong])
            if contents.taggram:
                pictured += _one_clip(
                    contents, int(clip), title=name, label=label, scores=score, name=clip_name
                )
            place += 1
    header = ("", "clip", "cross-entropy", "carries", "missed", "wrongly given")
    yield Table(header, lines)
    if pictured:
        yield Paragraph(
            "Scores over time. The tags that a clip carries are marked with a dot, and behind each "
            f"name is its score for the whole clip. Files of more than {LARGEST_FILE // 1000} kB "
            f"are heard for their first {EXCERPT_SECONDS} seconds."
        )
    yield from pictured


def _names(contents: Contents, which: npt.NDArray[np.bool_], scores: Floats) -> str:
    """Names and scores of some tags, the highest first."""
    tags = np.flatnonzero(which)
    tags = tags[np.argsort(-scores[tags], kind="stable")]
    shown = [f"{contents.tags[tag]} {scores[tag]:.2f}" for tag in tags[:_NAMES_IN_SENTENCE]]
    more = len(tags) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") if shown else "–"


def _one_clip(
    contents: Contents,
    clip: int,
    *,
    title: str,
    label: npt.NDArray[np.bool_],
    scores: Floats,
    name: str,
) -> Iterator[Block]:
    assert contents.taggram is not None
    stem = title.lower().replace(" ", "_")
    yield Heading(f"{title}: {PurePath(name).name}")
    path = contents.audio(clip) if contents.audio else None
    sound = excerpt(path) if path is not None else None
    if sound is not None:
        yield Player(stem, *sound, label=name)
    try:
        prediction = _measured(contents, contents.taggram(clip), scores)
    except TaggerError as error:
        # A file that has gone since is no reason to have no report.
        yield Paragraph(f"No scores over time: {error}.")
        return
    order = np.argsort(-prediction.scores, kind="stable")
    true = [int(tag) for tag in order if label[tag]]
    others = [int(tag) for tag in order if not label[tag]]
    # Of many true tags the lowest, which are the missed ones, matter too.
    true = true if len(true) <= _TAGGRAM_TAGS else [*true[: _TAGGRAM_TAGS // 2], *true[-7:]]
    shown = true + others[: max(3, _TAGGRAM_TAGS - len(true))]
    if path is not None:
        prediction = replace(prediction, path=str(path))
    view = taggram_view(prediction, shown=shown, marked=label)
    written = taggram_html(view, player="" if sound is None else stem.replace("_", "-"))
    yield Taggram(written, sparklines(view))


def _measured(contents: Contents, found: Prediction, scores: Floats) -> Prediction:
    """Restrict a prediction to the tags that were measured, of which a model may know more.

    Its scores of the clip become those that were measured, which may be calibrated, and its
    thresholds those that were used.
    """
    tags, limits = contents.tags, contents.per_tag.thresholds
    column_of = {tag: column for column, tag in enumerate(found.tags)}
    unknown = [tag for tag in tags if tag not in column_of]
    if unknown:
        raise ModelError(f"the model does not know the tag {unknown[0]!r}")
    columns = [column_of[tag] for tag in tags]
    return replace(
        found,
        tags=tags,
        taggram=found.taggram[:, columns],
        scores=scores.astype(np.float32),
        thresholds=None if limits is None else limits.astype(np.float32),
    )


def _confusions(contents: Contents) -> Iterator[Block]:
    counts = contents.confusion
    if counts is None or not counts.any():
        return
    missed = _most(counts.sum(axis=1))
    given = _most(counts.sum(axis=0))
    whose = contents.confusion_thresholds
    decided = f" Thresholds: {whose}." if whose else ""
    yield Paragraph(
        "Clips in which the tag of the row is missed and that of the column is wrongly given, of "
        f"the tags with most errors (at most {_CONFUSION_TAGS}).{decided}"
    )
    yield Picture(
        "confusions",
        _drawing(
            "confusion_map",
            counts[np.ix_(missed, given)],
            missed=[contents.tags[tag] for tag in missed],
            given=[contents.tags[tag] for tag in given],
        ),
        "Counts of clips by missed and wrongly given tag",
    )
    if contents.confused:
        yield Paragraph(
            "Tags that err often also err together by chance. These pairs do so most beyond that:"
        )
        yield Table(
            ("missed", "wrongly given", "clips", "times chance"),
            [
                (contents.tags[row], contents.tags[column], Number(n, f"{n}"), _number(lift, 1))
                for row, column, n, lift in contents.confused
            ],
        )


def _most(errors: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    order = np.argsort(-errors, kind="stable")[:_CONFUSION_TAGS]
    return order[errors[order] > 0]


def _table(contents: Contents) -> Iterator[Block]:
    figures = contents.per_tag
    scored = figures.scored
    if len(scored) == 0:
        return
    n_clips = contents.columns.shape[0]
    low, high = figures.pr_auc_low, figures.pr_auc_high
    rows: list[Sequence[Cell]] = []
    for tag in scored[np.argsort(-figures.pr_auc[scored], kind="stable")]:
        ends = () if low is None or high is None else (float(low[tag]), float(high[tag]))
        area = _estimate(Estimate(float(figures.pr_auc[tag]), *ends), 3)
        n_positive = int(figures.n_positive[tag])
        rows.append(
            [
                contents.tags[tag],
                Number(n_positive, f"{n_positive}"),
                _number(n_positive / n_clips, 3),
                _number(float(figures.roc_auc[tag]), 3),
                area,
                *(_number(float(column[tag]), 3) for column in figures.more.values()),
            ]
        )
    header = ["tag", "clips", "positive rate", "ROC-AUC", "PR-AUC", *figures.more]
    yield Table(header, rows, sortable=True)


def _versions(frame: Frame) -> Iterator[Block]:
    if frame.versions:
        yield Table(("package", "version"), list(frame.versions.items()))
