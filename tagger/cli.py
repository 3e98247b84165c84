"""The command line: parses and calls. Heavy imports happen inside the commands."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tagger.errors import ConfigError, TaggerError

if TYPE_CHECKING:
    from tagger.config import Config
    from tagger.predict import Prediction

EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="tagger",
    help="Tag music: train a tagger on your own labels, tag any audio.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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
    config: ConfigOption = None,
    set_: SetOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only list what is wrong with the clips.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check stored pickles and rebuild damaged ones.")
    ] = False,
) -> None:
    """Slice the clips of a data set into log-mel patches and store them with their labels."""
    from preprocess.datasets import DATASETS

    settings = _config(config, set_)
    root = settings.data.root
    index = DATASETS.create(settings.data.name, settings.data.params).index(root)
    if check:
        _check(settings, index)
        return

    from preprocess.run import preprocess as run_preprocess
    from tagger.progress import warn

    result = run_preprocess(
        index,
        settings.make_front_end(),
        audio_root=root,
        store_root=settings.store.root,
        dtype=settings.store.dtype,
        n_workers=settings.store.workers,
        verify=verify,
    )
    for path in result.padded:
        warn(f"{path}: shorter than a patch, padded with zeros")
    for message in result.failures.values():
        print(f"failed: {message}", file=sys.stderr)
    print(
        f"{settings.store.root}: {result.n_clips} clips ({result.n_written} written, "
        f"{result.n_relabelled} relabelled, {result.n_kept} kept), {len(result.failures)} failed"
    )
    if result.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _check(settings: "Config", index: Any) -> None:
    from preprocess.check import CONSEQUENCES, FATAL
    from preprocess.check import check as run_check

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
) -> None:
    """Train a tagger on a patch store."""
    settings = _config(config, set_)

    from tagger.train import train as run_train

    result = run_train(settings, resume=resume)
    if not result.finished:
        raise typer.Exit(EXIT_INTERRUPTED)
    print(f"{result.run}: {len(result.history)} epochs, best epoch {result.best_epoch}")


@app.command()
def evaluate(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|SCORES.npz", help="A run, or scores of any model.")
    ],
    part: Annotated[
        str, typer.Option("--part", help="Part of the run's split: test, validation or train.")
    ] = "test",
    format_: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
    set_: SetOption = None,
) -> None:
    """Measure a run on its test clips, or any model's scores (arrays est and gt)."""
    from preprocess.splits import PARTS

    _choice("--format", format_, ("table", "json"))
    _choice("--part", part, PARTS)

    from tagger.evaluate import evaluate_run, evaluate_scores, to_json_text

    if source.suffix.lower() == ".npz":
        evaluation = evaluate_scores(source)
    else:
        evaluation = evaluate_run(source, part=part, overrides=set_)
    print(to_json_text(evaluation) if format_ == "json" else evaluation.table())
    for kind, path in evaluation.files.items():
        print(f"{kind}: {path}", file=sys.stderr if format_ == "json" else sys.stdout)


@app.command(name="predict-tags")
def predict_tags(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Audio files, or folders of them.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="RUN",
            envvar="TAGGER_MODEL",
            help="Folder that 'tagger train' wrote; default the newest below runs/.",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Tags of each file.")] = 10,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0, max=1, help="Only tags that score this.")
    ] = 0.0,
    format_: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
    taggram: Annotated[
        Path | None,
        typer.Option(help="Draw tags over time: a .png file, or a folder for several files."),
    ] = None,
) -> None:
    """Tag audio files with a trained run."""
    from tagger.writers import WRITERS

    _choice("--format", format_, WRITERS.names())

    from tagger.predict import Tagger, expand_inputs
    from tagger.progress import notice, warn
    from tagger.run_folder import newest_run

    files = list(expand_inputs(inputs))
    if taggram is not None and len(files) > 1 and taggram.suffix.lower() == ".png":
        raise ConfigError(f"--taggram {taggram} is one picture; give a folder for several")
    if model is None:
        model = newest_run(Path("runs"))
        notice(f"model: {model}")
    tagger = Tagger.load(model)
    writer = WRITERS.get(format_)(sys.stdout, top_k=top_k, threshold=threshold)
    n_failed = 0
    writer.begin()
    for file in files:
        try:
            prediction = tagger.predict(file)
        except TaggerError as error:
            n_failed += 1
            print(f"failed: {error}", file=sys.stderr)
            continue
        if prediction.padded:
            warn(f"{file}: shorter than a patch, padded with zeros")
        writer.write(prediction)
        sys.stdout.flush()
        if taggram is not None:
            try:
                _draw_taggram(prediction, taggram)
            except OSError as error:
                n_failed += 1
                print(f"failed: {taggram}: {error.strerror}; check --taggram", file=sys.stderr)
    writer.end()
    if n_failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _draw_taggram(prediction: "Prediction", target: Path) -> None:
    from tagger.files import content_hash
    from tagger.plots import plot_taggram
    from tagger.progress import notice

    if target.suffix.lower() != ".png":
        # Files of one name in two folders must not overwrite each other's picture.
        digest = content_hash(os.fsencode(prediction.path))[:6]
        target = target / f"{Path(prediction.path).stem}-{digest}.png"
    plot_taggram(prediction, target)
    notice(f"taggram: {target}")


@app.command()
def info(
    path: Annotated[
        Path | None, typer.Argument(metavar="[RUN|STORE]", help="A run folder or a store.")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Describe a run, a store, or the network of a config (and test published weights)."""
    settings = _config(config, set_)

    from tagger.info import describe

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
    from preprocess.demo_corpus import write_demo_corpus
    from tagger.progress import progress_bar

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


def _differences(advance: Callable[[int], None]) -> Callable[[int], None]:
    """Turn a callback that takes steps into one that takes totals."""
    last = 0

    def on_total(total: int) -> None:
        nonlocal last
        advance(total - last)
        last = total

    return on_total


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
    try:
        app([*(arguments or []), *sys.argv[1:]], prog_name="tagger")
    except TaggerError as error:
        _fail(str(error))
    except OSError as error:
        # A full disk or a folder without rights, which a traceback would not explain better.
        if error.filename is None:
            _fail(str(error))
        _fail(f"{error.filename}: {error.strerror}; check the path, its rights and the disk space")


def _fail(message: str) -> NoReturn:
    line = " ".join(part.strip() for part in message.splitlines())
    print(f"error: {line}", file=sys.stderr)
    sys.exit(EXIT_USAGE)
