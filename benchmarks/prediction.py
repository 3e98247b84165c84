"""Speed and memory of tagging, against named references in one run on one machine.

    make bench [CLIPS=FOLDER]

Compared with: the package musicnn 0.1.0 (installed without its pins, on the TensorFlow that is
here), ``import tensorflow``, and bare calls of decoder, front end and interpreter. Each figure is
the median of several processes or passes, after one that does not count. Prints a table, and writes
it into benchmarks/README.md with ``--write``.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
CLIP_SECONDS = 29.0
START, END = "<!-- prediction: start -->\n", "<!-- prediction: end -->\n"


def clips_in(folder: Path | None, work: Path, n_clips: int) -> list[Path]:
    """Clips of MagnaTagATune's format: those given, or synthesised ones."""
    from preprocess.clips.audio_files import find_audio_files

    if folder is None:
        from preprocess.clips.demo_corpus import write_demo_corpus

        folder = work / "clips"
        write_demo_corpus(folder, n_clips=-(-n_clips // 16) * 16, clip_seconds=CLIP_SECONDS, seed=0)
    return find_audio_files(folder)[:n_clips]


# Starts a process and notes its time and peak memory. A process inherits the peak of the one that
# it is forked from, so that one must be small: not this benchmark with TensorFlow in it.
LAUNCHER = """
import json, os, subprocess, sys, time
started = time.perf_counter()
child = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - started
child.returncode = os.waitstatus_to_exitcode(status)
with open(sys.argv[1], "w") as file:
    json.dump([seconds, usage.ru_maxrss / 1024, child.returncode], file)
"""


def process(command: list[str], *, cwd: Path, **environment: str) -> tuple[float, float, str]:
    """Seconds, peak megabytes and output of a whole process."""
    # Bytecode is compiled at installation; a setting that forbids it would measure the compiler.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    with tempfile.TemporaryDirectory() as temporary:
        noted = Path(temporary) / "noted.json"
        launch = [sys.executable, "-S", "-c", LAUNCHER, str(noted), *command]
        done = subprocess.run(
            launch, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
        )
        seconds, megabytes, code = json.loads(noted.read_text())
    text = done.stdout.decode("utf-8", "replace")
    if code != 0:
        raise SystemExit(f"{' '.join(command)}: exit {code}\n{text}")
    return seconds, megabytes, text


def median_process(
    command: list[str], n_runs: int, *, cwd: Path, **environment: str
) -> tuple[float, float]:
    """Median seconds and peak megabytes of a process, after one run that does not count."""
    process(command, cwd=cwd, **environment)
    runs = [process(command, cwd=cwd, **environment) for _ in range(n_runs)]
    return statistics.median(run[0] for run in runs), max(run[1] for run in runs)


def timed(function: Callable[[], object], n_runs: int) -> float:
    """Median seconds of a call, after one that does not count."""
    function()
    seconds = []
    for _ in range(n_runs):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


# Run in processes of their own.
ORIGINAL = """
import json, sys, time
from musicnn.tagger import top_tags
model, files = sys.argv[1], sys.argv[2:]
top_tags(files[0], model=model, topN=10, print_tags=False)
started = time.perf_counter()
for file in files:
    top_tags(file, model=model, topN=10, print_tags=False)
print("RESULT", json.dumps(time.perf_counter() - started))
"""
OURS = """
import json, sys, time
import tagger
model, files = sys.argv[1], sys.argv[2:]
loaded = tagger.Tagger.load(model)
list(loaded.predict_many(files[:4]))
seconds = []
for _ in range(3):
    started = time.perf_counter()
    assert len(list(loaded.predict_many(files))) == len(files)
    seconds.append(time.perf_counter() - started)
print("RESULT", json.dumps(sorted(seconds)[1]))
"""
BARE = """
import json, sys, time
import numpy as np
from pathlib import Path
from preprocess.signal.audio import load_audio
from tagger.tagging.tagger import Tagger
model, n_threads, files = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
loaded = Tagger.load(model)
front_end = loaded.front_end
run = loaded.model.make_scorer(["scores"], n_threads=n_threads)
parts = np.zeros(3)
for number, file in enumerate([files[0], *files]):
    a = time.perf_counter()
    waveform = load_audio(Path(file), target_rate=front_end.sample_rate)
    b = time.perf_counter()
    windows = front_end.windows(waveform)
    c = time.perf_counter()
    run(windows)
    d = time.perf_counter()
    if number:
        parts += [b - a, c - b, d - c]
print("RESULT", json.dumps(list(parts)))
"""


def result_of(
    script: str, *arguments: object, cwd: Path, **environment: str
) -> tuple[object, float]:
    """Give what a script prints as its result, and its peak megabytes."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    _, megabytes, text = process(command, cwd=cwd, **environment)
    line = next(line for line in text.splitlines() if line.startswith("RESULT"))
    return json.loads(line.removeprefix("RESULT")), megabytes


def vggish_bundle(folder: Path) -> Path:
    """VGGish of width 1 with 188 tags; random weights compute as fast as others."""
    from tagger.bundle.write import Source, parity_windows, write_bundle
    from tagger.config import load_config
    from tagger.network.model import build_model

    config = load_config(None, [])
    tags = tuple(f"tag {number}" for number in range(188))
    model = build_model(config, config.make_front_end(), tags)
    source = Source("vggish-188", config, tags)
    write_bundle(folder, model, source=source, windows=parity_windows(config.make_front_end()))
    return folder


def runtimes(bundles: dict[str, Path], n_runs: int) -> list[str]:
    """Milliseconds per window in the runtimes that bundles can be exported to, one thread each."""
    import numpy as np
    import onnxruntime

    from preprocess.signal.features import FRONT_ENDS
    from tagger.base.errors import ModelError
    from tagger.bundle.read import Bundle
    from tagger.bundle.runtime import Runtime
    from tagger.bundle.write import add_export, parity_windows

    rows = []
    for name, folder in bundles.items():
        spec = Bundle(folder).front_end
        entry = FRONT_ENDS.create(spec["name"], spec["params"])
        shapes = entry.input_shapes
        windows = {
            key: np.random.default_rng(0).random((8, *shape), dtype=np.float32)
            for key, shape in shapes.items()
        }
        figures = {}
        for format_, quantize in (("litert", "none"), ("litert", "dynamic"), ("onnx", "none")):
            label = f"{format_} {quantize}"
            try:
                export = add_export(
                    Bundle(folder),
                    format_=format_,
                    quantize=quantize,
                    windows=parity_windows(entry),
                )
            except ModelError:
                figures[label] = "over its parity limit"
                continue
            path = folder / export.file
            if format_ == "onnx":
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = 1
                session = onnxruntime.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
                feed = {item.name: windows[item.name] for item in session.get_inputs()}
                seconds = timed(lambda s=session, f=feed: s.run(None, f), n_runs)
            else:
                runtime = Runtime(path)
                seconds = timed(lambda r=runtime, w=windows: r(w), n_runs)
            figures[label] = f"{1000 * seconds / 8:.2f}"
        rows.append(f"| {name} | " + " | ".join(figures.values()) + " |")
    return [
        "| ms per window, 8 at a time, 1 thread | LiteRT float32 | LiteRT dynamic int8 | "
        "ONNX Runtime float32 |",
        "|---|---|---|---|",
        *rows,
    ]


def machine() -> str:
    """Processor, cores and versions."""
    from tagger.network.devices import find_device

    packages = ("ai-edge-litert", "tensorflow", "librosa", "numpy", "onnxruntime")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return f"{find_device().description}; Python {platform.python_version()}, {versions}"


def show_table(
    table: str, start: str, end: str, *, write: bool, page: Path = HERE / "README.md"
) -> None:
    """Print a table, and put it between two marks of a page, default benchmarks/README.md."""
    print(table)
    if not write:
        return
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    page.write_text(before + start + table + end + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, help="folder of clips; default synthesised ones")
    parser.add_argument("--n-clips", type=int, default=200)
    parser.add_argument("--n-original", type=int, default=12, help="clips for the slow reference")
    parser.add_argument("--n-runs", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    arguments = parser.parse_args()

    from tagger.bundle.models import pull
    from tagger.bundle.models.musicnn import cached_wheel

    n_runs = arguments.n_runs
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        files = clips_in(arguments.clips, work, arguments.n_clips)
        for name in ("musicnn-mtt", "vgg-mtt"):
            pull(name)
        with zipfile.ZipFile(cached_wheel()) as archive:
            archive.extractall(work / "original")
        original = {"PYTHONPATH": str(work / "original"), "TF_USE_LEGACY_KERAS": "1"}
        vggish = vggish_bundle(work / "vggish")
        clip, here = str(files[0]), {"cwd": work}
        command = [sys.executable, "-m", "tagger"]

        print("cold processes", file=sys.stderr)
        python = [sys.executable, "-c"]
        theirs = [sys.executable, "-m", "musicnn.tagger", clip, "--print"]
        cold = {
            "tagger predict-tags": median_process(
                [*command, "predict-tags", "--model", "musicnn-mtt", clip], n_runs, **here
            ),
            "tagger embed": median_process(
                [*command, "embed", "--model", "musicnn-mtt", clip, "-o", "e.npz"], n_runs, **here
            ),
            "tagger --help": median_process([*command, "--help"], n_runs, **here),
            "import tagger": median_process(
                [sys.executable, "-c", "import tagger"], n_runs, **here
            ),
            "python -c pass": median_process([*python, "pass"], n_runs, **here),
            "import tensorflow": median_process([*python, "import tensorflow"], n_runs, **here),
            "python -m musicnn.tagger": median_process(theirs, n_runs, **here, **original),
        }
        ours = cold["tagger predict-tags"][0]
        lines = [
            f"{machine()}.",
            "",
            f"Cold: a whole process, one {CLIP_SECONDS:.0f} s mp3 (16 kHz, mono), musicnn-mtt.",
            "",
            "| command | seconds | of predict-tags | peak MB |",
            "|---|---|---|---|",
        ]
        for name, (seconds, megabytes) in cold.items():
            lines.append(f"| `{name}` | {seconds:.3f} | {seconds / ours:.2f} | {megabytes:.0f} |")

        print("warm folders", file=sys.stderr)
        lines += [
            "",
            f"Warm: models loaded, {len(files)} such clips, {cores} cores; the original package on "
            f"{arguments.n_original} of them.",
            "",
            "| network | what | clips per second | ratio | peak MB |",
            "|---|---|---|---|---|",
        ]
        for name, folder in (("musicnn-mtt", "MTT_musicnn"), ("vgg-mtt", "MTT_vgg")):
            few = files[: arguments.n_original]
            slow, slow_mb = result_of(ORIGINAL, folder, *few, **here, **original)
            fast, fast_mb = result_of(OURS, name, *files, **here)
            reference = len(few) / slow
            speed = len(files) / fast
            lines += [
                f"| {name} | original package | {reference:.2f} | 1 | {slow_mb:.0f} |",
                f"| | tagger | {speed:.2f} | {speed / reference:.1f} | {fast_mb:.0f} |",
            ]
        fast, fast_mb = result_of(OURS, vggish, *files, **here)
        speed = len(files) / fast
        for n_threads in (cores, 1):
            parts, _ = result_of(BARE, vggish, n_threads, *files[:32], **here)
            total = sum(parts)
            label = " + ".join(f"{1000 * part / 32:.1f}" for part in parts)
            reference = 32 / total * (cores if n_threads == 1 else 1)
            what = (
                f"decode + front end + bare invoke on {n_threads} threads, one after the other"
                if n_threads > 1
                else f"the same on one thread, times {cores} cores"
            )
            lines.append(
                f"| VGGish, width 1 | {what} ({label} ms) | {reference:.2f} | "
                f"{reference / speed:.2f} | |"
            )
        lines.append(f"| | tagger | {speed:.2f} | 1 | {fast_mb:.0f} |")

        print("runtimes", file=sys.stderr)
        bundles = {"VGGish, width 1": vggish}
        for name in ("musicnn-mtt", "vgg-mtt"):
            shutil.copytree(pull(name).root, work / name)
            bundles[name] = work / name
        lines += ["", *runtimes(bundles, n_runs)]
    table = "\n".join(lines) + "\n"
    show_table(table, START, END, write=arguments.write)


if __name__ == "__main__":
    main()
