"""Verbs that make or fetch clips."""

from pathlib import Path
from typing import Annotated

import typer

from tagger.base.errors import ConfigError
from tagger.cli.app import differences, verb
from tagger.cloud.locations import require_local


@verb(
    "demo-corpus",
    short="Synthesise a small labelled corpus.",
    examples_=("tagger demo-corpus demo/corpus",),
)
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
            on_clip=differences(lambda n: advance(n, "")),
        )
    print(f"{annotations}: {n_clips} clips of {seconds:g} s")


@verb(
    "fetch-magnatagatune",
    short="Fetch MagnaTagATune's clips and tables.",
    examples_=("tagger fetch-magnatagatune data/magnatagatune",),
)
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
