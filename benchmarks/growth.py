"""How seconds and memory grow with the number of clips, up to a hundred times.

    python benchmarks/growth.py [--clips FOLDER] [--write]

Data sets of 1, 10 and 100 times some clips are made of hard links, under ids and paths of their
own, and taken along the way: each step in a process of its own. Clips are short, so that what a
clip costs besides its audio is seen: that is where a program may hold all of them at once. Seconds
of a step that is no command are without imports; of a command, what it takes for 16 clips is taken
off before seconds per clip are compared.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from prediction import machine, process, show_table

START, END = "<!-- growth: start -->\n", "<!-- growth: end -->\n"
ANNOTATIONS = "annotations_final.csv"
N_TAGS = 188
START_UP_CLIPS = 16

# What each step runs. `peak` is of the process alone, which getrusage does not tell: a process
# inherits the peak of the one that started it.
COMMON = """
import json, sys, threading, time
from pathlib import Path

def peak(process="self"):
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

def tell(seconds, **more):
    print("RESULT", json.dumps({"seconds": seconds, "megabytes": peak(), **more}))

root, store = Path(sys.argv[1]), sys.argv[2]
"""
PREPROCESS = """
peaks = {}

def watch():
    while True:
        for task in Path("/proc/self/task").iterdir():
            try:
                for child in (task / "children").read_text().split():
                    # Of a child that has not begun its own program it is this process' peak.
                    peaks[child] = peak(child)
            except (OSError, IndexError):
                continue
        time.sleep(0.1)

threading.Thread(target=watch, daemon=True).start()
from tagger.cli.main import main
sys.argv[1:] = ["preprocess", "--set", f"data.root={root}", "--set", f"store.root={store}"]
started = time.perf_counter()
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
tell(time.perf_counter() - started, worker=max(peaks.values(), default=0.0))
"""
INDEX = """
from preprocess.clips.datasets import DATASETS
import pandas
dataset = DATASETS.create("magnatagatune", {})
started = time.perf_counter()
index = dataset.index(root)
tell(time.perf_counter() - started)
"""
OPEN = """
import tagger.train.data
from tagger.config import load_config
config = load_config(None, [f"store.root={store}", "data.tags=50"])
started = time.perf_counter()
data = tagger.train.data.prepare_data(config)
opened = time.perf_counter() - started
"""
STORE = f"{OPEN}tell(opened)\n"
STREAM = f"""{OPEN}
from tagger.config import StreamConfig
from tagger.train.stream import TrainingStream
import pescador
settings = StreamConfig.model_validate(json.loads(sys.argv[3]))
rows = data.rows("train")
started = time.perf_counter()
labels = data.labels[rows]
stream = TrainingStream(data.store, rows, labels=labels, config=settings, seed=0)
next(stream.batches())
tell(time.perf_counter() - started)
"""
EVALUATE = """
from tagger.evaluate.evaluate import evaluate_scores
import tagger.metrics.figures, tagger.metrics.score_files, tagger.metrics.columns
started = time.perf_counter()
evaluate_scores(root)
tell(time.perf_counter() - started)
"""
SHARD = {"shard": True, "mix_batches": 16}
STEPS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "`tagger preprocess`": (PREPROCESS, None),
    "`tagger preprocess`, all done": (PREPROCESS, None),
    "read the annotations": (INDEX, None),
    "open the store, split, tags": (STORE, None),
    "first batch, from pickles": (STREAM, {}),
    "build the shard, first batch": (STREAM, SHARD),
    "first batch, from the shard": (STREAM, SHARD),
}
ONCE = ("`tagger preprocess`", "build the shard, first batch")
EVALUATION = "`tagger evaluate scores.npz`"


def run(script: str, *arguments: object, cwd: Path) -> dict[str, float]:
    """Give seconds and megabytes that a step tells of itself."""
    command = [sys.executable, "-c", COMMON + script, *map(str, arguments)]
    _, _, text = process(command, cwd=cwd)
    line = next(line for line in text.splitlines() if line.startswith("RESULT"))
    result: dict[str, float] = json.loads(line.removeprefix("RESULT"))
    return result


def repeat(source: Path, root: Path, n_clips: int) -> Path:
    """Make a data set of `n_clips` out of the clips of another, by hard links.

    The annotations' rows come again and again under new ids; a path is new by its track's name.
    """
    with (source / ANNOTATIONS).open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    at_id, at_path = header.index("clip_id"), header.index("mp3_path")
    # One of each folder after the other, so that few clips are enough for every part of the split.
    n_before: Counter[str] = Counter()
    place = {}
    for row in rows:
        folder = row[at_path].split("/")[0]
        place[row[at_path]] = (n_before[folder], folder)
        n_before[folder] += 1
    rows.sort(key=lambda row: place[row[at_path]])
    root.mkdir(parents=True)
    with (root / ANNOTATIONS).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL)
        # Padded with tags that no clip carries, to the width of MagnaTagATune.
        spare = [f"tag {number}" for number in range(N_TAGS - len(header) + 2)]
        table.writerow([*header[:-1], *spare, header[-1]])
        for number in range(n_clips):
            row = list(rows[number % len(rows)])
            folder, name = row[at_path].split("/")
            path = f"{folder}/copy_{number // len(rows):03d}_of_{name}"
            (root / folder).mkdir(exist_ok=True)
            os.link(source / row[at_path], root / path)
            row[at_id], row[at_path] = str(1_000_000 + number), path
            table.writerow([*row[:-1], *("0" for _ in spare), row[-1]])
    return root


def scores_of(path: Path, n_clips: int) -> Path:
    """Random labels and scores of 188 tags."""
    rng = np.random.default_rng(0)
    labels = np.empty((n_clips, N_TAGS), dtype=np.uint8)
    scores = np.empty((n_clips, N_TAGS), dtype=np.float32)
    for start in range(0, n_clips, 10_000):
        part = slice(start, start + 10_000)
        scores[part] = rng.random(scores[part].shape, dtype=np.float32)
        labels[part] = rng.random(labels[part].shape, dtype=np.float32) < 0.05
    np.savez(path, gt=labels, est=scores, tags=[f"tag {number}" for number in range(N_TAGS)])
    return path


def measure(source: Path, work: Path, n_clips: int, n_runs: int) -> dict[str, dict[str, float]]:
    """Medians of the seconds, and peaks, of each step with `n_clips` clips."""
    root = repeat(source, work / "data", n_clips)
    store = work / "store"
    figures: dict[str, dict[str, float]] = {}

    def note(name: str, results: list[dict[str, float]]) -> None:
        figures[name] = {key: max(result[key] for result in results) for key in results[0]}
        figures[name]["seconds"] = statistics.median(result["seconds"] for result in results)
        print(n_clips, name, figures[name], file=sys.stderr)

    for name, (script, settings) in STEPS.items():
        arguments = [] if settings is None else [json.dumps(settings)]
        results = []
        for _ in range(n_runs):
            # These do their work once only.
            if name in ONCE:
                shutil.rmtree(store / "shard" if settings else store, ignore_errors=True)
            results.append(run(script, root, store, *arguments, cwd=work))
        note(name, results)
    scores = scores_of(work / "scores.npz", n_clips)
    note(EVALUATION, [run(EVALUATE, scores, "", cwd=work) for _ in range(n_runs)])
    shutil.rmtree(root)
    shutil.rmtree(store)
    scores.unlink()
    return figures


def table_of(figures: dict[int, dict[str, dict[str, float]]], smallest: int) -> list[str]:
    """Rows of seconds, seconds per clip relative to `smallest`, and megabytes."""
    sizes = [n_clips for n_clips in figures if n_clips >= smallest]
    start_up = figures[START_UP_CLIPS]

    def per_clip(name: str, n_clips: int) -> float:
        extra = figures[n_clips][name]["seconds"] - start_up[name]["seconds"]
        return extra / (n_clips - START_UP_CLIPS)

    titles = ["seconds", "seconds per clip", "peak MB"]
    columns = [f"{title}, {n_clips:,} clips" for title in titles for n_clips in sizes]
    lines = ["| step | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for name in figures[smallest]:
        seconds = [f"{figures[n_clips][name]['seconds']:.2f}" for n_clips in sizes]
        base = per_clip(name, smallest)
        # What the smallest number of clips takes may be too little to compare with.
        shares = [
            f"{per_clip(name, n_clips) / base:.2f}" if base > 2e-6 else "" for n_clips in sizes
        ]
        peaks = [f"{figures[n_clips][name]['megabytes']:.0f}" for n_clips in sizes]
        lines.append(f"| {name} | " + " | ".join([*seconds, *shares, *peaks]) + " |")
        if "worker" in figures[smallest][name] and name in ONCE:
            peaks = [f"{figures[n_clips][name]['worker']:.0f}" for n_clips in sizes]
            empty = [""] * (2 * len(sizes))
            lines.append("| its largest worker | " + " | ".join([*empty, *peaks]) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, help="data set in MagnaTagATune's layout")
    parser.add_argument("--n-clips", type=int, default=640, help="of the smallest data set")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--clip-seconds", type=float, default=1.0, help="of synthesised clips")
    parser.add_argument("--n-runs", type=int, default=3, help="of all but the largest data set")
    parser.add_argument("--million", action="store_true", help="also evaluate 1,000,000 clips")
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
        work = Path(temporary)
        source = arguments.clips
        if source is None:
            from preprocess.clips.demo_corpus import write_demo_corpus

            n_clips = -(-arguments.n_clips // 16) * 16
            source = work / "clips"
            write_demo_corpus(source, n_clips=n_clips, clip_seconds=arguments.clip_seconds, seed=0)
        times = sorted(arguments.times)
        sizes = [START_UP_CLIPS, *(arguments.n_clips * factor for factor in times)]
        figures = {
            n_clips: measure(source, work, n_clips, 1 if n_clips == sizes[-1] else arguments.n_runs)
            for n_clips in sizes
        }
        lines = [f"{machine()}.", ""]
        length = "" if arguments.clips else f" of {arguments.clip_seconds:g} s"
        lines += [f"Clips{length}, {N_TAGS} tag columns.", "", *table_of(figures, sizes[1])]
        if arguments.million:
            scores = scores_of(work / "scores.npz", 1_000_000)
            result = run(EVALUATE, scores, "", cwd=work)
            lines += [
                "",
                f"{EVALUATION} of 1,000,000 clips: {result['seconds']:.1f} s, "
                f"{result['megabytes']:.0f} MB.",
            ]
    table = "\n".join(lines) + "\n"
    show_table(table, START, END, write=arguments.write)


if __name__ == "__main__":
    main()
