"""Mutated inputs for the public entry points, in a process that may die of them.

Run as a program, this file is that process: it makes input after input, hands each to what is
tested, and tells what came of it. Input number n of a kind depends on the seed and on n alone.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# Of processor time for one input; and of the clock, as others use the machine as well.
CPU_SECONDS = 5.0
WALL_SECONDS = 30.0
MEMORY_BYTES = 1 << 30
# More findings of a kind say no more.
_MOST_FINDINGS = 12
# Which words tell what to do.
_REMEDY = re.compile("; |: (?:give|write|use|choose) ")
# What ffmpeg says, which may lack memory that it, not this program, has asked for.
_SAID_BY_FFMPEG = re.compile(r"ffmpeg cannot decode it \(.*\)")
# What a user shall read to the end.
_LONGEST_MESSAGE = 4000

# What is called gives this where it has said itself that the input is of no use.
REFUSED = "refused"
Entry = Callable[[], object]


@dataclass(frozen=True)
class Finding:
    """What must not happen."""

    kind: str
    seed: int
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.kind}, seed {self.seed}, input {self.number}: {self.what}"


@dataclass
class Outcome:
    """What came of the inputs of a kind."""

    kind: str
    n_read: int = 0
    n_refused: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{self.kind}: {self.n_read} read, {self.n_refused} refused, {len(self.findings)} "
            f"findings, {self.seconds:.0f} s of processor time, {self.peak_bytes >> 20} MB more "
            "memory at most"
        )


class Kind:
    """Inputs of one kind; subclasses make them and say what they are given to.

    Parameters
    ----------
    folder : Path
        All that is tested may write to.
    seeds : Path
        Models and the like that take long to make.
    """

    # Raised by what is tested, beside the errors of the project.
    allowed: tuple[type[Exception], ...] = ()
    # What errors name where it is no file in the folder: the key of a config, an option.
    also_named: tuple[str, ...] = ()
    # Whether it may be refused memory that it would not have used.
    asks_for_what_is_promised = False
    # Whether it may read what it is told to, wherever that is: configs are trusted with that.
    reads_elsewhere = False

    def __init__(self, folder: Path, seeds: Path) -> None:
        self.folder = folder
        self.seeds = seeds

    def whole(self) -> list[Entry]:
        """Inputs that must be read."""
        raise NotImplementedError

    def make(self, rng: random.Random) -> Entry:
        """Write a mutated input and tell what to call."""
        raise NotImplementedError


# ---- mutations of bytes ------------------------------------------------------------------------

_INTEGERS = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 1 << 16, 1 << 24, 0x7FFFFFFF)
_WIDE = (*_INTEGERS, 1 << 31, 0xFFFFFFFF, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def integer_bytes(rng: random.Random) -> bytes:
    """Write a number that programs stumble over, of any width and byte order."""
    size = rng.choice((1, 2, 4, 4, 8))
    return (rng.choice(_WIDE) % (1 << 8 * size)).to_bytes(size, rng.choice(("little", "big")))


def _place(rng: random.Random, size: int) -> int:
    # Headers stand in front, and some formats have them at the end.
    near = min(size, rng.choice((16, 64, 256, 1024)))
    return rng.choice((rng.randrange(near), rng.randrange(size), size - 1 - rng.randrange(near)))


def mutated(rng: random.Random, content: bytes, other: bytes = b"") -> bytes:
    """Change bytes in a few places; `other` is something to splice with."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not data:
            data += integer_bytes(rng)
        at, how = _place(rng, len(data)), rng.randrange(9)
        length = min(rng.choice((1, 2, 4, 16, 64, 300)), len(data) - at)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at] = rng.randrange(256)
        elif how == 2:
            number = integer_bytes(rng)
            data[at : at + len(number)] = number
        elif how == 3:
            del data[at:]
        elif how == 4:
            del data[at : at + length]
        elif how == 5:
            data[at:at] = rng.choice((rng.randbytes(length), b"\0" * length, data[at : at + 64]))
        elif how == 6:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 20))
        elif how == 7:
            there = _place(rng, len(data))
            data[at : at + length], data[there : there + length] = (
                data[there : there + length],
                data[at : at + length],
            )
        elif other:
            data[at:] = other[_place(rng, len(other)) :]
    return bytes(data)


# ---- mutations of JSON and YAML ----------------------------------------------------------------

TEXTS = (
    "", " ", "../../canary/x", "/etc/passwd", "..\\..\\canary\\x", "C:\\x", "gs://bucket/x", "a\0b",
    "line\nbreak", "\x1b[31mred\x1b[0m", "\u2028", "\ud800", "é" * 50, "x" * 70_000, "file:///x",
    "clips/../../canary/x", "~", "${HOME}", "%s%n", "a" * 300, "\u202e", "-", "nan", "http://[",
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, 1e308,
    float("nan"), float("inf"), [], {}, [[]], [None], {"": None}, "x", *TEXTS,
)  # fmt: skip


def nested(depth: int, *, key: str | None = None) -> object:
    """Lists in lists, or objects in objects."""
    value: object = 0
    for _ in range(depth):
        value = [value] if key is None else {key: value}
    return value


def mutated_value(rng: random.Random, value: object) -> object:
    """Change one thing somewhere within a value of JSON."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        how = rng.randrange(12)
        if how == 0:
            return {name: item for name, item in value.items() if name != key}
        if how == 1:
            return {**value, rng.choice(TEXTS): rng.choice(VALUES)}
        if how == 2:
            return {(rng.choice(TEXTS) if name == key else name): v for name, v in value.items()}
        return {**value, key: mutated_value(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        how = rng.randrange(8)
        if how == 0:
            return value[:at] + value[at + 1 :]
        if how == 1:
            return value[:at] + [value[at]] * rng.choice((2, 3, 500)) + value[at + 1 :]
        return value[:at] + [mutated_value(rng, value[at])] + value[at + 1 :]
    if rng.random() < 0.05:
        return nested(rng.choice((50, 300, 700)), key=rng.choice((None, "a")))
    if isinstance(value, str) and rng.random() < 0.4:
        at = rng.randrange(len(value) + 1)
        return value[:at] + rng.choice(TEXTS)[:500] + value[at:]
    if isinstance(value, int | float) and rng.random() < 0.4:
        return rng.choice(
            (-value, value + 1, value - 1, value * 10**6, value % 7, json.dumps(value))
        )
    return rng.choice(VALUES)


def mutated_json(rng: random.Random, text: bytes) -> bytes:
    """Change JSON so that it mostly stays JSON."""
    if rng.random() < 0.25:
        return mutated(rng, text)
    if rng.random() < 0.03:
        return rng.choice((b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"\xff\xfe{\0}\0"))
    value = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = mutated_value(rng, value)
    changed = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return rng.choice((b"", b"", b"", b"\xef\xbb\xbf")) + changed


def write_file(path: Path, content: bytes) -> Path:
    """Write a file and the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# ---- the watch ---------------------------------------------------------------------------------


class _Watch:
    """Listens to what Python tells of files, processes, the network and code."""

    _CHANGES = frozenset(
        {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod",
         "os.chown", "os.truncate", "os.utime", "os.setxattr", "shutil.rmtree", "shutil.move",
         "shutil.copyfile", "os.mknod"}
    )  # fmt: skip
    _CODE = frozenset(
        {"os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
         "os.startfile", "subprocess.Popen", "pty.spawn", "pickle.find_class", "code.__new__",
         "ctypes.dlopen", "ctypes.cdata", "socket.connect", "socket.bind", "socket.getaddrinfo",
         "socket.sendto", "urllib.Request", "http.client.connect", "webbrowser.open",
         "ftplib.connect", "smtplib.connect"}
    )  # fmt: skip
    _DECODERS = frozenset({"ffmpeg", "ffprobe"})

    def __init__(self, folders: tuple[Path, ...], canary: Path | None) -> None:
        self._folders = tuple(os.path.realpath(folder) for folder in folders)
        self._canary = None if canary is None else os.path.realpath(canary)
        self._code_of = tuple({sys.prefix, sys.base_prefix, str(Path(__file__).parents[2])})
        self.active = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.active:
            return
        self.active = False
        try:
            problem = self._problem(event, arguments)
        finally:
            self.active = True
        if problem is not None:
            self.seen.append(problem)

    def _problem(self, event: str, arguments: tuple[object, ...]) -> str | None:
        if event == "code.__new__" and str(arguments[1]).startswith("av/"):
            # Compiled by Cython, it makes the lines of a traceback where it raises an error.
            return None
        if event == "open":
            return self._opened(*arguments)
        if event in self._CHANGES:
            paths = [item for item in arguments if isinstance(item, str | bytes | os.PathLike)]
            # Below a folder that is open already, shutil names what is in it.
            within = any(isinstance(item, int) and item > 2 for item in arguments[1:])
            outside = [path for path in paths if not self._is_inside(path)]
            copied = event == "shutil.copyfile" and self._is_inside(paths[-1])
            return f"{event} {outside}" if outside and not within and not copied else None
        if event == "exec":
            name = getattr(arguments[0], "co_filename", "?")
            known = name.startswith(("<frozen", *self._code_of))
            return None if known or self._is_importing() else f"executes {name}"
        if event in self._CODE:
            decoder = event == "subprocess.Popen" and Path(str(arguments[0])).name in self._DECODERS
            return None if decoder or self._is_importing() else f"{event} {arguments!r:.200}"
        return None

    def _opened(
        self, path: object, mode: object = None, flags: object = 0, *_: object
    ) -> str | None:
        if isinstance(path, int) or path in ("/dev/null", b"/dev/null"):
            return None
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        changing = isinstance(mode, str) and set(mode) & set("wax+")
        changing = changing or (isinstance(flags, int) and flags & writes)
        if changing and not self._is_inside(path) and not self._is_importing():
            return f"opens {path!r} for writing"
        if self._canary is not None and os.path.realpath(path).startswith(self._canary):
            return f"opens {path!r}"
        return None

    def _is_inside(self, path: object) -> bool:
        # Of a link itself, not of what it leads to.
        parent, name = os.path.split(os.fsdecode(path))
        real = os.path.join(os.path.realpath(parent or "."), name)  # noqa: PTH118
        return any(real == folder or real.startswith(folder + os.sep) for folder in self._folders)

    def _is_importing(self) -> bool:
        """Whether a module of the environment is being imported, which may run anything."""
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap_external>":
                return True
            frame = frame.f_back
        return False


# ---- the process -------------------------------------------------------------------------------


def problem_of_message(error: Exception, kind: Kind) -> str | None:
    """Say what is wrong with what the user reads; None where nothing is."""
    message = str(error)
    if len(message.splitlines()) != 1 or any(ord(character) < 32 for character in message):
        return "a message that is not one line"
    if len(message) > _LONGEST_MESSAGE:
        return f"a message of {len(message)} characters"
    if not any(name in message for name in (str(kind.folder), *kind.also_named)):
        return "a message that does not name the file"
    if not _REMEDY.search(message):
        return "a message without a remedy"
    own = _SAID_BY_FFMPEG.sub("", message.replace(str(kind.folder), ""))
    lacking = any(word in own for word in ("emoryError", "memory", "Unable to allocate"))
    if lacking and not kind.asks_for_what_is_promised:
        return "asks for more memory than there is"
    return None


def _kind(name: str) -> type[Kind]:
    import fuzzed

    return fuzzed.KINDS[name]


def _tree(folder: Path) -> list[tuple[str, int, int]]:
    return sorted(
        (str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")
    )


def _vm_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _peak_bytes() -> int:
    # Of this program alone: what the system calls the largest of a process may be its parent's.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) << 10


def work(name: str, root: Path, seeds: Path, seed: int, first: int, last: int) -> None:
    """Make and try the inputs `first` to `last`; a line of JSON to stdout for each."""
    from tagger.base.errors import TaggerError

    # What is tested may print.
    told = os.fdopen(os.dup(1), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    case, temporary, canary = root / "case", root / "tmp", root / "canary"
    shutil.rmtree(case, ignore_errors=True)
    for folder in (case, temporary, canary):
        folder.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = str(temporary)
    os.environ["TAGGER_CACHE"] = str(case / "cache")
    os.chdir(case)
    for path in ("x", "x.csv", "x.yaml", "x.json", "x.mp3", "x.wav"):
        write_file(canary / path, b"not to be read")
    kind = _kind(name)(case, seeds)
    untouched = _tree(canary)
    watch = _Watch((case, temporary), None if kind.reads_elsewhere else canary)
    for entry in kind.whole():
        entry()
    limit = _vm_bytes() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    peak_before, allowed = _peak_bytes(), (TaggerError, *kind.allowed)
    for number in range(first, last):
        rng = random.Random(f"{seed} {name} {number}")
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir()
        os.chdir(case)
        print(json.dumps({"begun": number}), file=told)
        entry = kind.make(rng)
        finding = refusal = None
        watch.seen.clear()
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        watch.active = True
        try:
            refusal = REFUSED if entry() == REFUSED else None
        except allowed as error:
            refusal = f"{type(error).__name__}: {error}"
            if isinstance(error, TaggerError):
                problem = problem_of_message(error, kind)
                finding = problem and f"{problem}: {refusal[:1000]}"
        except BaseException:
            finding = traceback.format_exc()[-3000:]
        watch.active = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        peak = _peak_bytes() - peak_before
        if peak > MEMORY_BYTES:
            finding = f"takes {peak >> 20} MB; {finding or refusal}"
        if watch.seen:
            finding = f"{watch.seen[0]} ({len(watch.seen)} such); {finding or refusal}"
        if number % 50 == 0 and _tree(canary) != untouched:
            finding = "what lies beside its folder has changed"
        done = {
            "done": number,
            "finding": finding,
            "refusal": refusal and refusal[:300],
            "peak": peak,
        }
        print(json.dumps(done), file=told)
        if finding:
            break
    if _tree(canary) != untouched:
        done = {"done": number, "finding": "what lies beside its folder has changed"}
        print(json.dumps({**done, "refusal": None, "peak": 0}), file=told)
    told.flush()
    # Whatever threads may still do.
    os._exit(0)


# ---- its parent --------------------------------------------------------------------------------


def fuzz(name: str, root: Path, seeds: Path, *, seed: int, n: int, first: int = 0) -> Outcome:
    """Try `n` inputs of a kind; what must not happen is in the outcome's `findings`."""
    outcome = Outcome(name)
    last = first + n
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    while first < last and len(outcome.findings) < _MOST_FINDINGS:
        first = _one_process(outcome, root, seeds, seed, first, last)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    outcome.seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return outcome


def _one_process(
    outcome: Outcome, root: Path, seeds: Path, seed: int, first: int, last: int
) -> int:
    """Run a process until it ends; returns the number of the next input."""
    name = outcome.kind
    arguments = [name, str(root), str(seeds), str(seed), str(first), str(last)]
    root.mkdir(parents=True, exist_ok=True)
    log = root / "stderr.log"
    tests = Path(__file__).parent
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(tests), os.environ["PYTHONPATH"])),
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONWARNINGS": "ignore",
    }
    with (
        log.open("wb") as complaints,
        subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment,
        ) as process,
    ):
        begun, overdue = None, False
        for line in _lines(process):
            if line is None:
                overdue = True
                process.kill()
                break
            told = json.loads(line)
            if "begun" in told:
                begun = told["begun"]
                continue
            begun, first = None, told["done"] + 1
            outcome.peak_bytes = max(outcome.peak_bytes, told["peak"])
            if told["finding"]:
                outcome.findings.append(Finding(name, seed, told["done"], told["finding"]))
            elif told["refusal"]:
                outcome.n_refused += 1
                outcome.refusals[told["refusal"]] += 1
            else:
                outcome.n_read += 1
        code = process.wait()
    if begun is None and code == 0:
        return first
    said = log.read_bytes()[-2000:].decode("utf-8", "replace")
    if begun is None:
        raise AssertionError(f"{name}: the process ends with {code} before any input: {said}")
    if overdue:
        what = f"no answer within {WALL_SECONDS:.0f} s"
    elif code == -signal.SIGPROF:
        what = f"more than {CPU_SECONDS:.0f} s of processor time"
    else:
        what = f"the process ends with {code}"
    outcome.findings.append(Finding(name, seed, begun, f"{what}; {said}"))
    return begun + 1


def _lines(process: subprocess.Popen[bytes]):
    """Lines as they come; None where none comes for too long."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        buffer, patience = b"", 120.0
        while True:
            if not selector.select(patience):
                yield None
                return
            block = os.read(process.stdout.fileno(), 1 << 16)
            if not block:
                return
            # Its start takes longer than an input may.
            patience = WALL_SECONDS
            *lines, buffer = (buffer + block).split(b"\n")
            yield from lines


if __name__ == "__main__":
    kind_name, root_name, seeds_name, *numbers = sys.argv[1:]
    work(kind_name, Path(root_name), Path(seeds_name), *map(int, numbers))
