"""Rendering and writing of the demo corpus."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from scipy import signal

from .parts import play
from .recipes import FOLDERS, SOURCES, TAGS, ClipPlan, plan

SAMPLE_RATE = 16000

# To be raised whenever the sounds or the recipes change, so that old corpora are renewed.
_VERSION = 1
_MANIFEST = "demo_corpus.json"
_ANNOTATIONS = "annotations_final.csv"
_CLIP_INFO = "clip_info_final.csv"

# Below this a pool of processes takes longer to start than it saves.
_FEWEST_FOR_POOL = 24


# A first-order high-pass, the gist of the curve by which the ear hears low notes as softer than
# their power; without it the bass would be level in power and yet inaudible above its octave.
_EAR = signal.butter(1, 250.0, btype="highpass", fs=SAMPLE_RATE)


def _loudness(wave: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    heard = signal.lfilter(*_EAR, wave)
    return float(np.sqrt(np.mean(heard**2)))


def render(
    plan_item: ClipPlan, clip_seconds: float, *, seed: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Render one clip.

    Parameters
    ----------
    plan_item : ClipPlan
        The recipe.
    clip_seconds : float
        Length in seconds.
    seed : int
        Seed of the corpus; with the clip id it fixes the waveform.

    Returns
    -------
    np.ndarray [shape=(n_samples,), dtype=float32]
        Mono waveform at 16 kHz with a peak of at most 0.8.
    """
    mix = np.zeros(max(round(clip_seconds * SAMPLE_RATE), 1))
    for source in plan_item.sources:
        # A stream for each source, so that a part does not depend on its company.
        stream = [seed, 1, plan_item.clip_id, SOURCES.index(source.name)]
        part = play(
            np.random.default_rng(stream),
            source,
            plan=plan_item,
            sample_rate=SAMPLE_RATE,
            duration_s=clip_seconds,
        )
        rms = _loudness(part)
        mix += part / max(rms, 1e-9) * 10.0 ** (source.level_db / 20.0)
    rng = np.random.default_rng([seed, 2, plan_item.clip_id])
    if plan_item.noise_floor_db is not None:
        hiss = 10.0 ** (plan_item.noise_floor_db / 20.0) * np.sqrt(np.mean(mix**2))
        mix += hiss * rng.standard_normal(mix.size)
    # Room is left below 1 because decoded MP3 overshoots the original peaks.
    peak = rng.uniform(0.5, 0.8)
    return np.asarray(mix * (peak / max(np.abs(mix).max(), 1e-9)), dtype=np.float32)


def _replace_bytes(path: Path, data: bytes) -> None:
    # A fixed temporary name: what a killed run leaves behind, the next run overwrites.
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    temporary.replace(path)


def _write_clip(item: ClipPlan, *, root: Path, clip_seconds: float, seed: int) -> None:
    path = root / item.folder / item.file_name
    temporary = path.with_name(f".{path.name}.part")
    waveform = render(item, clip_seconds, seed=seed)
    # 64 kbit/s, well above the 32 kbit/s of the real data set.
    sf.write(
        temporary,
        waveform,
        SAMPLE_RATE,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=0.6,
    )
    temporary.replace(path)


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    """Return rows in the dialect of MagnaTagATune: tabs, every field quoted, CRLF."""
    lines = ("\t".join(f'"{field}"' for field in row) for row in rows)
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _annotations(clips: Sequence[ClipPlan]) -> bytes:
    rows = [("clip_id", *TAGS, "mp3_path")]
    for clip in clips:
        flags = ("1" if tag in clip.tags else "0" for tag in TAGS)
        rows.append((str(clip.clip_id), *flags, clip.mp3_path))
    return _csv(rows)


def _clip_info(clips: Sequence[ClipPlan], clip_seconds: float) -> bytes:
    columns = "clip_id track_number title artist album url segmentStart segmentEnd original_url"
    rows = [(*columns.split(), "mp3_path")]
    for clip in clips:
        rows.append(
            (
                str(clip.clip_id),
                f"{clip.track:02d}",
                clip.title,
                clip.artist,
                "Demo Pieces",
                "",
                "0",
                str(max(round(clip_seconds), 1)),
                # Unique per clip, since users tell pieces apart by this column.
                f"http://demo.invalid/{clip.file_name}",
                clip.mp3_path,
            )
        )
    return _csv(rows)


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _prepare(root: Path, *, manifest: dict[str, Any]) -> None:
    """Make the folders and remove what an earlier call with other parameters wrote."""
    old = _read_manifest(root / _MANIFEST)
    if old is None and (root / _ANNOTATIONS).exists():
        raise FileExistsError(f"{root} holds a data set that is not a demo corpus")
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    if old == manifest:
        return
    # Annotations first: without them nothing takes the folder for a complete corpus.
    (root / _ANNOTATIONS).unlink(missing_ok=True)
    (root / _CLIP_INFO).unlink(missing_ok=True)
    for path in root.glob("[0-9a-f]/synth_ensemble_*-demo_pieces-*.mp3"):
        path.unlink()
    _replace_bytes(root / _MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode("ascii"))


def _n_workers(n_workers: int | None) -> int:
    if n_workers is not None:
        return max(n_workers, 1)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_demo_corpus(
    root: Path,
    *,
    n_clips: int = 256,
    clip_seconds: float = 8.0,
    seed: int = 0,
    n_workers: int | None = None,
    on_clip: Callable[[int], None] | None = None,
) -> Path:
    """Write the demo corpus, or whatever of it is missing.

    Clips are written first and the annotations last, each file in one step, so that a call
    that is cut short can simply be repeated. Over a complete corpus with the same parameters
    the call does nothing; one with other parameters is replaced.

    Parameters
    ----------
    root : Path
        Folder of the corpus; made if needed.
    n_clips : int
        Number of clips, a positive multiple of 16.
    clip_seconds : float
        Length of each clip in seconds, at least 0.5.
    seed : int
        Seed of all draws; not negative.
    n_workers : int, optional
        Number of processes; by default one per available core. With more than one, the
        calling script needs the usual ``if __name__ == "__main__"`` guard.
    on_clip : callable, optional
        Called with the number of clips that are done, after each one.

    Returns
    -------
    Path
        Path of ``annotations_final.csv``.

    Raises
    ------
    FileExistsError
        If the folder holds annotations that are not of a demo corpus.
    ValueError
        If a parameter is out of range.
    """
    if clip_seconds < 0.5:
        raise ValueError(f"clip_seconds must be at least 0.5, got {clip_seconds}")
    root = Path(root)
    clips = plan(n_clips, seed)
    manifest = {
        "version": _VERSION,
        "n_clips": n_clips,
        "clip_seconds": float(clip_seconds),
        "seed": seed,
    }
    _prepare(root, manifest=manifest)
    missing = [clip for clip in clips if not (root / clip.mp3_path).is_file()]
    n_done = len(clips) - len(missing)
    write = partial(_write_clip, root=root, clip_seconds=float(clip_seconds), seed=seed)
    workers = min(_n_workers(n_workers), len(missing))
    if workers <= 1 or len(missing) < _FEWEST_FOR_POOL:
        for clip in missing:
            write(clip)
            n_done += 1
            if on_clip is not None:
                on_clip(n_done)
    else:
        # Not forked: the caller may run threads, and a fork would copy their held locks.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            for _ in pool.map(write, missing, chunksize=4):
                n_done += 1
                if on_clip is not None:
                    on_clip(n_done)
    for name, data in (
        (_CLIP_INFO, _clip_info(clips, clip_seconds)),
        (_ANNOTATIONS, _annotations(clips)),
    ):
        if not (root / name).is_file():
            _replace_bytes(root / name, data)
    return root / _ANNOTATIONS
