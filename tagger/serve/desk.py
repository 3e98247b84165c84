"""Requests at one model: those that wait are computed together, as files of a folder are."""

import asyncio
import math
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tagger.base.errors import TaggerError
from tagger.base.log import warn
from tagger.serve.errors import RequestError, request_error, too_many_wait
from tagger.serve.uploads import Upload, path_of
from tagger.tagging.pipeline import ClipOutputs
from tagger.tagging.tagger import Tagger

# Groups that are computed at once: the next begins while the last clip of one ends.
_GROUPS = 2
_IDLE_SECONDS = 0.5


@dataclass(eq=False)
class Ticket:
    """A request at the desk.

    Parameters
    ----------
    descriptor : int
        Of the file, which is closed when it has been read.
    outputs : tuple of str
        What is asked of the model.
    answer : asyncio.Future
        Gets the outputs, or the error.
    loop : asyncio.AbstractEventLoop
        Where that waits.
    """

    descriptor: int
    outputs: tuple[str, ...]
    answer: "asyncio.Future[ClipOutputs]"
    loop: asyncio.AbstractEventLoop

    @property
    def path(self) -> str:
        """Where the file can be read."""
        return path_of(self.descriptor)


class Desk:
    """Takes requests at a model, and answers them.

    Parameters
    ----------
    tagger : Tagger
        The model.
    at_work : int
        Requests that are computed together.
    waiting : int
        Requests that may wait behind them.
    max_seconds : float
        Of audio in a request.
    """

    def __init__(self, tagger: Tagger, *, at_work: int, waiting: int, max_seconds: float) -> None:
        self.tagger = tagger
        hop = tagger.front_end.hop_seconds or tagger.front_end.window_seconds
        self._most_windows = math.inf if hop is None else max_seconds / hop + 1
        self._max_seconds = max_seconds
        self._at_work, self._most = at_work, at_work + waiting
        self._changed = threading.Condition()
        self._queue: deque[Ticket] = deque()
        self._n_inside = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"desk-{n}", daemon=True)
            for n in range(_GROUPS)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def n_inside(self) -> int:
        """Requests that wait or are computed."""
        return self._n_inside

    @property
    def is_full(self) -> bool:
        """Whether another request would not be taken."""
        return self._closed or self._n_inside >= self._most

    async def ask(self, upload: Upload, outputs: tuple[str, ...], *, seconds: float) -> ClipOutputs:
        """Have a file heard.

        Parameters
        ----------
        upload : Upload
            The file.
        outputs : tuple of str
            What is asked of the model.
        seconds : float
            How long the client waits.

        Raises
        ------
        RequestError
            503 where too many wait, 504 where it takes too long, 422 for a file that is wrong.
        """
        loop = asyncio.get_running_loop()
        with self._changed:
            if self.is_full:
                raise too_many_wait()
            ticket = Ticket(upload.descriptor(), outputs, loop.create_future(), loop)
            self._n_inside += 1
            self._queue.append(ticket)
            self._changed.notify()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(ticket.answer)
        except TaggerError as error:
            raise request_error(error, path=ticket.path, name=upload.name) from None
        except TimeoutError:
            raise RequestError(
                504, f"it took longer than {seconds:g} s; send a shorter file, or make it a job"
            ) from None
        finally:
            self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        """Forget a request that nobody waits for any more, unless it is being computed."""
        with self._changed:
            if ticket in self._queue:
                self._queue.remove(ticket)
                self._n_inside -= 1
                os.close(ticket.descriptor)
        # Else its error would be told as one that nobody has looked at.
        ticket.answer.cancel()

    def close(self) -> None:
        """Answer what is under way, and take no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    if self._closed:
                        return
                    self._changed.wait(_IDLE_SECONDS)
                group = self._group()
            self._compute(group)

    def _group(self) -> list[Ticket]:
        """Take what waits for the same outputs as the first of all."""
        wanted = self._queue[0].outputs
        group = [one for one in self._queue if one.outputs == wanted][: self._at_work]
        for one in group:
            self._queue.remove(one)
        return group

    def _compute(self, group: list[Ticket]) -> None:
        left = list(group)

        def tell(n_windows: int) -> None:
            self._refuse_long(n_windows)
            if all(ticket.answer.done() for ticket in left):
                raise RequestError(400, "nobody waits for it any more; send it again")

        try:
            found = self.tagger.attempt(
                [ticket.path for ticket in group],
                group[0].outputs,
                make=lambda _, outputs: outputs,
                tell=tell,
            )
            for _, result in found:
                self._answer(left.pop(0), result)
        except BaseException as error:  # A thread that ends would leave its clients waiting.
            warn(f"{self.tagger.model.name}: {type(error).__name__}: {error}")
            problem = RequestError(500, f"the model failed ({type(error).__name__}); send it again")
            for ticket in left:
                self._answer(ticket, problem)

    def _refuse_long(self, n_windows: int) -> None:
        if n_windows > self._most_windows:
            raise RequestError(
                413, f"it is longer than {self._max_seconds:g} s; send it to /v1/jobs"
            )

    def _answer(self, ticket: Ticket, result: ClipOutputs | TaggerError) -> None:
        os.close(ticket.descriptor)
        with self._changed:
            self._n_inside -= 1

        def tell() -> None:
            if ticket.answer.done():
                return
            if isinstance(result, TaggerError):
                ticket.answer.set_exception(result)
            else:
                ticket.answer.set_result(result)

        _soon(ticket.loop, tell)


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> None:
    # A loop that has ended has nobody who waits.
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
