"""The service under load, against `tagger predict-tags` on the same clips, and against Flask.

    python benchmarks/serve.py --clips FOLDER [--count 200] [--clients 32] [--requests 0] [--write]

Flask is the service that the musicnn report describes: the model is called for each request, with
one thread per processor. All get the same files over loopback, or from the disk.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from prediction import machine, show_table

from tagger.base.cache import cache_folder

START, END = "<!-- serve: start -->\n", "<!-- serve: end -->"
FLASK = """
import sys, tempfile, threading
from flask import Flask, request
from tagger.tagging.tagger import Tagger
app, tagger = Flask(__name__), Tagger.load("musicnn-mtt", jobs=1)
@app.post("/")
def tag():
    with tempfile.NamedTemporaryFile(suffix=".mp3") as file:
        file.write(request.get_data()); file.flush()
        said = tagger.predict(file.name)
    return {"duration": said.seconds, "message": said.top(1)[0]["label"], "status": "success"}
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, app, threaded=True)
print(f"page and service: http://127.0.0.1:{server.port}/", file=sys.stderr, flush=True)
server.serve_forever()
"""


class Served:
    """A service in a process of its own."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        while True:
            line = self.process.stderr.readline()
            found = re.search(r"http://[\w.:]+", line)
            if found and "page and service" in line:
                break
        self.address = found[0]
        # Its log is read, or it would wait for room.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def ask(self, paths: list[bytes], clients: int, route: str) -> tuple[float, list[float]]:
        """Seconds of all requests, and of each."""
        seconds: list[float] = []
        limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
        with httpx.Client(limits=limits, timeout=120) as client:

            def one(content: bytes) -> None:
                while True:
                    begun = time.perf_counter()
                    answer = client.post(self.address + route, content=content)
                    if answer.status_code != 503:
                        break
                    time.sleep(0.05)
                assert answer.status_code == 200, answer.text
                seconds.append(time.perf_counter() - begun)

            begun = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                list(pool.map(one, paths))
            return time.perf_counter() - begun, seconds

    def megabytes(self) -> float:
        """Memory that it holds."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024

    def opened(self) -> tuple[int, int]:
        """Descriptors and threads."""
        root = Path(f"/proc/{self.process.pid}")
        return len(list((root / "fd").iterdir())), len(list((root / "task").iterdir()))

    def end(self) -> None:
        """End it, and wait for that."""
        self.process.terminate()
        self.process.wait(60)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=0, help="for memory; 0: not asked")
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    arguments = parser.parse_args()
    paths = sorted(arguments.clips.rglob("*.mp3"))[: arguments.count]
    contents = [path.read_bytes() for path in paths]
    names = "\n".join(map(str, paths))

    def of_folder() -> float:
        words = [sys.executable, "-m", "tagger", "predict-tags", "--files-from", "-"]
        # What a model has said of a file is kept there: each run begins without.
        with tempfile.TemporaryDirectory() as fresh, Path(os.devnull).open("w") as nowhere:
            kept = shutil.ignore_patterns("kept*")
            shutil.copytree(cache_folder(), fresh, dirs_exist_ok=True, ignore=kept)
            begun = time.perf_counter()
            subprocess.run(
                words,
                input=names,
                text=True,
                stdout=nowhere,
                stderr=nowhere,
                check=True,
                env={**os.environ, "TAGGER_CACHE": fresh},
            )
            return time.perf_counter() - begun

    ours = Served(sys.executable, "-m", "tagger", "serve", "--port", "0")
    flask = Served(sys.executable, "-c", FLASK)
    times: dict[str, list[float]] = {"folder": [], "ours": [], "flask": []}
    for _ in range(3):
        times["folder"].append(of_folder())
        times["ours"].append(ours.ask(contents, arguments.clients, "/v1/tags")[0])
        times["flask"].append(flask.ask(contents, arguments.clients, "/")[0])
    lone = ours.ask(contents[:40], 1, "/v1/tags")[1]
    pair = ours.ask(contents[:80], 2, "/v1/tags")[1]
    medians = {name: statistics.median(found) for name, found in times.items()}
    count = len(contents)
    lines = [
        f"{machine()}. {count} clips of 29 s, {arguments.clients} clients, musicnn-mtt.",
        "",
        "| what | clips per second | of `predict-tags` |",
        "|---|---|---|",
        f"| `tagger predict-tags`, the whole process | {count / medians['folder']:.1f} | 1 |",
        f"| `tagger serve` | {count / medians['ours']:.1f} "
        f"| {medians['folder'] / medians['ours']:.2f} |",
        f"| Flask, the model called per request | {count / medians['flask']:.1f} "
        f"| {medians['folder'] / medians['flask']:.2f} |",
        "",
        f"A lone request takes {1000 * statistics.mean(lone):.0f} ms in the mean; with two clients "
        f"95 of 100 take at most {1000 * percentile(pair, 0.95):.0f} ms, "
        f"{percentile(pair, 0.95) / statistics.mean(lone):.2f} times that.",
    ]
    if arguments.requests:
        some = contents[:50]
        ours.ask(some * 4, arguments.clients, "/v1/tags")
        before, opened = ours.megabytes(), ours.opened()
        ours.ask([some[n % 50] for n in range(arguments.requests)], arguments.clients, "/v1/tags")
        lines += [
            "",
            f"Memory before and after {arguments.requests} more requests: {before:.0f} and "
            f"{ours.megabytes():.0f} MB; descriptors and threads {opened} and {ours.opened()}.",
        ]
    ours.end()
    flask.end()
    show_table("\n".join(lines) + "\n", START, END, write=arguments.write)


if __name__ == "__main__":
    main()
