"""Clips per second from audio files to a store of patches, against what cannot be left out.

    python benchmarks/slice.py [--clips FOLDER] [--write]

`tagger preprocess` as a whole process, start-up and all, is compared with the same pool of workers
that only decode, transform (a float32 FFT of VGGish's frames) and write as many bytes. Then one
clip's way on one core, stage by stage: as VGGish's published front end goes it, in float64 with a
pickle of float32 values, and as ours goes it. Last 44.1 kHz stereo, where the published way
resamples with resampy (left out where that is not installed: ``pip install resampy``).
"""

import argparse
import hashlib
import itertools
import json
import os
import pickle
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parent))
from prediction import CLIP_SECONDS, clips_in, machine, process, show_table

from preprocess.clips.index import ClipRecord
from preprocess.engines.run import ClipTask, Job, process_clip
from preprocess.engines.workers import default_workers, worker_environment
from preprocess.signal.audio import load_audio
from preprocess.signal.features import FRONT_ENDS
from preprocess.signal.features._frames import complex_spectra, frame_chunks, periodic_hann
from preprocess.signal.features.vggish import mel_matrix
from preprocess.store.store import StoreSpec
from tagger.base.files import content_hash, write_bytes
from tagger.untrusted.pickles import dumps

START, END = "<!-- slice: start -->\n", "<!-- slice: end -->\n"
RATE, FRAME, HOP, N_FFT, PATCH = 16000, 400, 160, 512, 96


def frames_of(samples: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]


def bare(job: tuple[str, str]) -> int:
    """Decode, transform and write: nothing else of a clip's way."""
    source, target = job
    samples, _ = soundfile.read(source, dtype="float32")
    spectra = np.fft.rfft(frames_of(samples), N_FFT)
    n_bytes = len(spectra) // PATCH * PATCH * 64 * 2
    Path(target).write_bytes(memoryview(spectra).cast("B")[:n_bytes])
    return len(spectra)


# Run in a process of its own, with the same start as the command.
BARE = """
import json, sys
from preprocess.engines.workers import map_in_processes
from slice import bare
if __name__ == "__main__":
    jobs, n_workers = json.loads(open(sys.argv[1]).read()), int(sys.argv[2])
    assert len(list(map_in_processes(bare, [tuple(job) for job in jobs], n_workers=n_workers)))
"""


def mel_of() -> np.ndarray:
    return mel_matrix(n_bands=64, n_bins=257, sample_rate=RATE, min_hz=125.0, max_hz=7500.0)


def published_log_mel(samples: np.ndarray) -> np.ndarray:
    """VGGish's front end as it was published: all of it in float64."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi / FRAME * np.arange(FRAME))
    spectra = np.abs(np.fft.rfft(frames_of(samples.astype(np.float64)) * window, N_FFT))
    return np.log(spectra @ mel_of() + 0.01)


def patches_of(log_mel: np.ndarray) -> np.ndarray:
    n_patches = len(log_mel) // PATCH
    return log_mel[: n_patches * PATCH].reshape(n_patches, PATCH, 64)


def median_ms(call: Callable[[Path], object], files: list[Path]) -> float:
    """Median milliseconds over files, after a first pass over some that does not count."""
    for file in files[:5]:
        call(file)
    taken = []
    for file in files:
        started = time.perf_counter()
        call(file)
        taken.append(time.perf_counter() - started)
    return 1e3 * statistics.median(taken)


def stages(files: list[Path], work: Path) -> list[tuple[str, float | None, float | None]]:
    """Milliseconds of each stage on one core: published way, our way."""
    front_end = FRONT_ENDS.create("vggish", {})
    waveforms = {file: load_audio(file, target_rate=RATE) for file in files}
    hann = periodic_hann(FRAME)

    def spectra(file: Path) -> None:
        chunks = frame_chunks([waveforms[file]], frame_samples=FRAME, hop_samples=HOP)
        for _ in complex_spectra(chunks, hann, n_fft=N_FFT):
            pass

    def published_spectra(file: Path) -> np.ndarray:
        return np.abs(np.fft.rfft(frames_of(waveforms[file].astype(np.float64)) * hann, N_FFT))

    patches = {file: front_end.windows(waveforms[file])["log_mel"] for file in files}
    halves = {file: values.astype(np.float16) for file, values in patches.items()}
    label = np.zeros(188, dtype=np.uint8)

    def content(file: Path) -> bytes:
        return dumps({"id": "1", "label": label, "windows": {"log_mel": halves[file]}})

    def published_content(file: Path) -> bytes:
        return pickle.dumps({"id": "1", "label": label, "patches": patches[file]})

    contents = {file: content(file) for file in files}
    record = ClipRecord("1", "1.mp3")
    job = Job(work, work / "store", StoreSpec.of(front_end, "float16"), ("tag",) * 188)

    numbers = itertools.count()

    def whole(file: Path) -> None:
        # A new name each time: replacing a file takes longer than making one.
        clip = ClipRecord(f"{next(numbers)}", str(file.relative_to(work / "linked")))
        task = ClipTask(clip, label)
        outcome = process_clip(task, Job(work / "linked", job.store_root, job.spec, job.tags))
        assert not isinstance(outcome, str), outcome

    def published(file: Path) -> None:
        samples, _ = soundfile.read(file, dtype="float64")
        values = patches_of(published_log_mel(samples)).astype(np.float32)
        with (work / "published.pickle").open("wb") as target:
            pickle.dump({"id": record.id, "label": label, "patches": values}, target)

    decode = median_ms(lambda file: load_audio(file, target_rate=RATE), files)
    decode_published = median_ms(lambda file: soundfile.read(file, dtype="float64"), files)
    transform = median_ms(spectra, files)
    transform_published = median_ms(published_spectra, files)
    log_mel = median_ms(lambda file: front_end.windows(waveforms[file]), files)
    log_mel_published = median_ms(lambda file: published_log_mel(waveforms[file]), files)
    return [
        ("decode", decode_published, decode),
        ("window and FFT", transform_published, transform),
        ("mel, logarithm, patches", log_mel_published - transform_published, log_mel - transform),
        ("to float16", None, median_ms(lambda file: patches[file].astype(np.float16), files)),
        ("pickle", median_ms(published_content, files), median_ms(content, files)),
        ("checksum", None, median_ms(lambda file: content_hash(contents[file]), files)),
        (
            "write (without fsync)",
            median_ms(lambda file: (work / "w").write_bytes(published_content(file)), files)
            - median_ms(published_content, files),
            median_ms(lambda file: write_bytes(work / "w", contents[file], durable=False), files),
        ),
        ("a whole clip", median_ms(published, files), median_ms(whole, files)),
    ]


def agreement(files: list[Path]) -> float:
    """Largest difference of our log-mel from the published front end's."""
    front_end = FRONT_ENDS.create("vggish", {})
    found = 0.0
    for file in files:
        samples = load_audio(file, target_rate=RATE)
        expected = patches_of(published_log_mel(samples))
        found = max(found, float(np.abs(front_end.windows(samples)["log_mel"] - expected).max()))
    return found


def stereo(work: Path, n_clips: int) -> list[Path]:
    """Clips of 44.1 kHz stereo mp3, of filtered noise that changes over time."""
    rng = np.random.default_rng(0)
    files = []
    n_samples = round(44100 * CLIP_SECONDS)
    (work / "stereo").mkdir()
    for number in range(n_clips):
        noise = np.cumsum(rng.normal(size=(n_samples, 2)), axis=0)
        noise -= np.roll(noise, 37, axis=0)
        swell = 0.2 + np.abs(np.sin(np.arange(n_samples) / 44100 * (1 + number % 5)))[:, None]
        files.append(work / "stereo" / f"{number}.mp3")
        soundfile.write(files[-1], 0.5 * noise * swell / np.abs(noise).max(), 44100)
    return files


def from_stereo(files: list[Path]) -> tuple[float | None, float]:
    """Milliseconds of a clip on one core: published way, our way; without writing."""
    front_end = FRONT_ENDS.create("vggish", {})

    def ours(file: Path) -> None:
        front_end.windows(load_audio(file, target_rate=RATE))

    if find_spec("resampy") is None:
        return None, median_ms(ours, files)
    import resampy

    def published(file: Path) -> None:
        samples, rate = soundfile.read(file, dtype="float64")
        published_log_mel(resampy.resample(samples.mean(axis=1), rate, RATE))

    return median_ms(published, files), median_ms(ours, files)


def linked(clips: list[Path], work: Path) -> list[Path]:
    """Lay clips out as MagnaTagATune does, with annotations, as hard links or copies."""
    files = []
    for number, clip in enumerate(clips):
        file = work / "linked" / f"{number % 16:x}" / f"{number}{clip.suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(clip, file)
        except OSError:
            shutil.copyfile(clip, file)
        files.append(file)
    header = ["clip_id", *(f"tag {number}" for number in range(188)), "mp3_path"]
    rng = np.random.default_rng(0)
    rows = [header] + [
        [
            str(number),
            *(rng.random(188) < 0.03).astype(int).astype(str),
            file.relative_to(work / "linked").as_posix(),
        ]
        for number, file in enumerate(files)
    ]
    text = "".join("\t".join(row) + "\n" for row in rows)
    (work / "linked" / "annotations_final.csv").write_text(text, encoding="utf-8")
    return files


def on_one_core(work: Path, n_stereo: int) -> tuple[object, ...]:
    """Stages, agreement and stereo, for the first of the linked clips."""
    files = sorted((work / "linked").glob("*/*"))[:100]
    return stages(files, work), agreement(files), from_stereo(stereo(work, n_stereo))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, help="folder of clips; default synthesised ones")
    parser.add_argument("--n-clips", type=int, default=640)
    parser.add_argument("--n-runs", type=int, default=3, help="of whole processes")
    parser.add_argument("--n-stereo", type=int, default=24)
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    parser.add_argument("--stages", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stages is not None:
        print("RESULT", json.dumps(on_one_core(arguments.stages, arguments.n_stereo)))
        return

    n_workers = default_workers()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        files = linked(clips_in(arguments.clips, work, arguments.n_clips), work)
        jobs = [[str(file), str(work / "bare" / f"{n}")] for n, file in enumerate(files)]
        (work / "jobs.json").write_text(json.dumps(jobs))
        (work / "bare.py").write_text(BARE)
        (work / "bare").mkdir()
        here = str(Path(__file__).parent.resolve())
        command = [
            *(sys.executable, "-m", "tagger", "preprocess"),
            *("--set", f"data.root={work / 'linked'}", "--set", f"store.root={work / 'store'}"),
        ]
        bare_command = [sys.executable, "bare.py", "jobs.json", str(n_workers)]
        ours, reference, peak = [], [], 0.0
        # One after the other, so that a slow minute of the machine is one of both.
        for _ in range(arguments.n_runs + 1):
            shutil.rmtree(work / "store", ignore_errors=True)
            seconds, megabytes, _ = process(command, cwd=work)
            ours.append(seconds)
            peak = max(peak, megabytes)
            path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
            reference.append(process(bare_command, cwd=work, PYTHONPATH=path)[0])
        seconds = statistics.median(ours[1:])
        bare_seconds = statistics.median(reference[1:])
        digest = hashlib.sha256((work / "store" / "manifest.json").read_bytes()).hexdigest()[:12]

        # In a process with the environment of a worker.
        with worker_environment():
            text = process(
                [
                    *(sys.executable, str(Path(__file__).resolve())),
                    *("--stages", str(work), "--n-stereo", str(arguments.n_stereo)),
                ],
                cwd=work,
            )[2]
        rows, largest, (published, own) = json.loads(text.rpartition("RESULT ")[2])

    n_clips = len(files)
    lines = [
        f"{machine()}.",
        "",
        f"{n_clips} clips of 29 s (16 kHz, mono, mp3), {n_workers} workers, whole processes, "
        f"median of {arguments.n_runs}; peak of the main process {peak:.0f} MB "
        f"(store {digest}).",
        "",
        "| what | seconds | clips per second | ratio |",
        "|---|---|---|---|",
        f"| decode, float32 FFT, write | {bare_seconds:.2f} | {n_clips / bare_seconds:.0f} | 1 |",
        f"| `tagger preprocess` | {seconds:.2f} | {n_clips / seconds:.0f} "
        f"| {seconds / bare_seconds:.2f} |",
        "",
        f"Largest difference from the published front end, 100 clips: {largest:.1e}.",
        "",
        "| ms of a clip, one core | published, float64 | ours |",
        "|---|---|---|",
    ]
    for name, before, after in rows:
        shown = ["" if value is None else f"{value:.2f}" for value in (before, after)]
        lines.append(f"| {name} | {shown[0]} | {shown[1]} |")
    lines += ["", "| 44.1 kHz stereo mp3, to patches | ms | ratio |", "|---|---|---|"]
    if published is not None:
        lines.append(f"| published (resampy), one core | {published:.0f} | {published / own:.1f} |")
    lines.append(f"| ours, one core | {own:.1f} | 1 |")
    table = "\n".join(lines) + "\n"
    show_table(table, START, END, write=arguments.write)


if __name__ == "__main__":
    main()
