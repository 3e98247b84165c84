"""A lease in a bucket: of several machines that would work on one run, a single one does.

``python -m tagger.cloud.lease ADDRESS OWNER COMMAND...`` runs a command while it holds the lease.
After ``TAGGER_LEASE_SECONDS`` (180) without a sign of life another machine may take it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from tagger.base.addresses import is_remote, without_secrets
from tagger.base.errors import ConfigError, TaggerError
from tagger.base.log import notice, say_error, warn
from tagger.cloud.locations import location

# Exit codes: the lease is another one's, or has become another one's while the command ran.
EXIT_HELD = 75
EXIT_LOST = 76
_SECONDS = 180.0
_SECONDS_VARIABLE = "TAGGER_LEASE_SECONDS"
# What the end waits for at most: a machine that is being taken away has little time.
_END_SECONDS = 10.0
# prctl(2): which signal a process gets when the one that has started it is gone.
_PR_SET_PDEATHSIG = 1


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
        # Of every write that may have arrived: the answer to it may have been lost.
        self._marks: set[str] = set()

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
            generation, owner, _ = self._look()
            if owner is not None and owner != self.owner:
                self._watch(generation, owner)
            try:
                self._write(generation)
                return
            except FileExistsError:
                # Somebody else was faster, or has released it just now.
                continue

    def renew(self) -> None:
        """Say that one is still there; where somebody has removed the object, take it again.

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
            generation, owner, mark = self._look()
            if owner is not None and mark not in self._marks:
                raise self._held(owner) from None
            # A write of one's own, of which no answer came; or nobody's: another one that takes it
            # at the same time is met by the next write.
            self._generation = generation
            self.renew()

    def release(self) -> None:
        """Remove the object, if it is one's own.

        Raises
        ------
        OSError
            If the bucket cannot be read or written.
        """
        generation, _, mark = self._look()
        if mark in self._marks:
            # It may have become another one's, or have gone, just now.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                self._fs.rm_file(self._path, if_generation_match=generation)

    def _look(self) -> tuple[int, str | None, str]:
        """Read generation, owner and mark of the object; 0, None and "" where there is none."""
        try:
            generation = int(self._fs.info(self._path)["generation"])
            content = self._fs.cat_file(self._path, generation=generation)
        except FileNotFoundError:
            return 0, None, ""
        try:
            found = json.loads(content)
            return generation, str(found["owner"]), str(found.get("mark", ""))
        except (ValueError, KeyError, TypeError):
            return generation, "somebody unknown", ""

    def _watch(self, generation: int, owner: str) -> None:
        notice(f"{self.address}: held by {owner}; watching whether it is still there")
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            time.sleep(self.seconds / 12)
            found, owner_now, _ = self._look()
            if found != generation:
                if owner_now is None or owner_now == self.owner:
                    return
                raise self._held(owner_now)
        notice(f"{self.address}: {owner} has gone")

    def _held(self, owner: str) -> LeaseHeldError:
        return LeaseHeldError(
            f"{self.address}: held by {owner}; only one machine works on a run: "
            "stop the other one, or choose another run"
        )

    def _write(self, generation: int) -> None:
        mark = uuid.uuid4().hex
        content = json.dumps({"owner": self.owner, "mark": mark}).encode("utf-8")
        self._marks.add(mark)
        self._generation = self._fs.pipe_file(self._path, content, if_generation_match=generation)
        self._marks = {mark}


def run_holding(lease: Lease, command: Sequence[str]) -> int:
    """Run a command while the lease is held.

    SIGTERM and SIGINT are passed on to it. Where the network is away for a while it goes on; where
    the lease has become another one's, it and all that it has started are killed: asked to end, it
    would send what it has into a run that is another one's. What it has saved is on the disk.

    Parameters
    ----------
    lease : Lease
        Taken first, renewed in a thread, released at the end.
    command : sequence of str
        The program and its arguments. It runs in a session of its own.

    Returns
    -------
    int
        The command's exit code (128 and more: of a signal); `EXIT_LOST`.

    Raises
    ------
    LeaseHeldError
        If another one holds it: the command has not been started.
    SystemExit
        If a signal comes while the lease is being taken.
    """
    asked: list[int] = []
    taking = True
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: Any) -> None:
        del frame
        if taking:
            raise SystemExit(128 + number)
        asked.append(number)
        if child is not None and child.returncode is None:
            os.kill(child.pid, number)

    caught = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, pass_on) for number in caught}
    try:
        lease.take()
        taking = False
        # What the user asks to be run.
        child = subprocess.Popen(  # noqa: S603
            command, start_new_session=True, preexec_fn=_bound_to(os.getpid())
        )
        # What came before there was a child.
        for number in asked[:1]:
            os.kill(child.pid, number)
        held = _Held(lease, child)
        held.wait()
        if held.lost:
            return EXIT_LOST
        held.end()
        code = child.wait()
        return code if code >= 0 else 128 - code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Held:
    """A command that runs while a lease is held, and the two threads that see to both."""

    def __init__(self, lease: Lease, child: subprocess.Popen[bytes]) -> None:
        self.lost = False
        self._lease = lease
        self._pid = child.pid
        # The command is over, or nobody waits for it any more.
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()
        # Only this one writes the lease: what it began is done before it is released.
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def wait(self) -> None:
        """Wait for the end of the command, or of the lease."""
        self._over.wait()

    def end(self) -> None:
        """Wait until the lease is released, but not for long."""
        self._keeper.join(_END_SECONDS)
        if self._keeper.is_alive():
            warn(
                f"{self._lease.address}: not released in time; "
                "other VMs can take it when it has run out"
            )

    def _watch(self) -> None:
        # Left as it is until its group is dealt with: nobody else gets its number meanwhile.
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        # Helpers that it may have left must not outlive the lease.
        self._kill()
        self._over.set()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)

    def _keep(self) -> None:
        wait = self._lease.seconds / 3
        while not self._over.wait(wait):
            wait = self._lease.seconds / 3
            try:
                self._lease.renew()
            except LeaseHeldError as error:
                self.lost = True
                if not self._over.is_set():
                    warn(f"{error}; what runs here is stopped")
                    self._kill()
                    # One that cannot be killed hangs in the kernel: it is not waited for for ever.
                    self._over.wait(_END_SECONDS)
                    self._over.set()
                return
            # Whatever it is: that nobody renews it must not pass unseen.
            except Exception as error:
                warn(f"{self._lease.address}: cannot be renewed now ({_reason(error)})")
                # Others may take it soon.
                wait = self._lease.seconds / 12
        try:
            self._lease.release()
        except Exception as error:
            warn(
                f"{self._lease.address}: cannot be released ({_reason(error)}); it will count as "
                "gone"
            )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or without_secrets(f"{type(error).__name__}: {error}")


def _bound_to(parent: int) -> Callable[[], None] | None:
    """Make a new process that does not outlive its parent, where the system can do that."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            # It has gone already.
            os._exit(1)

    return bind


def main(arguments: Sequence[str]) -> int:
    """Run the command line ``ADDRESS OWNER COMMAND...``; returns the exit code."""
    try:
        if len(arguments) < 3:
            raise ConfigError("give the address of the lease, its owner and a command")
        address = location(arguments[0])
        if not is_remote(address):
            raise ConfigError(
                f"{without_secrets(arguments[0])}: a lease lies in a bucket; write gs://BUCKET/NAME"
            )
        lease = Lease(address, arguments[1], seconds=_seconds())
        return run_holding(lease, arguments[2:])
    except LeaseHeldError as error:
        say_error(str(error))
        return EXIT_HELD
    except TaggerError as error:
        say_error(str(error))
        return 2
    except OSError as error:
        where = error.filename or arguments[0]
        say_error(f"{where}: {error.strerror}; check the address and rights")
        return 2


def _seconds() -> float:
    text = os.environ.get(_SECONDS_VARIABLE, str(_SECONDS))
    if not text.replace(".", "", 1).isdigit() or float(text) <= 0:
        raise ConfigError(f"{_SECONDS_VARIABLE}={text}: give a number of seconds")
    return float(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
