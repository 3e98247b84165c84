"""Long files: heard one after the other in the background, and their results kept for a while."""

import asyncio
import os
import queue
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tagger.base.errors import TaggerError
from tagger.base.log import warn
from tagger.serve.errors import RequestError, request_error
from tagger.serve.settings import ServeSettings
from tagger.serve.uploads import Upload, path_of
from tagger.tagging.pipeline import ClipOutputs
from tagger.tagging.tagger import Tagger

State = Literal["waiting", "running", "done", "failed"]
# How often somebody who follows a job is told of it.
_TOLD_SECONDS = 0.25


@dataclass
class Job:
    """A long file on its way.

    Parameters
    ----------
    id : str
        Cannot be guessed: who knows it may see the result.
    owner : str
        Who runs it: of several replicas only one knows it.
    """

    id: str
    owner: str
    name: str
    tagger: Tagger
    descriptor: int
    make: Callable[[ClipOutputs, str], dict[str, Any]]
    state: State = "waiting"
    seconds_read: float = 0.0
    result: dict[str, Any] | None = None
    error: str | None = None
    ended: float | None = None
    begun: float = field(default_factory=time.monotonic)

    @property
    def is_over(self) -> bool:
        """Whether there is a result, or an error."""
        return self.ended is not None

    def status(self) -> dict[str, Any]:
        """Say to its client how far it is."""
        return {
            "id": self.id,
            "owner": self.owner,
            "file": self.name,
            "state": self.state,
            "seconds_read": round(self.seconds_read, 1),
            "error": self.error,
        }


class Jobs:
    """All jobs of a service.

    Parameters
    ----------
    settings : ServeSettings
        How long results are kept, and how many.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self.owner = secrets.token_hex(4)
        self._jobs: dict[str, Job] = {}
        self._waiting: queue.Queue[Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def add(
        self, tagger: Tagger, upload: Upload, make: Callable[[ClipOutputs, str], dict[str, Any]]
    ) -> Job:
        """Take a file.

        Raises
        ------
        RequestError
            503 where too many wait.
        """
        self._forget()
        if self.is_full:
            raise RequestError(503, "too many jobs wait; ask again later", retry_seconds=60)
        name = secrets.token_urlsafe(24)
        job = Job(name, self.owner, upload.name, tagger, upload.descriptor(), make)
        with self._lock:
            self._jobs[job.id] = job
        self._waiting.put(job)
        return job

    @property
    def is_full(self) -> bool:
        """Whether another job would not be taken."""
        return self._closed or self._waiting.qsize() >= self._settings.waiting_jobs

    def get(self, job_id: str) -> Job:
        """Find a job.

        Raises
        ------
        RequestError
            404 where there is none, or none any more.
        """
        self._forget()
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise RequestError(
                404,
                f"no such job here ({self.owner}); its result was kept for "
                f"{self._settings.kept_seconds / 60:.0f} minutes, or another replica has it",
            )
        return job

    async def follow(self, job: Job) -> AsyncIterator[dict[str, Any]]:
        """Give the status of a job whenever it has changed, until it is over."""
        last = None
        while True:
            status = job.status()
            if status != last:
                last = status
                yield status
            if self._closed or (job.is_over and last == job.status()):
                return
            await asyncio.sleep(_TOLD_SECONDS)

    def stop(self) -> None:
        """Take no more, and let go of who follows."""
        self._closed = True
        self._waiting.put(None)

    def close(self) -> None:
        """Take no more, and end the one that is under way."""
        self.stop()
        self._thread.join()

    def _forget(self) -> None:
        oldest = time.monotonic() - self._settings.kept_seconds
        with self._lock:
            self._jobs = {
                name: job
                for name, job in self._jobs.items()
                if job.ended is None or job.ended > oldest
            }
            # Of too many, those that ended longest ago.
            over = sorted((job for job in self._jobs.values() if job.ended), key=_ended)
            for job in over[: max(0, len(over) - self._settings.kept_jobs + 1)]:
                del self._jobs[job.id]

    def _work(self) -> None:
        while True:
            job = self._waiting.get()
            if job is None or self._closed:
                return
            job.state = "running"
            try:
                self._run(job)
            except Exception as error:  # One job that fails must not end the thread of all.
                warn(f"job of {job.name}: {type(error).__name__}: {error}")
                job.error = f"the model failed ({type(error).__name__}); send it again"
            job.state = "done" if job.error is None else "failed"
            job.ended = time.monotonic()
            os.close(job.descriptor)

    def _run(self, job: Job) -> None:
        path = path_of(job.descriptor)
        hop = job.tagger.front_end.hop_seconds or job.tagger.front_end.window_seconds or 0.0

        def tell(n_windows: int) -> None:
            job.seconds_read = n_windows * hop
            if self._closed:
                raise RequestError(503, "the service is ending; send it again later")
            if job.seconds_read > self._settings.max_job_seconds:
                raise RequestError(
                    413, f"it is longer than {self._settings.max_job_seconds:g} s; split it"
                )

        found = job.tagger.attempt(
            [path], job.tagger.asked, make=lambda _, outputs: outputs, tell=tell
        )
        (_, result), *_ = list(found)
        if isinstance(result, TaggerError):
            job.error = str(request_error(result, path=path, name=job.name))
        else:
            job.result = job.make(result, job.name)


def _ended(job: Job) -> float:
    return job.ended or 0.0
