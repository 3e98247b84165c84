"""Verbs that measure, compare and calibrate models."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tagger.base.errors import ConfigError
from tagger.base.log import failed
from tagger.cli.app import (
    EXIT_SOME_FAILED,
    ConfigOption,
    SetOption,
    choice,
    config_of,
    unused,
    verb,
)

DrawsOption = Annotated[
    int, typer.Option("--draws", min=0, help="Bootstrap draws of the intervals; 0 for none.")
]
PairedDrawsOption = Annotated[int, typer.Option("--draws", min=1, help="Bootstrap draws.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap draws.")]


SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|BUNDLE|NAME|SCORES.npz",
        help="A run, a bundle, a name of 'tagger models list', or scores of any model.",
    ),
]
ProtocolOption = Annotated[
    str,
    typer.Option(
        "--protocol",
        help="Clips and tags: own (of the model), won, pons or all (MagnaTagATune's).",
    ),
]
PartOption = Annotated[
    str | None,
    typer.Option("--part", help="Part of the split: test (default), validation or train."),
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FOLDER",
        help="Where report.html and report.md go; default beside the scores, and for "
        "SCORES.npz nowhere.",
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", metavar="STORE", help="Patches instead of audio, or moved ones."),
]
ResultsOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Scores and metrics of a bundle; default evaluation/NAME/PROTOCOL-PART.",
    ),
]


@verb(
    "evaluate",
    short="Measure a model on labelled clips; write a report.",
    examples_=(
        "tagger evaluate runs/mine",
        "tagger evaluate musicnn-mtt --set data.root=data/magnatagatune",
        "tagger evaluate scores.npz",
    ),
)
def evaluate(
    source: SourceArgument,
    protocol: ProtocolOption = "own",
    part: PartOption = None,
    format_: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
    report: ReportOption = None,
    store: StoreOption = None,
    output: ResultsOption = None,
    draws: DrawsOption = 1000,
    seed: SeedOption = 0,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Measure a run, a bundle or any model's scores (arrays est and gt), with intervals."""
    from preprocess.clips.splits import PARTS
    from tagger.evaluate.protocols import PROTOCOLS

    choice("--format", format_, ("table", "json"))
    choice("--protocol", protocol, PROTOCOLS.names())
    if part is not None:
        choice("--part", part, PARTS)

    from tagger.evaluate.evaluate import evaluate_model, evaluate_run, evaluate_scores
    from tagger.evaluate.evaluate_fitted import evaluate_fitted
    from tagger.evaluate.evaluation import to_json_text
    from tagger.runs.folder import RunFolder

    if source.suffix.lower() == ".npz":
        # What would be ignored is refused.
        unused("a file of scores", {"--part": part, "--store": store, "--output": output})
        if protocol == "own":
            given = {"--set": set_, "--config": config}
            unused("a file of scores without a --protocol", given)
        settings = config_of(config, set_) if config or set_ else None
        evaluation = evaluate_scores(
            source, protocol=protocol, config=settings, report=report, n_draws=draws, seed=seed
        )
    elif _is_model(source):
        evaluation = evaluate_model(
            str(source),
            part=part or "test",
            protocol=protocol,
            config=config,
            overrides=set_,
            store=store,
            output=output,
            report=report,
            n_draws=draws,
            seed=seed,
        )
    elif (run := RunFolder.at(source)).exists() and run.is_fitted:
        own = {"--part": part, "--store": store, "--output": output}
        unused("a fitted run, which keeps the scores of its folds", own)
        unused("a fitted run", {"--config": config, "--set": set_})
        evaluation = evaluate_fitted(run, n_draws=draws, seed=seed, report=report)
    else:
        unused("a run, which has its own (use --set)", {"--config": config, "--output": output})
        moved = [] if store is None else [f"store.root={store}"]
        evaluation = evaluate_run(
            source,
            part=part or "test",
            protocol=protocol,
            overrides=[*(set_ or []), *moved],
            report=report,
            n_draws=draws,
            seed=seed,
        )
    print(to_json_text(evaluation) if format_ == "json" else evaluation.table())
    for kind, path in evaluation.files.items():
        print(f"{kind}: {path}", file=sys.stderr if format_ == "json" else sys.stdout)
    for message in evaluation.failures.values():
        failed(message)
    if evaluation.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _is_model(source: Path) -> bool:
    """Whether it is a bundle or the name of a registered model, and no run."""
    from tagger.bundle.models import registered_models
    from tagger.bundle.read import Bundle

    return Bundle.is_at(source) or (not source.exists() and str(source) in registered_models())


@verb(
    "compare",
    short="Say which differences of two models are real.",
    examples_=("tagger compare runs/first runs/second",),
)
def compare(
    first: Annotated[
        Path, typer.Argument(metavar="A", help="An evaluated run, or scores of any model (.npz).")
    ],
    second: Annotated[Path, typer.Argument(metavar="B", help="The same, of the same clips.")],
    evaluation: Annotated[
        str | None,
        typer.Option(
            "--evaluation",
            help="Which one of a run: test, validation, won-test, ...; default folds or test.",
        ),
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
    draws: PairedDrawsOption = 1000,
    seed: SeedOption = 0,
) -> None:
    """Say which differences between two models are more than chance (paired bootstrap)."""
    choice("--format", format_, ("table", "json"))

    from tagger.evaluate.compare import compare as run_compare

    result = run_compare(first, second, evaluation=evaluation, n_draws=draws, seed=seed)
    print(result.to_json_text() if format_ == "json" else result.table())


@verb(
    "calibrate",
    short="Fit thresholds and calibration of a run anew.",
    examples_=(
        "tagger calibrate runs/mine --method isotonic",
        "tagger calibrate runs/mine --precision 0.9",
    ),
)
def calibrate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A trained run.")],
    method: Annotated[
        str | None, typer.Option("--method", help="none, temperature or isotonic.")
    ] = None,
    thresholds: Annotated[
        str | None, typer.Option("--thresholds", help="Objective: f1 or precision.")
    ] = None,
    precision: Annotated[
        float | None, typer.Option("--precision", min=0.01, max=1, help="Target precision.")
    ] = None,
) -> None:
    """Fit calibration and thresholds of a run anew on its validation clips, and export it."""
    if precision is not None and thresholds not in (None, "precision"):
        raise ConfigError(
            f"--precision means nothing with --thresholds {thresholds}; leave one of them out"
        )

    from tagger.train.decisions import refit_decisions

    wanted = {"method": method, "thresholds": thresholds, "precision": precision}
    given = [f"calibration.{key}={value}" for key, value in wanted.items() if value is not None]
    if precision is not None and thresholds is None:
        given.append("calibration.thresholds=precision")
    for line in refit_decisions(run, overrides=given):
        print(line)
