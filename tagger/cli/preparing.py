"""The verb that slices clips into windows."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tagger.base.errors import ConfigError
from tagger.base.log import failed
from tagger.cli.app import EXIT_SOME_FAILED, ConfigOption, SetOption, choice, config_of, verb

if TYPE_CHECKING:
    from preprocess.engines.run import Engine
    from tagger.config import Config


@verb(
    "preprocess",
    short="Slice clips into log-mel patches.",
    examples_=(
        "tagger preprocess --config magnatagatune --set data.root=FOLDER",
        "tagger preprocess --config mine.yaml --check",
    ),
)
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

    settings = config_of(config, set_)
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
            most_missing=settings.data.most_missing,
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
    choice("--engine", name, ("local", "beam"))
    if name == "beam":
        from preprocess.engines.beam import BeamEngine

        return BeamEngine(beam_options)
    if beam_options:
        raise ConfigError(f"{beam_options[0]}: options after -- are Beam's; add --engine beam")
    from preprocess.engines.run import run_here

    return run_here


def _check(settings: "Config", index: Any) -> None:
    from preprocess.clips.label_checks import label_warnings
    from preprocess.engines.check import CONSEQUENCES, FATAL
    from preprocess.engines.check import check as run_check

    findings = run_check(
        index,
        settings.make_front_end(),
        audio_root=settings.data.root,
        n_workers=settings.store.workers,
        most_missing=settings.data.most_missing,
    )
    for finding in findings:
        print(f"{finding.kind}: {finding.path}: {finding.detail}; {finding.consequence}")
    for line in label_warnings(index):
        print(f"labels: {line}")
    kinds = [finding.kind for finding in findings]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in CONSEQUENCES)
    print(f"{len(index)} clips, {len(index.tags)} tags: {counts}")
    if FATAL & set(kinds):
        raise typer.Exit(EXIT_SOME_FAILED)
