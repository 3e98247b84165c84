"""What some hours of audio would take, from figures that were measured on one machine.

    python benchmarks/scale.py [--hours 1e6] [--ms-per-clip 11] ...

Arithmetic alone: every figure is an option. Those of time and size were measured (see README.md in
this folder); prices are examples, to be replaced by those of the day. docs/scale.md says what
follows from it.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from prediction import show_table

START, END = "<!-- scale: start -->\n", "<!-- scale: end -->\n"
CLIP_SECONDS, PATCH_SECONDS = 29.0, 0.96
PATCHES_PER_CLIP = int(CLIP_SECONDS / PATCH_SECONDS)


@dataclass(frozen=True)
class Figures:
    """What the arithmetic starts from; an option each."""

    hours: float = 1e6
    # Slicing, of one core and one clip of 29 s.
    ms_per_clip: float = 11.0
    beam_factor: float = 1.05
    # Waiting for the bucket: one read and one write.
    ms_per_request: float = 50.0
    threads_per_core: float = 1.0
    source_bytes: float = 117e3
    stored_bytes: float = 370e3
    manifest_bytes: float = 390.0
    launcher_bytes: float = 2200.0
    # Training, of the whole network at full width.
    step_gflop_per_patch: float = 4.75
    device_tflops: float = 300.0
    stream_patches_per_second: float = 90e3
    epochs: float = 1.0
    # Prices in dollars.
    core_hour: float = 0.07
    write_request: float = 5e-6
    read_request: float = 4e-7
    gigabyte_month: float = 0.02
    device_hour: float = 4.0


def table(given: Figures) -> Iterator[tuple[str, str]]:
    """Lines of a quantity and its value."""
    n_clips = given.hours * 3600 / CLIP_SECONDS
    n_patches = n_clips * PATCHES_PER_CLIP
    compute = n_clips * given.ms_per_clip * given.beam_factor / 3.6e6
    waiting = n_clips * 2 * given.ms_per_request / given.threads_per_core / 3.6e6
    stored = n_clips * given.stored_bytes
    learned = given.device_tflops * 1e3 / given.step_gflop_per_patch
    hours = given.epochs * n_patches / learned / 3600
    yield "clips of 29 s", f"{n_clips / 1e6:,.1f} million"
    yield "patches of 0.96 s", f"{n_patches / 1e9:,.2f} thousand million"
    yield "audio", f"{n_clips * given.source_bytes / 1e12:,.1f} TB"
    yield "store, float16", f"{stored / 1e12:,.1f} TB"
    yield "slicing, computing", f"{compute:,.0f} core hours"
    yield "slicing, waiting for the bucket", f"{waiting:,.0f} core hours"
    yield "slicing on 1,000 cores", f"{(compute + waiting) / 1000:,.1f} hours"
    yield "slicing, cores", f"${(compute + waiting) * given.core_hour:,.0f}"
    requests = n_clips * (given.write_request + given.read_request)
    yield "slicing, requests", f"${requests:,.0f}"
    yield "store, a month", f"${stored / 1e9 * given.gigabyte_month:,.0f}"
    yield "manifest", f"{n_clips * given.manifest_bytes / 1e9:,.0f} GB"
    yield "memory to plan and to merge it", f"{n_clips * given.launcher_bytes / 1e9:,.0f} GB"
    yield "patches per second that the device learns from", f"{learned:,.0f}"
    streamed = given.stream_patches_per_second
    yield "patches per second that two cores stream", f"{streamed:,.0f}"
    read = learned * given.stored_bytes / PATCHES_PER_CLIP
    yield "read from the disk while training", f"{read / 1e6:,.0f} MB/s"
    yield f"training, {given.epochs:g} epochs", f"{hours:,.0f} device hours"
    yield "training, devices", f"${hours * given.device_hour:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field in fields(Figures):
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=float, default=field.default, help=f"{field.default:g}")
    parser.add_argument("--write", action="store_true", help="into docs/scale.md")
    given = vars(parser.parse_args())
    write = given.pop("write")
    lines = ["| quantity | value |", "|---|---|"]
    lines += [f"| {quantity} | {value} |" for quantity, value in table(Figures(**given))]
    text = "\n".join(lines) + "\n"
    page = Path(__file__).parents[1] / "docs" / "scale.md"
    show_table(text, START, END, write=write, page=page)


if __name__ == "__main__":
    main()
