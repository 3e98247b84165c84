"""Worker process of a Beam pipeline on this machine: Beam's own, but quiet and not left behind.

Beam's worker waits for the clips under way when the launching process is interrupted, and for ever
when that is killed; and it says on stderr what it was started with.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from preprocess.engines.workers import start_worker

# Path of a file that exists as long as the pipeline is wanted.
WANTED_FILE = "TAGGER_PIPELINE_WANTED"


@contextlib.contextmanager
def quiet(level: int) -> Iterator[None]:
    """Leave out log messages up to `level`, Beam's and those of others."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


def main() -> None:
    """Work until the launching process says that it is done, or has gone."""
    wanted = Path(os.environ[WANTED_FILE])
    start_worker(os.getppid(), wanted=wanted.exists)
    # Beam sends its messages and every exception to the launching process. Where there is a handler
    # it makes no other, and what it prints besides is the same again.
    logging.getLogger().addHandler(logging.NullHandler())
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])


if __name__ == "__main__":
    main()
