"""Verbs that tag and embed audio files."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagger.base.errors import ConfigError
from tagger.cli.app import (
    EXIT_SOME_FAILED,
    QUANTIZATIONS,
    ConfigOption,
    choice,
    config_of,
    finite,
    verb,
)
from tagger.cli.shape import choices, completed, models
from tagger.cloud.locations import location, require_local

if TYPE_CHECKING:
    from tagger.tagging.inputs import Input
    from tagger.tagging.tagger import Tagger


# Groups of options in the help pages.
MODEL_GROUP, INPUT_GROUP, SHOWN_GROUP = "Model", "Input", "What is shown"
OUTPUT_GROUP, FILES_GROUP = "Output", "Tags in the files themselves"
_FORMATS = (
    *("table", "json", "jsonl", "csv", "parquet", "huggingface", "labelstudio"),
    *("jams", "audacity", "raven", "npz", "png"),
)

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Run or bundle (folder or gs://), or a name of 'tagger models list'; default the run "
        "of --config, $TAGGER_MODEL, or musicnn-mtt.",
        rich_help_panel=MODEL_GROUP,
        autocompletion=completed(models),
    ),
]
QuantizeOption = Annotated[
    str,
    typer.Option(
        "--quantize",
        help="Which of the model's exports: none, dynamic or float16.",
        rich_help_panel=MODEL_GROUP,
        autocompletion=choices(*QUANTIZATIONS),
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        help="Threads that decode and compute; default the processors.",
        rich_help_panel=MODEL_GROUP,
    ),
]
MiddleOption = Annotated[
    float | None,
    typer.Option(
        "--window-middle",
        metavar="SECONDS",
        min=0.01,
        help="Only so much of a file's middle.",
        rich_help_panel=INPUT_GROUP,
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
        "--files-from",
        metavar="LIST",
        help="File with a name per line; - is standard input.",
        rich_help_panel=INPUT_GROUP,
    ),
]
NullOption = Annotated[
    bool,
    typer.Option(
        "-0",
        "--null",
        help="Names of the list end in NUL, as 'find -print0' has them.",
        rich_help_panel=INPUT_GROUP,
    ),
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


def _load_tagger(
    model: str | None, config: Path | None, *, quantize: str, jobs: int | None
) -> "Tagger":
    from tagger.base.log import notice
    from tagger.bundle.find import default_model, newest_run
    from tagger.tagging.tagger import Tagger

    if model is not None and config is not None:
        raise ConfigError("--model and --config both name a model; give one of them")
    if config is not None:
        model = str(config_of(config, None).run.root)
    if model is None:
        model, run = default_model(), newest_run()
        notice(f"model: {model}" + (f" (yours: --model {run})" if run is not None else ""))
    return Tagger.load(model, quantize=quantize, jobs=jobs)


TopOption = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        min=1,
        help="At most so many tags of each file; default 10, or the one that a model decides for.",
        rich_help_panel=SHOWN_GROUP,
    ),
]
ThresholdOption = Annotated[
    str | None,
    typer.Option(
        "--threshold",
        metavar="SCORE|auto",
        help="Only tags that score this; auto: the model's own threshold of each tag.",
        rich_help_panel=SHOWN_GROUP,
        autocompletion=choices("auto"),
    ),
]
MergeOption = Annotated[
    bool,
    typer.Option(
        "--merge",
        help="Tags of segments: neighbouring windows over the threshold.",
        rich_help_panel=SHOWN_GROUP,
    ),
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        help=f"{', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}.",
        rich_help_panel=OUTPUT_GROUP,
        autocompletion=choices(*_FORMATS),
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File, or folder of jams, audacity, raven, npz and png; default stdout.",
        rich_help_panel=OUTPUT_GROUP,
    ),
]
TaggramOption = Annotated[
    Path | None,
    typer.Option(
        help="Also draw tags over time: a .png file, or a folder for several files.",
        rich_help_panel=OUTPUT_GROUP,
    ),
]
YesOption = Annotated[
    bool,
    typer.Option(
        "--yes",
        help="Write into the files of a whole disk or home folder as well.",
        rich_help_panel=FILES_GROUP,
    ),
]


@verb(
    "tag",
    "predict-tags",
    short="Tag audio files.",
    examples_=(
        "tagger song.mp3",
        "tagger tag my_music --threshold auto --format csv --output tags.csv",
        "tagger tag song.mp3 --model musicnn-msd --taggram song.png",
    ),
)
def predict_tags(
    inputs: InputsArgument = None,
    files_from: FilesFromOption = None,
    null: NullOption = False,
    model: ModelOption = None,
    config: ConfigOption = None,
    top_k: TopOption = None,
    threshold: ThresholdOption = None,
    segments: Annotated[
        bool,
        typer.Option(
            "--segments", help="Tags of each window, with its times.", rich_help_panel=SHOWN_GROUP
        ),
    ] = False,
    merge: MergeOption = False,
    synonyms: Annotated[
        Path | None,
        typer.Option(
            "--synonyms",
            metavar="NAME|FILE",
            help="Put tags that mean the same together: magnatagatune, million_song, or a file.",
            rich_help_panel=SHOWN_GROUP,
            autocompletion=choices("magnatagatune", "million_song"),
        ),
    ] = None,
    format_: FormatOption = "table",
    output: OutputOption = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Start anew instead of going on with the output.",
            rich_help_panel=OUTPUT_GROUP,
        ),
    ] = False,
    taggram: TaggramOption = None,
    write_tags: Annotated[
        bool,
        typer.Option(
            "--write-tags",
            help="Also write them into the files, as their genre.",
            rich_help_panel=FILES_GROUP,
        ),
    ] = False,
    undo_write_tags: Annotated[
        bool,
        typer.Option(
            "--undo-write-tags",
            help="Only give the files their old genre back.",
            rich_help_panel=FILES_GROUP,
        ),
    ] = False,
    yes: YesOption = False,
    middle: MiddleOption = None,
    quantize: QuantizeOption = "none",
    jobs: JobsOption = None,
) -> None:
    """Tag audio files. Without a model of your own, musicnn-mtt is fetched and used."""
    _one_thread_per_product()
    from preprocess.clips.vocabulary import read_synonyms
    from tagger.tagging.records import Selection
    from tagger.tagging.tag_files import Options, refuse_impossible, tag_files, undo_tags
    from tagger.tagging.writers import WRITERS

    choice("--format", format_, WRITERS.names())
    choice("--quantize", quantize, QUANTIZATIONS)
    for option, place in (("--output", output), ("--taggram", taggram)):
        if place is not None:
            require_local(place, option)
    score = _threshold(threshold)
    finite("--window-middle", middle)
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
            synonyms=None if synonyms is None else read_synonyms(synonyms),
            write_tags=write_tags,
            overwrite=overwrite,
        )
        refuse_impossible(files, options)
        tagger = _load_tagger(model, config, quantize=quantize, jobs=jobs)
        n_failed = tag_files(tagger, files, options)
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


@verb(
    "embed",
    short="Write embeddings of audio files.",
    examples_=("tagger embed my_music --output embeddings.npz --mean",),
)
def embed(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .npz or .parquet file.", show_default=False)
    ],
    inputs: InputsArgument = None,
    files_from: FilesFromOption = None,
    null: NullOption = False,
    model: ModelOption = None,
    config: ConfigOption = None,
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

    choice("--quantize", quantize, QUANTIZATIONS)
    finite("--window-middle", middle)
    refuse_suffix(output)
    require_local(output, "--output")
    files = _inputs(inputs, files_from, null=null)
    tagger = _load_tagger(model, config, quantize=quantize, jobs=jobs)
    n_failed = embed_files(
        tagger, files, output=output, layer=layer, mean=mean, middle_seconds=middle
    )
    print(f"{output}: {len(files) - n_failed} files, {n_failed} failed")
    if n_failed:
        raise typer.Exit(EXIT_SOME_FAILED)
