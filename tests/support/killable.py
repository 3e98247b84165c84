"""Command lines in processes of their own that can be killed at any moment.

A process that has imported what takes seconds, but computed nothing yet, is forked for each of
them: run as a program, this file is that process.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

# What a killed process may have done half: the moments before these are the interesting ones.
_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "http.client.send")


@dataclass(frozen=True)
class Kill:
    """When a process is killed (SIGKILL): before its `event`-th change, or after `seconds`.

    With `alone` its workers outlive it for a while, as after a kill for lack of memory; otherwise
    all go at once, as on a machine that is taken away.
    """

    event: int | None = None
    seconds: float | None = None
    alone: bool = False


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, or minus its signal; its changes, unless killed."""

    code: int
    n_events: int
    seconds: float


class Launcher:
    """Starts command lines, one at a time."""

    def __init__(self, log: Path, **environment: str) -> None:
        self.log = log
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            cwd=Path(__file__).parents[2],
        )

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def run(
        self,
        *arguments: str,
        kill: Kill | None = None,
        denied: tuple[int, Path] | None = None,
        **environment: str,
    ) -> Ended:
        """Run ``tagger ARGUMENTS``, or ``-c CODE``.

        From the change with the number `denied` on, none below its folder is permitted.
        """
        kill = kill or Kill()
        started = time.monotonic()
        wanted = {
            "arguments": arguments,
            "environment": environment,
            "event": kill.event,
            "denied": None if denied is None else [denied[0], str(denied[1])],
        }
        print(json.dumps(wanted), file=self._process.stdin, flush=True)
        pid = int(self._process.stdout.readline())
        timer = None
        if kill.seconds is not None:
            timer = threading.Timer(kill.seconds, _kill, [pid, kill.alone])
            timer.start()
        ended = json.loads(self._process.stdout.readline())
        if timer is not None:
            timer.cancel()
            timer.join()
        return Ended(ended["code"], ended["n_events"], time.monotonic() - started)


def _kill(pid: int, alone: bool) -> None:
    try:
        if alone:
            os.kill(pid, signal.SIGKILL)
        else:
            os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _is_change(name: str, arguments: tuple) -> bool:
    if name == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return bool(writes) and isinstance(path, str) and not path.startswith("/dev/")
    return name in _EVENTS


def _child(wanted: dict, log: Path, counted: int) -> None:
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((nowhere, 0), (descriptor, 1), (descriptor, 2)):
        os.dup2(number, target)
    os.environ.update(wanted["environment"])
    n_events, last = 0, wanted["event"]
    denied_from, denied_below = wanted["denied"] or (sys.maxsize, "")

    def count(name: str, arguments: tuple) -> None:
        nonlocal n_events
        if _is_change(name, arguments):
            n_events += 1
            if n_events == last:
                os.killpg(0, signal.SIGKILL)
            if n_events >= denied_from and str(arguments[0]).startswith(denied_below):
                raise PermissionError(errno.EACCES, "Permission denied", str(arguments[0]))

    sys.addaudithook(count)
    code = 1
    try:
        if wanted["arguments"][0] == "-c":
            exec(wanted["arguments"][1], {"__name__": "__main__"})
        else:
            from tagger.cli import main as cli

            sys.argv = ["tagger", *wanted["arguments"]]
            cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(counted, str(n_events).encode())
        os._exit(code)


def _serve(log: Path) -> None:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    os.environ["MPLBACKEND"] = "agg"
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    # Not `tagger.network.keras`: that starts TensorFlow's threads, which a fork would lack.
    import autopool  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import pydantic  # noqa: F401
    import tensorflow  # noqa: F401
    import tf_keras  # noqa: F401

    import tagger.config  # noqa: F401

    for line in sys.stdin:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _child(json.loads(line), log, writing)
        os.close(writing)
        print(pid, flush=True)
        status = os.waitpid(pid, 0)[1]
        n_events = int(os.read(reading, 32) or 0)
        os.close(reading)
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps({"code": code, "n_events": n_events}), flush=True)


if __name__ == "__main__":
    # Beside this file lie modules of the tests, none of which is wanted.
    sys.path[0] = str(Path(__file__).parents[2])
    _serve(Path(sys.argv[1]))
