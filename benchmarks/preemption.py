"""Seconds from the signal of a preemption until what was learned is safe, at the full width.

    python benchmarks/preemption.py [--write]

`tagger train` on a few synthesised clips is sent SIGTERM in the middle of an epoch, which is what
`shutdown.sh` does on a VM that is taken away: of the report's network and of the recipe for
MagnaTagATune, with the run on a disk and in a bucket. The bucket is a server on this machine, so
that what is seen is the work of both sides; a VM adds the time that its network needs for so many
bytes. References are the step that is under way and a bare copy of the state's bytes, to the disk
with fsync and with the client library alone to the same server.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from prediction import machine, show_table

START, END = "<!-- preemption: start -->\n", "<!-- preemption: end -->\n"
ROOT = Path(__file__).parents[1]
STATE = "checkpoints/[0-9]*"
CONFIGS = ("magnatagatune_vggish/vggish.yaml", "magnatagatune.yaml")
# A bucket on loopback, in a process of its own.
SERVER = """
import sys
sys.path.insert(0, sys.argv[1])
from cloud_server import running

class Environment:
    def setenv(self, name, value):
        print(value, flush=True)
    def delenv(self, name, raising=False):
        pass

with running(Environment()):
    sys.stdin.read()
"""


def tagger(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a command line with a log for machines."""
    return subprocess.Popen(
        [sys.executable, "-m", "tagger", *arguments, "--log-format", "json"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@dataclass(frozen=True)
class Measured:
    """Seconds of one training, and the size of its state."""

    step: float
    saved: float
    ended: float
    state_bytes: int


def preempt(config: str, folder: Path, run: str, **environment: str) -> Measured:
    """Train into the middle of an epoch, send the signal, and watch."""
    settings = [f"store.root={folder}/store", f"run.root={run}", "stream.steps_per_epoch=100000"]
    settings += ["train.checkpoint_minutes=1000", "stream.shard=false", "data.split=random"]
    process = tagger(
        *("train", "--config", f"configs/{config}"),
        *(word for setting in settings for word in ("--set", setting)),
        **environment,
    )
    assert process.stderr is not None
    began, step = time.monotonic(), 0.0
    for line in process.stderr:
        event = json.loads(line) if line.startswith("{") else {}
        if "steps per epoch" in event.get("message", ""):
            began = time.monotonic()
        # Said every 30 seconds; the first step is traced and does not count.
        if event.get("task", "").startswith("epoch") and event["done"] > 2:
            step = (time.monotonic() - began) / event["done"]
            break
    if not step:
        raise SystemExit(f"{config}: training has ended with {process.wait()}")
    threading.Thread(target=process.stderr.read, daemon=True).start()
    started, saved = time.monotonic(), 0.0
    process.send_signal(signal.SIGTERM)
    cache = Path(environment["TAGGER_CACHE"])
    while process.poll() is None:
        states = [*Path(run).glob(STATE), *cache.glob(f"runs/*/{STATE}")]
        if states and not saved:
            saved = time.monotonic() - started
        time.sleep(0.01)
    assert process.returncode == 130, process.returncode
    ended = time.monotonic() - started
    size = sum(file.stat().st_size for file in states[0].iterdir())
    return Measured(step, saved, ended, size)


def bare_copy(path: Path, n_bytes: int) -> float:
    """Seconds that so many bytes take to the disk alone."""
    content = os.urandom(1 << 20)
    started = time.monotonic()
    with path.open("wb") as file:
        for _ in range(n_bytes >> 20):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return time.monotonic() - started


BARE_UPLOAD = """
import sys, time
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
bucket = storage.Client(project="p", credentials=AnonymousCredentials()).bucket("bucket")
started = time.monotonic()
bucket.blob("bare").upload_from_filename(sys.argv[1], checksum="crc32c")
print(time.monotonic() - started)
"""


def bare_upload(path: Path, **environment: str) -> float:
    """Seconds that a file takes to the bucket with the client library alone."""
    done = subprocess.run(
        [sys.executable, "-c", BARE_UPLOAD, str(path)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def measure(config: str, folder: Path) -> str:
    """Rows of a config: to a disk, and to a bucket."""
    corpus = ["--set", f"data.root={folder}/corpus", "--set", f"store.root={folder}/store"]
    shutil.rmtree(folder / "store", ignore_errors=True)
    preprocess = tagger("preprocess", "--config", f"configs/{config}", *corpus)
    if preprocess.wait():
        raise SystemExit(f"preprocess has ended with {preprocess.returncode}")
    cache = str(folder / "cache")
    rows = ""
    for place in ("disk", "bucket"):
        shutil.rmtree(cache, ignore_errors=True)
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(ROOT / "tests")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None and server.stdin is not None
        environment = {
            "STORAGE_EMULATOR_HOST": server.stdout.readline().strip(),
            "TAGGER_CACHE": cache,
        }
        run = f"{folder}/run" if place == "disk" else "gs://bucket/run"
        found = preempt(config, folder, run, **environment)
        bare = bare_copy(folder / "bare", found.state_bytes)
        if place == "bucket":
            bare = bare_upload(folder / "bare", **environment)
        server.stdin.close()
        server.wait()
        shutil.rmtree(folder / "run", ignore_errors=True)
        rows += (
            f"| {config} | {place} | {found.state_bytes / 1e6:.0f} | {found.step:.2f} | "
            f"{found.saved:.1f} | {found.ended:.1f} | {bare:.1f} |\n"
        )
        print(rows.splitlines()[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if tagger("demo-corpus", f"{folder}/corpus", "--n-clips", "64").wait():
            raise SystemExit("the corpus cannot be made")
        rows = "".join(measure(config, folder) for config in CONFIGS)
    table = (
        f"{machine()}.\n\n"
        "| config | run in a | MB of state | seconds per step | signal to state on the disk | "
        "signal to end | bare copy of the bytes |\n|---|---|---|---|---|---|---|\n" + rows
    )
    show_table(table, START, END, write=arguments.write)


if __name__ == "__main__":
    main()
