"""Many transfers side by side, and what tells whether one has arrived whole."""

import base64
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from tagger.cloud.gcs_client import (
    N_THREADS,
)

ItemT = TypeVar("ItemT")
_COPY_BYTES = 1 << 20


def in_threads(
    work: Callable[[ItemT], Any],
    items: Iterable[ItemT],
    *,
    advance: Callable[[int, str], None] | None = None,
) -> None:
    """Call `work` with every item, side by side; the first error ends it.

    Parameters
    ----------
    work : callable
        What waits for the network.
    items : iterable
        What it is called with.
    advance : callable, optional
        Told of each item that is done.
    """
    pool = ThreadPoolExecutor(N_THREADS)
    try:
        for future in as_completed([pool.submit(work, item) for item in items]):
            future.result()
            if advance is not None:
                advance(1, "")
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def crc32c_of_file(path: Path) -> str:
    """Checksum of a local file, as `CloudStorage.info` gives it."""
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while block := file.read(_COPY_BYTES):
            checksum.update(block)
    return base64.b64encode(checksum.digest()).decode("ascii")
