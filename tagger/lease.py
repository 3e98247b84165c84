"""A lease in a bucket: of several machines that would work on one run, a single one does.

``python -m tagger.lease ADDRESS OWNER COMMAND...`` runs a command while it holds the lease. After
``TAGGER_LEASE_SECONDS`` (180) without a sign of life another machine may take it.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tagger.errors import ConfigError, TaggerError
from tagger.locations import is_remote, location
from tagger.progress import notice, warn

# Exit codes: the lease is another one's, or has become another one's while the command ran.
EXIT_HELD = 75
EXIT_LOST = 76
_SECONDS = 180.0
_SECONDS_VARIABLE = "TAGGER_LEASE_SECONDS"


class LeaseHeldError(TaggerError):
    """Another owner holds the lease."""


class Lease:
    """An object that its owner writes anew again and again.

    No clocks are compared: an owner counts as gone when its object has not changed for so long as
    one has watched it oneself. Every write names the generation that it replaces, so that of two
    who take the lease at once only one gets it.

    Parameters
    ----------
    address : Path
        Of the object, ``gs://BUCKET/NAME``.
    owner : str
        Who asks, e.g. the number of a VM: what it held before it was killed is its own at once.
    seconds : float
        After which an owner that does not write counts as gone; it writes three times as often.
    """

    def __init__(self, address: Path, owner: str, *, seconds: float = _SECONDS) -> None:
        self.address = address
        self.owner = owner
        self.seconds = seconds
        self._fs = cast(Any, address).fs
        self._path = str(cast(Any, address).path)
        self._generation = 0

    def take(self) -> None:
        """Take the lease; where another one has it, watch first whether that one still lives.

        Raises
        ------
        LeaseHeldError
            If it lives, or a third one was faster.
        OSError
            If the bucket cannot be read or written.
        """
        while True:
            generation, owner = self._look()
            if owner not in (None, self.owner):
                self._watch(generation, owner)
            try:
                self._write(generation)
                return
            except FileExistsError:
                # Somebody else was faster, or has released it just now.
                continue

    def renew(self) -> None:
        """Say that one is still there.

        Raises
        ------
        LeaseHeldError
            If it is another one's by now.
        OSError
            If the bucket cannot be written.
        """
        try:
            self._write(self._generation)
        except FileExistsError:
            raise self._held(self._look()[1]) from None

    def release(self) -> None:
        """Remove the object, if it is one's own."""
        generation, owner = self._look()
        if owner == self.owner and generation == self._generation:
            self._fs.rm_file(self._path)

    def _look(self) -> tuple[int, str | None]:
        """Read generation and owner of the object; 0 and None where there is none."""
        try:
            generation = int(self._fs.info(self._path)["generation"])
            content = self._fs.cat_file(self._path, generation=generation)
        except FileNotFoundError:
            return 0, None
        try:
            return generation, str(json.loads(content)["owner"])
        except (ValueError, KeyError, TypeError):
            return generation, "somebody unknown"

    def _watch(self, generation: int, owner: str | None) -> None:
        notice(f"{self.address}: held by {owner}; watching whether it is still there")
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            time.sleep(self.seconds / 12)
            found, owner_now = self._look()
            if found != generation:
                if owner_now in (None, self.owner):
                    return
                raise self._held(owner_now)
        notice(f"{self.address}: {owner} has gone")

    def _held(self, owner: str | None) -> LeaseHeldError:
        return LeaseHeldError(
            f"{self.address}: held by {owner or 'nobody'}; only one machine works on a run: "
            "stop the other one, or choose another run"
        )

    def _write(self, generation: int) -> None:
        mark = uuid.uuid4().hex
        content = json.dumps({"owner": self.owner, "mark": mark}).encode("utf-8")
        self._fs.pipe_file(self._path, content, if_generation_match=generation)
        # Whoever wrote after that has seen the object unchanged for long, and is its owner now.
        written = int(self._fs.info(self._path)["generation"])
        if self._fs.cat_file(self._path, generation=written) != content:
            raise FileExistsError(self._path)
        self._generation = written


def run_holding(lease: Lease, command: Sequence[str]) -> int:
    """Run a command while the lease is held.

    SIGTERM and SIGINT are passed on to it. Where the network is away for a while it goes on; where
    the lease has become another one's, it is sent SIGTERM.

    Parameters
    ----------
    lease : Lease
        Taken first, renewed in a thread, released at the end.
    command : sequence of str
        The program and its arguments.

    Returns
    -------
    int
        The command's exit code (128 and more: of a signal); `EXIT_LOST`.

    Raises
    ------
    LeaseHeldError
        If another one holds it: the command has not been started.
    """
    lease.take()
    asked: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: Any) -> None:
        del frame
        asked.append(number)
        if child is not None:
            child.send_signal(number)

    for caught in (signal.SIGTERM, signal.SIGINT):
        signal.signal(caught, pass_on)
    child = subprocess.Popen(command)
    # What came before there was a child.
    for number in asked[:1]:
        child.send_signal(number)
    ended, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not ended.wait(lease.seconds / 3):
            try:
                lease.renew()
            except LeaseHeldError as error:
                warn(str(error))
                lost.set()
                child.send_signal(signal.SIGTERM)
                return
            except OSError as error:
                warn(f"{lease.address}: cannot be renewed now ({error.strerror})")

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    code = child.wait()
    ended.set()
    thread.join()
    if lost.is_set():
        return EXIT_LOST
    try:
        lease.release()
    except OSError as error:
        warn(f"{lease.address}: cannot be released ({error.strerror}); it will count as gone")
    return code if code >= 0 else 128 - code


def main(arguments: Sequence[str]) -> int:
    """Run the command line ``ADDRESS OWNER COMMAND...``; returns the exit code."""
    try:
        if len(arguments) < 3:
            raise ConfigError("give the address of the lease, its owner and a command")
        address = location(arguments[0])
        if not is_remote(address):
            raise ConfigError(f"{arguments[0]}: a lease lies in a bucket; write gs://BUCKET/NAME")
        lease = Lease(address, arguments[1], seconds=_seconds())
        return run_holding(lease, arguments[2:])
    except LeaseHeldError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_HELD
    except TaggerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = error.filename or arguments[0]
        print(f"error: {where}: {error.strerror}; check the address and rights", file=sys.stderr)
        return 2


def _seconds() -> float:
    text = os.environ.get(_SECONDS_VARIABLE, str(_SECONDS))
    if not text.replace(".", "", 1).isdigit() or float(text) <= 0:
        raise ConfigError(f"{_SECONDS_VARIABLE}={text}: give a number of seconds")
    return float(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
