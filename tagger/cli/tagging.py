"""Verbs that tag and embed audio files."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from preprocess.clips.audio_files import MOST_MISSING
from tagger.base.errors import ConfigError
from tagger.base.log import libraries_silenced, notice
from tagger.cli.app import (
    EXIT_SOME_FAILED,
    PRECISIONS,
    ConfigOption,
    choice,
    config_of,
    finite,
    unused,
    verb,
)
from tagger.cli.tagging_options import (
    AppendOption,
    DryRunOption,
    EmptyOption,
    FieldOption,
    FilesFromOption,
    FormatOption,
    InputsArgument,
    JobsOption,
    MapOption,
    MergeOption,
    MiddleOption,
    MissingOption,
    ModelOption,
    NullOption,
    OutputOption,
    OverwriteOption,
    QuantizeOption,
    SegmentsOption,
    SynonymsOption,
    TaggramOption,
    ThresholdOption,
    TopOption,
    TouchOption,
    UndoOption,
    WriteOption,
    YesOption,
)
from tagger.cloud.locations import location, require_local

if TYPE_CHECKING:
    from tagger.tagging.inputs import Input
    from tagger.tagging.records import Selection
    from tagger.tagging.tag_fields import Field
    from tagger.tagging.tagger import Tagger


# Files that may be changed without a question.
_MANY_CHANGES = 100


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
        _asked(lambda: refuse_wide_writes(names or [], listed))
    files = expand_inputs([*(names or []), *listed])
    if only_asked:
        _asked(lambda: refuse_writes_outside(files))
        if len(files) > _MANY_CHANGES:
            _ask(f"{len(files)} files would be changed; look at it first with --dry-run")
    return files


def _asked(refuse: Callable[[], None]) -> None:
    """Ask about what would be refused, if somebody is there."""
    try:
        refuse()
    except ConfigError as error:
        if not _somebody_is_there():
            raise
        typer.confirm(f"{error}. Go on?", abort=True, err=True)


def _load_tagger(model: str | None, config: Path | None, **how: Any) -> "Tagger":
    from tagger.bundle.find import default_model, newest_run
    from tagger.tagging.tagger import Tagger

    if not 0 <= how["most_missing"] <= 1:
        raise ConfigError(f"--most-missing {how['most_missing']}: give a share from 0 to 1")
    if model is not None and config is not None:
        raise ConfigError("--model and --config both name a model; give one of them")
    if config is not None:
        model = str(config_of(config, None).run.root)
    if model is None:
        model, run = default_model(), newest_run()
        notice(f"model: {model}" + (f" (yours: --model {run})" if run is not None else ""))
    return Tagger.load(model, **how)


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
    segments: SegmentsOption = False,
    merge: MergeOption = False,
    synonyms: SynonymsOption = None,
    format_: FormatOption = "table",
    output: OutputOption = None,
    overwrite: OverwriteOption = False,
    taggram: TaggramOption = None,
    write_tags: WriteOption = False,
    undo_write_tags: UndoOption = False,
    dry_run: DryRunOption = False,
    field: FieldOption = "genre",
    append: AppendOption = False,
    only_if_empty: EmptyOption = False,
    map_: MapOption = None,
    touch: TouchOption = False,
    yes: YesOption = False,
    middle: MiddleOption = None,
    most_missing: MissingOption = MOST_MISSING,
    quantize: QuantizeOption = "none",
    jobs: JobsOption = None,
) -> None:
    """Tag audio files. Without a model of your own, musicnn-mtt is fetched and used."""
    _one_thread_per_product()
    from preprocess.clips.vocabulary import read_synonyms
    from tagger.tagging.tag_files import Options, refuse_impossible, tag_files

    choice("--quantize", quantize, PRECISIONS)
    _require_local(output, taggram)
    selection = _selection(format_, top_k, threshold, merge=merge, segments=segments)
    finite("--window-middle", middle)
    # Who asks what would be written wants it known for writing.
    write_tags = write_tags or dry_run
    writing = _writing(
        write_tags, field, map_, append=append, only_if_empty=only_if_empty, touch=touch
    )
    changes = ((write_tags and not dry_run) or undo_write_tags) and not yes
    files = _inputs(inputs, files_from, null=null, only_asked=changes)
    if undo_write_tags:
        _undo(files)
        return
    options = Options(
        format=format_,
        output=output,
        selection=selection,
        middle_seconds=middle,
        taggram=taggram,
        synonyms=None if synonyms is None else read_synonyms(synonyms),
        write_tags=write_tags,
        **writing,
        dry_run=dry_run,
        overwrite=overwrite,
    )
    refuse_impossible(files, options)
    tagger = _load_tagger(model, config, quantize=quantize, jobs=jobs, most_missing=most_missing)
    with libraries_silenced():
        n_failed = tag_files(tagger, files, options)
    if n_failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _require_local(output: Path | None, taggram: Path | None) -> None:
    for option, place in (("--output", output), ("--taggram", taggram)):
        if place is not None:
            require_local(place, option)


def _selection(
    format_: str, top_k: int | None, threshold: str | None, *, merge: bool, segments: bool
) -> "Selection":
    from tagger.tagging.records import Selection
    from tagger.tagging.writers import WRITERS

    choice("--format", format_, WRITERS.names())
    default = WRITERS.get(format_).default_segments
    return Selection(
        top_k=top_k,
        threshold=_threshold(threshold),
        model_thresholds=threshold == "auto",
        segments="merged" if merge else "windows" if segments else default,
    )


def _writing(write_tags: bool, field: str, map_: Path | None, **how: bool) -> dict[str, Any]:
    """Say how tags are written into files, for `Options`."""
    from tagger.tagging.file_tags import Writing
    from tagger.tagging.tag_fields import FIELDS
    from tagger.tagging.tag_map import read_tag_map

    choice("--field", field, FIELDS)
    if not write_tags:
        given = {f"--{name.replace('_', '-')}": value for name, value in how.items()}
        given["--map"] = map_ is not None
        unused("tags that are not written; add --write-tags or --dry-run", given)
    return {
        "writing": Writing(cast("Field", field), **how),
        "tag_map": None if map_ is None else read_tag_map(map_),
    }


def _undo(files: "list[Input]") -> None:
    from tagger.tagging.tag_files import undo_tags

    n_restored, n_failed = undo_tags(files)
    print(f"{n_restored} of {len(files)} files have their tags of before back")
    if n_failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _somebody_is_there() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _ask(question: str) -> None:
    """Ask before something large; where nobody is there to answer it is refused."""
    if not _somebody_is_there():
        raise ConfigError(f"{question}, or give --yes to go on")
    typer.confirm(f"{question}. Go on?", abort=True, err=True)


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
    most_missing: MissingOption = MOST_MISSING,
    quantize: QuantizeOption = "none",
    jobs: JobsOption = None,
) -> None:
    """Write embeddings of audio files: what the network sees before it decides on tags."""
    _one_thread_per_product()
    from tagger.tagging.embed_files import embed_files, refuse_suffix

    choice("--quantize", quantize, PRECISIONS)
    finite("--window-middle", middle)
    refuse_suffix(output)
    require_local(output, "--output")
    files = _inputs(inputs, files_from, null=null)
    tagger = _load_tagger(model, config, quantize=quantize, jobs=jobs, most_missing=most_missing)
    with libraries_silenced():
        n_failed = embed_files(
            tagger, files, output=output, layer=layer, mean=mean, middle_seconds=middle
        )
    print(f"{output}: {len(files) - n_failed} files, {n_failed} failed")
    if n_failed:
        raise typer.Exit(EXIT_SOME_FAILED)
