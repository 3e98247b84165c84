"""The page and the table of a study."""

import csv
import io
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tagger.base.blocks import (
    Block,
    Cell,
    Heading,
    Listing,
    Number,
    Paragraph,
    Picture,
    Report,
    Section,
    Table,
)
from tagger.base.errors import ModelError
from tagger.base.extras import install_command
from tagger.base.files import write_text
from tagger.base.log import warn
from tagger.config import Config
from tagger.evaluate.compare import compare
from tagger.evaluate.evaluate import evaluate_scores
from tagger.evaluate.evaluation import Evaluation
from tagger.evaluate.measure import TagsMeasured
from tagger.evaluate.measure_label import LabelMeasured
from tagger.study.cost import Kind, Point, cost_picture
from tagger.study.kept import SCORES, folder_of
from tagger.study.pictures import data_pictures
from tagger.study.study_file import Study, Variant

TABLE = "study.csv"
_LEAKY = "leaky_segments"
_FIGURES = {
    "accuracy": "accuracy",
    "f1_macro": "F1, macro",
    "pr_auc_macro": "PR-AUC, macro",
    "roc_auc_macro": "ROC-AUC, macro",
}
_MOST_MATRICES = 6


def write_page(
    study: Study,
    folder: Path,
    results: dict[str, dict[str, Any]],
    *,
    configs: dict[str, Config],
    failures: dict[str, str],
) -> dict[str, Path]:
    """Write the page and the table of a study.

    Parameters
    ----------
    study : Study
        Its file.
    folder : Path
        Of the study.
    results : dict of str to dict
        What was found of each variant, by name.
    configs : dict of str to Config
        Of the variants.
    failures : dict of str to str
        Variants that could not be fitted: name -> reason.

    Returns
    -------
    dict of str to Path
        What was written, by kind.
    """
    evaluations = {name: evaluate_scores(folder_of(folder, name) / SCORES) for name in results}
    rows = [
        _row(variant, results[variant.name], evaluations[variant.name])
        for variant in study.variants
        if variant.name in results
    ]
    rows.sort(key=lambda row: -row["figures"].get(study.compared_by, (-1.0,))[0])
    table = folder / TABLE
    write_text(table, _csv(rows))
    files = {"table": table}
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        warn(f"no page, as matplotlib is not installed; {install_command('plots')} brings it")
        return files
    from tagger.evaluate.report import write_report

    leaky = [name for name in results if configs[name].data.split == _LEAKY]
    sections = [
        Section("Variants", list(_variants(study, rows, leaky, failures))),
        Section(f"{_FIGURES[study.compared_by].capitalize()} and cost", list(_costs(study, rows))),
        Section("Which differences are real", list(_differences(study, folder, rows))),
        Section("Confusions", list(_matrices(rows, evaluations))),
        Section("The data", list(data_pictures(study, configs[next(iter(results))]))),
        Section("What was fitted", list(_fits(rows, configs)), folded=True),
    ]
    report = Report(study.title, [section for section in sections if section.blocks])
    return files | write_report(report, folder)


def _row(variant: Variant, found: dict[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    """Collect what the table has of a variant."""
    measured = evaluation.measured
    summary = measured.summary
    ends: dict[str, tuple[float, float]] = {}
    if isinstance(measured, LabelMeasured):
        ends = measured.figures.intervals
    elif isinstance(measured, TagsMeasured):
        ends = measured.intervals.summary
    nan = (math.nan, math.nan)
    figures = {
        name: (float(summary[name]), *ends.get(name, nan)) for name in _FIGURES if name in summary
    }
    return {
        "name": variant.name,
        "variant": variant,
        "figures": figures,
        "n_test": int(summary["n_clips"]),
        **found,
    }


def _csv(rows: list[dict[str, Any]]) -> str:
    names = [name for name in _FIGURES if any(name in row["figures"] for row in rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    bounds = [f"{name}_{end}" for name in names for end in ("low", "high")]
    writer.writerow(
        ["variant", *names, *bounds, "published", "n_train", "n_test"]
        + ["fit_seconds", "ms_per_clip", "bytes", "found"]
    )
    for row in rows:
        figures = [row["figures"].get(name, (math.nan,) * 3) for name in names]
        published = "; ".join(
            f"{item.metric} {item.value:g} ({item.source})" for item in row["variant"].published
        )
        writer.writerow(
            [row["name"], *(f"{value:.4f}" for value, _, _ in figures)]
            + [f"{end:.4f}" for _, *ends in figures for end in ends]
            + [published, row["n_train"], row["n_test"], f"{row['fit_seconds']:.2f}"]
            + [f"{row['ms_per_clip']:.2f}", int(row["bytes"]), row["found"]]
        )
    return text.getvalue()


def _variants(
    study: Study, rows: list[dict[str, Any]], leaky: list[str], failures: dict[str, str]
) -> Iterator[Block]:
    if study.about:
        yield Paragraph(study.about)
    if leaky:
        yield Paragraph(
            f"Segments of the same clip lie on both sides of the split of {', '.join(leaky)}: "
            "these figures say how well a clip is recognised again, and nothing of new music.",
            alarm=True,
        )
    names = [name for name in _FIGURES if any(name in row["figures"] for row in rows)]
    header = ["variant", *(_FIGURES[name] for name in names), "published", "test clips"]
    header += ["fit, s", "ms per clip", "kB"]
    lines: list[list[Cell]] = []
    for row in rows:
        line: list[Cell] = [row["name"]]
        for name in names:
            value, low, high = row["figures"].get(name, (math.nan,) * 3)
            note = "" if math.isnan(low) else f"{low:.3f}–{high:.3f}"
            line.append(Number(value, "–" if math.isnan(value) else f"{value:.3f}", note))
        line.append("; ".join(_published(row)) or "–")
        line += [
            Number(row["n_test"], str(row["n_test"])),
            Number(row["fit_seconds"], f"{row['fit_seconds']:.1f}"),
            Number(row["ms_per_clip"], f"{row['ms_per_clip']:.1f}"),
            Number(row["bytes"], f"{row['bytes'] / 1000:.0f}"),
        ]
        lines.append(line)
    yield Table(header, lines, sortable=True)
    yield Paragraph(
        "With each figure comes its 95 % bootstrap interval over the test clips. Beside a "
        "published figure it says whether that lies inside the interval."
    )
    notes = [f"{row['name']}: {row['variant'].note}" for row in rows if row["variant"].note]
    notes += [f"{name} could not be fitted: {why}" for name, why in failures.items()]
    if notes:
        yield Listing(tuple(notes))


def _costs(study: Study, rows: list[dict[str, Any]]) -> Iterator[Block]:
    """Draw how good each variant is over what a clip costs."""
    points = []
    for row in rows:
        variant = row["variant"]
        kind: Kind = "vote" if variant.vote_of else "trained" if study.trains(variant) else "fitted"
        figures = row["figures"].get(study.compared_by)
        if figures is not None and not math.isnan(figures[0]):
            value, low, high = figures
            points.append(Point(row["name"], kind, value, low, high, row["ms_per_clip"]))
    if len(points) > 1:
        name = _FIGURES[study.compared_by]
        yield Picture(
            "cost", partial(cost_picture, points, metric=name), f"{name} of each variant over cost"
        )
        yield Paragraph(
            "From what a front end or a published model has made of a clip to its scores, on this "
            "machine; decoding and the front end are the same for all that share them. Vertical "
            "lines are the intervals."
        )


def _published(row: dict[str, Any]) -> Iterator[str]:
    for item in row["variant"].published:
        value, low, high = row["figures"].get(item.metric, (math.nan,) * 3)
        where = ""
        if not math.isnan(low):
            inside = low <= item.value <= high
            where = ", inside" if inside else f", {'above' if item.value > value else 'below'} it"
        yield f"{item.value:.3f} ({item.source}{where})"


def _differences(study: Study, folder: Path, rows: list[dict[str, Any]]) -> Iterator[Block]:
    """Compare the best with each of the others, on the same clips."""
    if len(rows) < 2:
        return
    best, *others = rows
    lines: list[list[Cell]] = []
    wanted = {"accuracy": "accuracy", "pr_auc_macro": "PR-AUC macro"}.get(
        study.compared_by, "ROC-AUC macro"
    )
    for row in others:
        try:
            found = compare(
                folder_of(folder, row["name"]) / SCORES, folder_of(folder, best["name"]) / SCORES
            )
        except ModelError:
            # Of other clips.
            continue
        item = next((one for one in found.summary if one.name == wanted), found.summary[0])
        low, high = item.interval
        p = "" if found.mcnemar is None else f"{found.mcnemar[2]:.3f}"
        note = f"{low:+.3f} to {high:+.3f}"
        lines.append(
            [
                row["name"],
                Number(item.difference, f"{item.difference:+.3f}", note),
                p,
                "yes" if item.real else "no",
            ]
        )
    if lines:
        yield Paragraph(
            f"How much better {best['name']!r} is than each other variant that was tested on the "
            f"same clips, by {wanted}: paired bootstrap, and McNemar's p for one label per clip."
        )
        yield Table((f"{best['name']} against", "difference", "McNemar's p", "real"), lines)


def _matrices(rows: list[dict[str, Any]], evaluations: dict[str, Evaluation]) -> Iterator[Block]:
    for number, row in enumerate(rows[:_MOST_MATRICES]):
        evaluation = evaluations[row["name"]]
        measured = evaluation.measured
        if not isinstance(measured, LabelMeasured):
            continue
        yield Heading(row["name"])
        yield Picture(
            f"confusion_{number}",
            partial(_confusion, measured, evaluation.tags),
            f"Clips by their label and by what {row['name']} said",
        )


def _confusion(measured: LabelMeasured, names: tuple[str, ...]) -> Any:
    from tagger.evaluate.report.figures import confusion_map

    return confusion_map(
        measured.figures.matrix,
        missed=names,
        given=names,
        row_title="label",
        column_title="said",
    )


def _fits(rows: list[dict[str, Any]], configs: dict[str, Config]) -> Iterator[Block]:
    lines: list[list[Cell]] = []
    for row in rows:
        data = configs[row["name"]].data
        folds = f"{data.split}, {row['n_folds']} fold{'s' if row['n_folds'] > 1 else ''}"
        n_train = Number(row["n_train"], str(row["n_train"]))
        lines.append([row["name"], folds, n_train, row["found"]])
    yield Table(("variant", "split", "training clips", "what was chosen and fitted"), lines)
    total = float(np.sum([row["fit_seconds"] * row["n_folds"] for row in rows]))
    yield Paragraph(f"All fits together took {total:.0f} s.")
