"""Verbs that export, list and describe models."""

from pathlib import Path
from typing import Annotated

import typer

from tagger.cli.app import (
    QUANTIZATIONS,
    ConfigOption,
    SetOption,
    app,
    choice,
    config_of,
    show_lines,
    verb,
)


@verb(
    "export",
    short="Export a model to LiteRT, ONNX or SavedModel.",
    examples_=("tagger export runs/mine --format onnx",),
)
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

    choice("--format", format_, EXPORTERS.names())
    choice("--quantize", quantize, QUANTIZATIONS)

    from tagger.bundle.export import export_model

    for line in export_model(model, format_=format_, quantize=quantize, clips=clips or ()):
        print(line)


models_app = typer.Typer(
    name="models", help="Models that can be used by name.", no_args_is_help=True
)
app.add_typer(models_app)


@verb(
    "list",
    short="List them.",
    of=models_app,
    examples_=("tagger models list",),
)
def models_list() -> None:
    """List the registered models."""
    from tagger.bundle.models import pulled_bundle, registered_models
    from tagger.bundle.read import Bundle

    print(f"{'name':12} {'gives':10} {'MB':>4}  {'licence':10} {'here':4} good for")
    for name, entry in registered_models().items():
        here = "yes" if Bundle.is_at(pulled_bundle(name)) else "no"
        print(
            f"{name:12} {entry.gives:10} {entry.megabytes:4.3g}  {entry.licence:10} {here:4} "
            f"{entry.good_for}"
        )


@verb(
    "pull",
    short="Fetch them.",
    of=models_app,
    examples_=(
        "tagger models pull musicnn-msd",
        "tagger models pull musicnn-mtt --from wheels/",
    ),
)
def models_pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Of 'models list'.")],
    again: Annotated[bool, typer.Option("--again", help="Even if it is here already.")] = False,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="FILE|FOLDER|ADDRESS",
            help="Take the published file from there in place of the network.",
        ),
    ] = "",
) -> None:
    """Fetch registered models and convert them; vggish alone needs the extra 'train'."""
    from tagger.bundle.models import pull

    for name in names:
        bundle = pull(name, again=again, source=source)
        print(f"{bundle.name}: {bundle.root} (version {bundle.version})")
        for item in bundle.exports:
            print(f"  {item.describe()}")


@verb(
    "info",
    short="Describe one: tags, embeddings, source.",
    of=models_app,
    examples_=("tagger models info musicnn-msd",),
)
def models_info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name, bundle or training run.")],
) -> None:
    """Describe a model: tags, embeddings, exports and where it comes from."""
    from tagger.bundle.find import describe_model

    show_lines(describe_model(model))


@verb(
    "info",
    short="Describe a run, bundle, store or config.",
    examples_=(
        "tagger info runs/mine",
        "tagger info --config magnatagatune",
    ),
)
def info(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN|BUNDLE|STORE]", help="Folder of a run, bundle or store."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Describe a run, bundle, store, or the network of a config (and test published weights)."""
    settings = config_of(config, set_)

    from tagger.cli.info import describe

    show_lines(describe(settings, path))


@verb(
    "cache",
    short="Show what is kept on this disk, and forget it.",
    examples_=("tagger cache", "tagger cache --clear"),
)
def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="Forget what models have said of files.")
    ] = False,
) -> None:
    """Show where models and what they have said of files are kept, and how much that is."""
    from tagger.base.cache import cache_folder
    from tagger.tagging.kept import forget, kept_bytes

    if clear:
        forget()
    folder = cache_folder()
    files = [path for path in folder.rglob("*") if path.is_file()]
    total = sum(path.stat().st_size for path in files)
    kept = kept_bytes()
    print(f"{folder}: {total / 1e6:.1f} MB")
    print(f"  models and what they are made of: {(total - kept) / 1e6:.1f} MB")
    print(f"  what models have said of files: {kept / 1e6:.1f} MB (forget it with --clear)")
