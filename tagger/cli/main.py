"""The command line: parses and calls. Heavy imports happen inside the commands."""

import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tagger.base.errors import ConfigError, TaggerError
from tagger.base.log import LOG_FORMAT_VARIABLE, failed, say_error, set_log_format
from tagger.cloud.locations import location, require_local

if TYPE_CHECKING:
    from preprocess.engines.run import Engine
    from tagger.config import Config
    from tagger.tagging.inputs import Input
    from tagger.tagging.tagger import Tagger

EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
_QUANTIZATIONS = ("none", "dynamic", "float16")

app = typer.Typer(
    name="tagger",
    help="Tag music: train a tagger on your own labels, tag any audio.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    log_format: Annotated[
        str,
        typer.Option(
            "--log-format",
            envvar=LOG_FORMAT_VARIABLE,
            help="What is said on stderr: text, or json with an object per line. With any verb.",
        ),
    ] = "text",
) -> None:
    set_log_format(log_format)


ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="YAML config; see configs/base.yaml."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key, e.g. train.epochs=5. Repeatable."
    ),
]


def _config(path: Path | None, overrides: list[str] | None) -> "Config":
    from tagger.config import load_config

    return load_config(path, overrides)


@app.command()
def preprocess(
    beam_options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- BEAM OPTION...]", help="Options of the Beam pipeline, after two dashes."
        ),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only list what is wrong with the clips.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check stored pickles and rebuild damaged ones.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option("--engine", help="local: processes here; beam: an Apache Beam pipeline."),
    ] = "local",
) -> None:
    """Slice the clips of a data set into log-mel patches and store them with their labels."""
    run_clips = _engine(engine, beam_options or [])
    from preprocess.clips.datasets import DATASETS
    from preprocess.engines.workers import default_workers, workers_ready

    settings = _config(config, set_)
    root = settings.data.root
    # Elsewhere, or to check, they are not needed.
    here = engine == "local" and not check
    n_workers = (settings.store.workers or default_workers()) if here else 1
    with workers_ready(n_workers):
        index = DATASETS.create(settings.data.name, settings.data.params).index(root)
        if check:
            _check(settings, index)
            return

        from preprocess.engines.run import preprocess as run_preprocess
        from tagger.base.log import warn

        result = run_preprocess(
            index,
            settings.make_front_end(),
            audio_root=root,
            store_root=settings.store.root,
            dtype=settings.store.dtype,
            n_workers=settings.store.workers,
            verify=verify,
            engine=run_clips,
        )
    for path in result.padded:
        warn(f"{path}: shorter than a patch, padded with zeros")
    for message in result.failures.values():
        failed(message)
    print(
        f"{settings.store.root}: {result.n_clips} clips ({result.n_written} written, "
        f"{result.n_relabelled} relabelled, {result.n_kept} kept), {len(result.failures)} failed"
    )
    if result.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _engine(name: str, beam_options: list[str]) -> "Engine":
    _choice("--engine", name, ("local", "beam"))
    if name == "beam":
        from preprocess.engines.beam import BeamEngine

        return BeamEngine(beam_options)
    if beam_options:
        raise ConfigError(f"{beam_options[0]}: options after -- are Beam's; add --engine beam")
    from preprocess.engines.run import run_here

    return run_here


def _check(settings: "Config", index: Any) -> None:
    from preprocess.engines.check import CONSEQUENCES, FATAL
    from preprocess.engines.check import check as run_check

    findings = run_check(
        index,
        settings.make_front_end(),
        audio_root=settings.data.root,
        n_workers=settings.store.workers,
    )
    for finding in findings:
        print(f"{finding.kind}: {finding.path}: {finding.detail}; {finding.consequence}")
    kinds = [finding.kind for finding in findings]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in CONSEQUENCES)
    print(f"{len(index)} clips, {len(index.tags)} tags: {counts}")
    if FATAL & set(kinds):
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
def train(
    config: ConfigOption = None,
    set_: SetOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in run.root if there is one.")
    ] = False,
    profile_input: Annotated[
        bool, typer.Option("--profile-input", help="Say how long training waits for data.")
    ] = False,
) -> None:
    """Train a tagger on a patch store."""
    settings = _config(config, set_)

    from tagger.train.loop import train as run_train

    result = run_train(settings, resume=resume, profile_input=profile_input)
    if not result.finished:
        raise typer.Exit(EXIT_INTERRUPTED)
    print(f"{result.run}: {len(result.history)} epochs, best epoch {result.best_epoch}")


@app.command()
def search(
    config: ConfigOption = None,
    set_: SetOption = None,
    space: Annotated[
        Path | None,
        typer.Option("--space", metavar="FILE", help="YAML: key -> list, or low and high."),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trials in all.")] = 20,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="What is kept, and goes on from."),
    ] = None,
) -> None:
    """Try settings of a config within a space, with Optuna; go on where it stopped."""
    if space is None or output is None:
        raise ConfigError("search needs --space FILE and --output FOLDER; give both")
    require_local(output, "--output")
    settings = _config(config, set_)

    from tagger.train.search import search as run_search

    result = run_search(settings, space, folder=output, n_trials=trials)
    print(result.table())
    if not result.finished:
        raise typer.Exit(EXIT_INTERRUPTED)
    if result.n_failed:
        raise typer.Exit(EXIT_SOME_FAILED)


DrawsOption = Annotated[
    int, typer.Option("--draws", min=0, help="Bootstrap draws of the intervals; 0 for none.")
]
PairedDrawsOption = Annotated[int, typer.Option("--draws", min=1, help="Bootstrap draws.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap draws.")]


@app.command()
def evaluate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|BUNDLE|NAME|SCORES.npz",
            help="A run, a bundle, a name of 'tagger models list', or scores of any model.",
        ),
    ],
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            help="Clips and tags: own (of the model), won, pons or all (MagnaTagATune's).",
        ),
    ] = "own",
    part: Annotated[
        str | None,
        typer.Option("--part", help="Part of the split: test (default), validation or train."),
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FOLDER",
            help="Where report.html and report.md go; default beside the scores, and for "
            "SCORES.npz nowhere.",
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="STORE", help="Patches instead of audio, or moved ones."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Scores and metrics of a bundle; default evaluation/NAME/PROTOCOL-PART.",
        ),
    ] = None,
    draws: DrawsOption = 1000,
    seed: SeedOption = 0,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Measure a run, a bundle or any model's scores (arrays est and gt), with intervals."""
    from preprocess.clips.splits import PARTS
    from tagger.evaluate.protocols import PROTOCOLS

    _choice("--format", format_, ("table", "json"))
    _choice("--protocol", protocol, PROTOCOLS.names())
    if part is not None:
        _choice("--part", part, PARTS)

    from tagger.evaluate.evaluate import evaluate_run, evaluate_scores, to_json_text

    if source.suffix.lower() == ".npz":
        # What would be ignored is refused.
        _unused("a file of scores", {"--part": part, "--store": store, "--output": output})
        if protocol == "own":
            given = {"--set": set_, "--config": config}
            _unused("a file of scores without a --protocol", given)
        settings = _config(config, set_) if config or set_ else None
        evaluation = evaluate_scores(
            source, protocol=protocol, config=settings, report=report, n_draws=draws, seed=seed
        )
    elif _is_model(source):
        from tagger.evaluate.evaluate_model import evaluate_model

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
    else:
        _unused("a run, which has its own (use --set)", {"--config": config, "--output": output})
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


def _unused(what: str, options: dict[str, Any]) -> None:
    for option, value in options.items():
        if value:
            raise ConfigError(f"{option} means nothing for {what}; leave it out")


@app.command()
def compare(
    first: Annotated[
        Path, typer.Argument(metavar="A", help="An evaluated run, or scores of any model (.npz).")
    ],
    second: Annotated[Path, typer.Argument(metavar="B", help="The same, of the same clips.")],
    evaluation: Annotated[
        str,
        typer.Option("--evaluation", help="Which one of a run: test, validation, won-test, ..."),
    ] = "test",
    format_: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
    draws: PairedDrawsOption = 1000,
    seed: SeedOption = 0,
) -> None:
    """Say which differences between two models are more than chance (paired bootstrap)."""
    _choice("--format", format_, ("table", "json"))

    from tagger.evaluate.compare import compare as run_compare

    result = run_compare(first, second, evaluation=evaluation, n_draws=draws, seed=seed)
    print(result.to_json_text() if format_ == "json" else result.table())


@app.command()
def calibrate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A trained run.")],
    method: Annotated[
        str | None, typer.Option("--method", help="none, temperature or isotonic.")
    ] = None,
    thresholds: Annotated[
        str | None, typer.Option("--thresholds", help="What they are best for: f1 or precision.")
    ] = None,
    precision: Annotated[
        float | None, typer.Option("--precision", min=0.01, max=1, help="Wanted share.")
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


ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        envvar="TAGGER_MODEL",
        help="Run or bundle (folder or gs://), or a name of 'tagger models list'; default the "
        "newest run below runs/, else musicnn-mtt.",
    ),
]
QuantizeOption = Annotated[
    str,
    typer.Option("--quantize", help="Which of the model's exports: none, dynamic or float16."),
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Threads that decode and compute; default the processors."),
]
MiddleOption = Annotated[
    float | None,
    typer.Option(
        "--window-middle", metavar="SECONDS", min=0.01, help="Only so much of a file's middle."
    ),
]
InputsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE...",
        help="Audio files, folders, quoted patterns; - is audio on standard input.",
    ),
]
FilesFromOption = Annotated[
    Path | None,
    typer.Option(
        "--files-from", metavar="LIST", help="File with a name per line; - is standard input."
    ),
]
NullOption = Annotated[
    bool,
    typer.Option("-0", "--null", help="Names of the list end in NUL, as 'find -print0' has them."),
]


def _one_thread_per_product() -> None:
    # Read by NumPy when it is imported: threads of its own would only disturb ours.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _inputs(
    names: list[str] | None,
    files_from: Path | None,
    *,
    null: bool = False,
    only_asked: bool = False,
) -> "list[Input]":
    """Files that are meant; with `only_asked`, refused where that may be more than was thought."""
    from tagger.tagging.inputs import (
        expand_inputs,
        read_list,
        refuse_wide_writes,
        refuse_writes_outside,
    )

    if files_from == Path("-") and "-" in (names or []):
        raise ConfigError("- and --files-from - both read standard input; give one of them")
    listed: list[str] = []
    if files_from is None and null:
        raise ConfigError("-0 tells how the names of a list end; give --files-from LIST with it")
    if files_from == Path("-"):
        listed = read_list(sys.stdin.buffer, "--files-from -", null=null)
    elif files_from is not None:
        try:
            with location(files_from).open("rb") as stream:
                listed = read_list(stream, f"--files-from {files_from}", null=null)
        except OSError as error:
            raise ConfigError(
                f"--files-from {files_from}: cannot be read ({error.strerror}); check the path"
            ) from None
    if not names and not listed:
        raise ConfigError("no files given; name audio files or folders, or use --files-from")
    if only_asked:
        refuse_wide_writes(names or [], listed)
    files = expand_inputs([*(names or []), *listed])
    if only_asked:
        refuse_writes_outside(files)
    return files


def _load_tagger(model: str | None, quantize: str, jobs: int | None) -> "Tagger":
    from tagger.base.log import notice
    from tagger.bundle.find import default_model
    from tagger.tagging.tagger import Tagger

    if model is None:
        model = default_model()
        notice(f"model: {model}")
    return Tagger.load(model, quantize=quantize, jobs=jobs)


@app.command(name="predict-tags")
def predict_tags(
    inputs: InputsArgument = None,
    files_from: FilesFromOption = None,
    null: NullOption = False,
    model: ModelOption = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, help="At most so many tags of each file.")
    ] = 10,
    threshold: Annotated[
        str | None,
        typer.Option(
            "--threshold",
            metavar="SCORE|auto",
            help="Only tags that score this; auto: the model's own threshold of each tag.",
        ),
    ] = None,
    segments: Annotated[
        bool, typer.Option("--segments", help="Tags of each window, with its times.")
    ] = False,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Tags of segments: neighbouring windows over the threshold."),
    ] = False,
    format_: Annotated[
        str,
        typer.Option("--format", help="table, json, jsonl, csv, parquet, audacity, npz or png."),
    ] = "table",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File, or folder of audacity, npz and png; default stdout."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew instead of going on with the output.")
    ] = False,
    taggram: Annotated[
        Path | None,
        typer.Option(help="Also draw tags over time: a .png file, or a folder for several files."),
    ] = None,
    write_tags: Annotated[
        bool, typer.Option("--write-tags", help="Also write them into the files, as their genre.")
    ] = False,
    undo_write_tags: Annotated[
        bool, typer.Option("--undo-write-tags", help="Only give the files their old genre back.")
    ] = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Write into the files of a whole disk or home folder as well."),
    ] = False,
    middle: MiddleOption = None,
    quantize: QuantizeOption = "none",
    jobs: JobsOption = None,
) -> None:
    """Tag audio files. Without a model of your own, musicnn-mtt is fetched and used."""
    _one_thread_per_product()
    from tagger.tagging.records import Selection
    from tagger.tagging.tag_files import Options, refuse_impossible, tag_files, undo_tags
    from tagger.tagging.writers import WRITERS

    _choice("--format", format_, WRITERS.names())
    _choice("--quantize", quantize, _QUANTIZATIONS)
    for option, place in (("--output", output), ("--taggram", taggram)):
        if place is not None:
            require_local(place, option)
    score = _threshold(threshold)
    _finite("--window-middle", middle)
    writes = write_tags or undo_write_tags
    files = _inputs(inputs, files_from, null=null, only_asked=writes and not yes)
    if undo_write_tags:
        n_restored, n_failed = undo_tags(files)
        print(f"{n_restored} of {len(files)} files have their genre back")
    else:
        default = WRITERS.get(format_).default_segments
        mode = "merged" if merge else "windows" if segments else default
        options = Options(
            format=format_,
            output=output,
            selection=Selection(
                top_k=top_k, threshold=score, model_thresholds=threshold == "auto", segments=mode
            ),
            middle_seconds=middle,
            taggram=taggram,
            write_tags=write_tags,
            overwrite=overwrite,
        )
        refuse_impossible(files, options)
        n_failed = tag_files(_load_tagger(model, quantize, jobs), files, options)
    if n_failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _threshold(text: str | None) -> float | None:
    if text is None or text == "auto":
        return None
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise ConfigError(f"--threshold {text}: give a score from 0 to 1, or auto")
    return score


@app.command()
def embed(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .npz or .parquet file.", show_default=False)
    ],
    inputs: InputsArgument = None,
    files_from: FilesFromOption = None,
    null: NullOption = False,
    model: ModelOption = None,
    layer: Annotated[
        str | None,
        typer.Option(
            "--layer",
            help="See 'tagger models info MODEL'; default penultimate, or the first there is.",
        ),
    ] = None,
    mean: Annotated[
        bool, typer.Option("--mean", help="One row per file, not one per window.")
    ] = False,
    middle: MiddleOption = None,
    quantize: QuantizeOption = "none",
    jobs: JobsOption = None,
) -> None:
    """Write embeddings of audio files: what the network sees before it decides on tags."""
    _one_thread_per_product()
    from tagger.tagging.embed_files import embed_files, refuse_suffix

    _choice("--quantize", quantize, _QUANTIZATIONS)
    _finite("--window-middle", middle)
    refuse_suffix(output)
    require_local(output, "--output")
    files = _inputs(inputs, files_from, null=null)
    tagger = _load_tagger(model, quantize, jobs)
    n_failed = embed_files(
        tagger, files, output=output, layer=layer, mean=mean, middle_seconds=middle
    )
    print(f"{output}: {len(files) - n_failed} files, {n_failed} failed")
    if n_failed:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Training run, bundle, or registered name.")
    ],
    format_: Annotated[
        str, typer.Option("--format", help="litert, onnx or savedmodel.")
    ] = "litert",
    quantize: Annotated[
        str, typer.Option("--quantize", help="none, dynamic (int8) or float16.")
    ] = "none",
    clips: Annotated[
        list[Path] | None,
        typer.Option("--clips", help="Audio files to check it with; default the run's own."),
    ] = None,
) -> None:
    """Export a model into its bundle, and check that it answers as Keras does."""
    from tagger.bundle.exporters import EXPORTERS

    _choice("--format", format_, EXPORTERS.names())
    _choice("--quantize", quantize, _QUANTIZATIONS)

    from tagger.bundle.export import export_model

    for line in export_model(model, format_=format_, quantize=quantize, clips=clips or ()):
        print(line)


models_app = typer.Typer(
    name="models", help="Models that can be used by name.", no_args_is_help=True
)
app.add_typer(models_app)


@models_app.command(name="list")
def models_list() -> None:
    """List the registered models."""
    from tagger.bundle.models import pulled_bundle, registered_models
    from tagger.bundle.read import Bundle

    print(f"{'name':14} {'tags':>4} {'ROC-AUC':>8} {'PR-AUC':>7}  {'here':4} what")
    for name, entry in registered_models().items():
        figures = [entry.published.get(key) for key in ("roc_auc_macro", "pr_auc_macro")]
        roc_auc, pr_auc = ("-" if value is None else f"{value:.4f}" for value in figures)
        here = "yes" if Bundle.is_at(pulled_bundle(name)) else "no"
        print(f"{name:14} {entry.n_tags:4d} {roc_auc:>8} {pr_auc:>7}  {here:4} {entry.summary}")


@models_app.command(name="pull")
def models_pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Of 'models list'.")],
    again: Annotated[bool, typer.Option("--again", help="Even if it is here already.")] = False,
    clips: Annotated[
        list[Path] | None,
        typer.Option("--clips", help="Audio files to check it with; default synthesised ones."),
    ] = None,
) -> None:
    """Fetch registered models and convert them (needs the extra 'train'; using them does not)."""
    from tagger.bundle.models import pull

    for name in names:
        bundle = pull(name, again=again, clips=tuple(clips or ()))
        print(f"{bundle.name}: {bundle.root} (version {bundle.version})")
        for item in bundle.exports:
            print(f"  {item.describe()}")


@models_app.command(name="info")
def models_info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name, bundle or training run.")],
) -> None:
    """Describe a model: tags, embeddings, exports and where it comes from."""
    from tagger.bundle.find import describe_model

    for line in describe_model(model):
        print(line)


@app.command()
def info(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN|BUNDLE|STORE]", help="Folder of a run, bundle or store."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Describe a run, bundle, store, or the network of a config (and test published weights)."""
    settings = _config(config, set_)

    from tagger.cli.info import describe

    for line in describe(settings, path):
        print(line)


@app.command(name="demo-corpus")
def demo_corpus(
    root: Annotated[Path, typer.Argument(help="Folder to write; made if missing.")],
    n_clips: Annotated[int, typer.Option(min=16, help="A multiple of 16.")] = 256,
    seconds: Annotated[float, typer.Option(min=1, help="Length of a clip.")] = 8.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Synthesise a small labelled corpus in MagnaTagATune's layout."""
    from preprocess.clips.demo_corpus import write_demo_corpus
    from tagger.base.log import progress_bar

    require_local(root, "ROOT")
    if n_clips % 16:
        raise ConfigError(f"--n-clips {n_clips} is not a multiple of 16")
    with progress_bar("demo corpus", n_clips) as advance:
        annotations = write_demo_corpus(
            root,
            n_clips=n_clips,
            clip_seconds=seconds,
            seed=seed,
            on_clip=_differences(lambda n: advance(n, "")),
        )
    print(f"{annotations}: {n_clips} clips of {seconds:g} s")


@app.command(name="fetch-magnatagatune")
def fetch_magnatagatune(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Made if missing.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="ADDRESS",
            help="Folder of a mirror, https:// or gs://; default where it is published.",
        ),
    ] = None,
    checksums: Annotated[
        str | None,
        typer.Option(
            "--checksums",
            metavar="FILE",
            help="List of SHA-256 that sha256sum has written, or its address; default "
            "SHA256SUMS beside the parts, if there is one.",
        ),
    ] = None,
    keep_parts: Annotated[
        bool, typer.Option("--keep-parts", help="Leave the parts of the archive there.")
    ] = False,
) -> None:
    """Fetch MagnaTagATune's clips and tables, or what is missing of them (6 GB while it runs)."""
    from preprocess.clips.fetch_magnatagatune import ADDRESS
    from preprocess.clips.fetch_magnatagatune import fetch_magnatagatune as run_fetch
    from tagger.cloud.download import fetch_file

    require_local(folder, "FOLDER")
    result = run_fetch(
        folder,
        fetch_file=fetch_file,
        source=source or ADDRESS,
        checksums=checksums,
        keep_parts=keep_parts,
    )
    print(f"{folder}: {result.n_clips} clips ({result.n_unpacked} unpacked now)")


def _differences(advance: Callable[[int], None]) -> Callable[[int], None]:
    """Turn a callback that takes steps into one that takes totals."""
    last = 0

    def on_total(total: int) -> None:
        nonlocal last
        advance(total - last)
        last = total

    return on_total


def _finite(option: str, value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise ConfigError(f"{option} {value}: give a number of seconds")


def _choice(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{option} {value}: choose one of {', '.join(allowed)}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 all fine, 1 some inputs failed, 2 wrong usage.

    Parameters
    ----------
    arguments : list of str, optional
        Put before those of the process, e.g. ``["train"]``.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name need not be Unicode; what cannot be encoded is escaped, also within JSON.
        sys.stdout.reconfigure(errors="backslashreplace")
    words = _log_format_first([*(arguments or []), *sys.argv[1:]])
    try:
        if _asks_for_json(words):
            _run_with_events(words)
        app(words, prog_name="tagger")
    except TaggerError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        from tagger.base.extras import explain

        missing = explain(error)
        if missing is None:
            raise
        _fail(str(missing))
    except OSError as error:
        # A full disk or a folder without rights, which a traceback would not explain better.
        if error.filename is None:
            _fail(str(error))
        _fail(f"{error.filename}: {error.strerror}; check the path, its rights and the disk space")


def _fail(message: str) -> NoReturn:
    line = " ".join(part.strip() for part in message.splitlines())
    say_error(line)
    sys.exit(EXIT_USAGE)


def _asks_for_json(words: list[str]) -> bool:
    """Whether the log is to be JSON, told before click has looked at the command line."""
    option, _, value = words[0].partition("=") if words else ("", "", "")
    if option != "--log-format":
        return os.environ.get(LOG_FORMAT_VARIABLE) == "json"
    return (value or "".join(words[1:2])) == "json"


def _run_with_events(words: list[str]) -> NoReturn:
    """Run the command line; what click would say of wrong usage is an event as well."""
    set_log_format("json")
    try:
        code = app(words, prog_name="tagger", standalone_mode=False)
    except typer.Abort:
        say_error("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        # Click's own errors; typer brings a click of its own or takes the one that is installed.
        explain = getattr(error, "format_message", None)
        if explain is None:
            raise
        say_error(f"{explain()}; see tagger --help")
        sys.exit(EXIT_USAGE)
    sys.exit(code if isinstance(code, int) else 0)


def _log_format_first(arguments: list[str]) -> list[str]:
    """Put ``--log-format`` before the verb: it may stand behind it as well, as all options may."""
    first: list[str] = []
    others: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            others += [argument, *remaining]
        elif argument == "--log-format":
            first += [argument, *[value for value in [next(remaining, None)] if value is not None]]
        elif argument.startswith("--log-format="):
            first.append(argument)
        else:
            others.append(argument)
    return [*first, *others]
