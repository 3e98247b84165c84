"""Options of the verbs that tag and embed audio files, in groups."""

from pathlib import Path
from typing import Annotated

import typer

from tagger.cli.app import PRECISIONS
from tagger.cli.shape import choices, completed, models

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
        help="Which of the model's exports: none, dynamic or float16; or bfloat16: faster, on "
        "processors that have it.",
        rich_help_panel=MODEL_GROUP,
        autocompletion=choices(*PRECISIONS),
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
MissingOption = Annotated[
    float,
    typer.Option(
        "--most-missing",
        metavar="SHARE",
        help="Of a file cut off or damaged, what may be missing.",
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
WriteOption = Annotated[
    bool,
    typer.Option(
        "--write-tags",
        help="Also write them into the files; can be undone.",
        rich_help_panel=FILES_GROUP,
    ),
]
UndoOption = Annotated[
    bool,
    typer.Option(
        "--undo-write-tags",
        help="Only give the files back what they had before.",
        rich_help_panel=FILES_GROUP,
    ),
]
FieldOption = Annotated[
    str,
    typer.Option(
        "--field",
        help="Where to: genre, mood, comment or grouping.",
        rich_help_panel=FILES_GROUP,
        autocompletion=choices("genre", "mood", "comment", "grouping"),
    ),
]
AppendOption = Annotated[
    bool,
    typer.Option(
        "--append", help="Behind what the field holds already.", rich_help_panel=FILES_GROUP
    ),
]
EmptyOption = Annotated[
    bool,
    typer.Option(
        "--only-if-empty",
        help="Only into files whose field is empty.",
        rich_help_panel=FILES_GROUP,
    ),
]
TouchOption = Annotated[
    bool,
    typer.Option(
        "--touch",
        help="Give changed files the time of now, by which players notice; else they keep theirs.",
        rich_help_panel=FILES_GROUP,
    ),
]
MapOption = Annotated[
    Path | None,
    typer.Option(
        "--map",
        metavar="FILE",
        help="YAML of 'tag: your name'; tags that it lacks are not written.",
        rich_help_panel=FILES_GROUP,
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Say what would become of each file, and change none.",
        rich_help_panel=FILES_GROUP,
    ),
]
YesOption = Annotated[
    bool,
    typer.Option(
        "--yes",
        help="Do not ask before many files, or those of a disk or home folder, are changed.",
        rich_help_panel=FILES_GROUP,
    ),
]
SegmentsOption = Annotated[
    bool,
    typer.Option(
        "--segments", help="Tags of each window, with its times.", rich_help_panel=SHOWN_GROUP
    ),
]
SynonymsOption = Annotated[
    Path | None,
    typer.Option(
        "--synonyms",
        metavar="NAME|FILE",
        help="Put tags that mean the same together: magnatagatune, million_song, or a file.",
        rich_help_panel=SHOWN_GROUP,
        autocompletion=choices("magnatagatune", "million_song"),
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Tag again what was tagged before.",
        rich_help_panel=OUTPUT_GROUP,
    ),
]
