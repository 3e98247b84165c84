"""The verb that runs studies."""

from pathlib import Path
from typing import Annotated

import typer

from tagger.cli.app import EXIT_SOME_FAILED, SetOption, app, verb
from tagger.cloud.locations import require_local

study_app = typer.Typer(
    name="study",
    help="Compare many ways to learn, on the same clips.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(study_app)


@study_app.callback()
def _verbs() -> None:
    pass


@verb(
    "run",
    short="Fit what is missing, and write the page.",
    of=study_app,
    examples_=(
        "tagger study run gtzan_classical --set data.root=gtzan",
        "tagger study run mine.yaml --output studies/mine --jobs 4",
    ),
)
def run(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML: variants, folds, published figures.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="What is kept; default studies/NAME OF FILE."
        ),
    ] = None,
    set_: SetOption = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Variants fitted at once.")] = 2,
) -> None:
    """Fit what is missing of a study, and write its page and table."""
    folder = output or Path("studies") / file.stem
    require_local(folder, "--output")

    from tagger.study.run_study import run_study

    result = run_study(file, folder, overrides=set_, n_jobs=jobs)
    print(result.files["table"].read_text(encoding="utf-8"), end="")
    for kind, path in result.files.items():
        print(f"{kind}: {path}")
    if result.failures:
        raise typer.Exit(EXIT_SOME_FAILED)
