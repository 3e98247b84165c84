"""The verbs ``serve`` and ``listen``: tags by HTTP, and of what a microphone hears."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tagger.base.errors import ConfigError
from tagger.cli.app import verb
from tagger.cli.shape import completed, models
from tagger.cli.tagging_options import JobsOption
from tagger.serve import bounds

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BOUNDS = "Bounds"
# Of a WAV header, of which programs that write into a pipe make 44 bytes.
_BLOCK_SECONDS = 0.25
_PRINTED = 3
# So that nothing of this machine is offered to a network unless somebody says so.
_HERE = "127.0.0.1"


def _bound(name: str, text: str, least: float) -> Any:
    return typer.Option(name, min=least, help=text, rich_help_panel=BOUNDS)


@verb(
    "serve",
    short="Tags by HTTP, with a page.",
    examples_=(
        "tagger serve",
        "tagger serve --model musicnn-mtt --model runs/mine --port 8080",
        "curl --data-binary @song.mp3 http://127.0.0.1:8000/v1/tags?top_k=5",
    ),
)
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="A name, bundle or run; repeat for several.",
            autocompletion=completed(models),
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = _HERE,
    port: Annotated[
        int, typer.Option("--port", min=0, help="0: a free one, which is told.")
    ] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="Its first line is what clients must bring."
        ),
    ] = None,
    jobs: JobsOption = None,
    max_mb: Annotated[float, _bound("--max-mb", "Of an upload.", 0.001)] = bounds.MAX_MB,
    max_seconds: Annotated[
        float, _bound("--max-seconds", "Of audio in a request.", 0.1)
    ] = bounds.MAX_SECONDS,
    max_job_seconds: Annotated[
        float, _bound("--max-job-seconds", "Of audio in a job.", 0.1)
    ] = bounds.MAX_JOB_SECONDS,
    at_work: Annotated[int, _bound("--at-work", "Computed together.", 1)] = bounds.AT_WORK,
    waiting: Annotated[int, _bound("--waiting", "Behind them.", 0)] = bounds.WAITING,
    waiting_jobs: Annotated[
        int, _bound("--waiting-jobs", "Jobs that wait.", 1)
    ] = bounds.WAITING_JOBS,
    kept_jobs: Annotated[int, _bound("--kept-jobs", "Jobs that are known.", 1)] = bounds.KEPT_JOBS,
    kept_seconds: Annotated[
        float, _bound("--kept-seconds", "How long a job's result is kept.", 0.1)
    ] = bounds.KEPT_SECONDS,
    live: Annotated[int, _bound("--live", "Microphones at a time.", 0)] = bounds.LIVE,
    timeout: Annotated[
        float, _bound("--timeout", "Seconds for a request.", 0.1)
    ] = bounds.TIMEOUT_SECONDS,
) -> None:
    """Answer requests for tags, and give a page on which files are dropped."""
    from tagger.bundle.find import default_model
    from tagger.serve.run import run_service
    from tagger.serve.settings import ServeSettings

    settings = ServeSettings(
        models=tuple(model or [default_model()]),
        jobs=jobs,
        max_mb=max_mb,
        max_seconds=max_seconds,
        max_job_seconds=max_job_seconds,
        at_work=at_work,
        waiting=waiting,
        waiting_jobs=waiting_jobs,
        kept_jobs=kept_jobs,
        kept_seconds=kept_seconds,
        live=live,
        timeout_seconds=timeout,
        token=None if token_file is None else _token(token_file),
    )
    run_service(settings, host=host, port=port)


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--token-file {path}: cannot be read ({error}); check it") from None
    if len(token) < 16:
        raise ConfigError(
            f"--token-file {path}: its first line has fewer than 16 characters; make one with: "
            "openssl rand -hex 32"
        )
    return token


@verb(
    "listen",
    short="Tag what a microphone hears.",
    examples_=("tagger listen", "arecord -f S16_LE -r 16000 -t wav | tagger listen -"),
)
def listen(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[-]", help="- is a WAV stream on standard input."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="A name, bundle or run.", autocompletion=completed(models)),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Tags in a line.")] = _PRINTED,
) -> None:
    """Tag what a microphone hears, a line a second."""
    if source not in (None, "-"):
        raise ConfigError(f"listen {source}: give - for a WAV stream; tagger tag takes files")
    from tagger.serve.live import Listener
    from tagger.serve.sound import of_microphone, of_wav_stream
    from tagger.tagging.tagger import Tagger

    listener = Listener(Tagger.load(model))
    rate = listener.sample_rate
    blocks: Iterator[npt.NDArray[np.float32]]
    if source is None:
        blocks = of_microphone(rate, block_seconds=_BLOCK_SECONDS)
    else:
        blocks = of_wav_stream(sys.stdin.buffer, rate, block_seconds=_BLOCK_SECONDS)
    for block in blocks:
        for at, said in listener.hear(block):
            tags = "  ".join(f"{tag['score']:.2f} {tag['label']}" for tag in said.top(top_k))
            print(f"{at:7.1f} s  {tags}", flush=True)
