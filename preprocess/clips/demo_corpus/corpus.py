"""Plan, rendering and files of the demo corpus."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from tagger.base.files import write_bytes, write_json

from .instruments import INSTRUMENTS, SAMPLE_RATE, play

FOLDERS = "0123456789abcdef"
TAGS = (*INSTRUMENTS, "no drums", "solo", "fast", "slow")

# Far apart, so that they can be told apart by ear.
_TEMPOS_BPM = {"slow": (45.0, 60.0), "fast": (150.0, 180.0)}
_CLIPS_PER_ARTIST = 4

# To be raised whenever the sounds or the plan change, so that old corpora are renewed.
_VERSION = 3
_MANIFEST = "demo_corpus.json"
_ANNOTATIONS = "annotations_final.csv"
_CLIP_INFO = "clip_info_final.csv"
_CLIP_INFO_COLUMNS = (
    *("clip_id", "track_number", "title", "artist", "album", "url"),
    *("segmentStart", "segmentEnd", "original_url", "mp3_path"),
)


@dataclass(frozen=True)
class ClipPlan:
    """What is decided about a clip before it is rendered.

    Attributes
    ----------
    clip_id : int
        Number of the clip, from 1.
    folder : str
        One of ``FOLDERS``.
    artist : int
        Number of the invented artist, from 1.
    track : int
        Number of the clip among those of its artist, from 1.
    instruments : tuple of str
        What plays, from ``INSTRUMENTS``.
    tempo : {'slow', 'fast'}
        Class of the tempo.
    """

    clip_id: int
    folder: str
    artist: int
    track: int
    instruments: tuple[str, ...]
    tempo: str

    @property
    def mp3_path(self) -> str:
        """Path relative to the root of the corpus, with forward slashes; it tells no tags."""
        artist = f"synth_ensemble_{self.artist:02d}"
        return f"{self.folder}/{artist}-demo_pieces-{self.track:02d}-study_{self.clip_id}.mp3"

    @property
    def tags(self) -> frozenset[str]:
        """The tags that are true, all from ``TAGS``."""
        tags = {*self.instruments, self.tempo}
        if "drums" not in tags:
            tags.add("no drums")
        if len(self.instruments) == 1:
            tags.add("solo")
        return frozenset(tags)


def plan(n_clips: int, seed: int) -> list[ClipPlan]:
    """Plan a corpus.

    Each of six instruments plays in one of three clips, alone, in a duo or in a trio. At sixteen
    clips per folder or more, each folder has clips with each tag, and clips without it.

    Parameters
    ----------
    n_clips : int
        Number of clips, a positive multiple of 16.
    seed : int
        Seed of all draws; not negative.

    Returns
    -------
    list of ClipPlan
        The clips in the order of their ids, folder by folder.

    Raises
    ------
    ValueError
        If the number of clips is no positive multiple of 16.
    """
    if n_clips <= 0 or n_clips % len(FOLDERS):
        raise ValueError(f"n_clips must be a positive multiple of 16, got {n_clips}")
    rng = np.random.default_rng(seed)
    ensembles: list[tuple[str, ...]] = []
    while len(ensembles) < n_clips:
        dealt = [str(name) for name in rng.permutation(INSTRUMENTS)]
        three = [tuple(dealt[:1]), tuple(dealt[1:3]), tuple(dealt[3:])]
        ensembles += [three[i] for i in rng.permutation(3)]
    per_folder = n_clips // len(FOLDERS)
    artists_per_folder = -(-per_folder // _CLIPS_PER_ARTIST)
    clips = []
    for index in range(n_clips):
        folder, place = divmod(index, per_folder)
        artist, track = divmod(place, _CLIPS_PER_ARTIST)
        clips.append(
            ClipPlan(
                clip_id=index + 1,
                folder=FOLDERS[folder],
                artist=folder * artists_per_folder + artist + 1,
                track=track + 1,
                instruments=ensembles[index],
                tempo=str(rng.choice(list(_TEMPOS_BPM))),
            )
        )
    return clips


def render(
    plan_item: ClipPlan, clip_seconds: float, *, seed: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Render one clip.

    Parameters
    ----------
    plan_item : ClipPlan
        The plan of the clip.
    clip_seconds : float
        Length in seconds, at least 0.5.
    seed : int
        Seed of the corpus; with the clip id it fixes the waveform.

    Returns
    -------
    np.ndarray [shape=(n_samples,), dtype=float32]
        Mono waveform at 16 kHz with a peak of 0.5 to 0.8: MP3 overshoots the peaks.
    """
    rng = np.random.default_rng([seed, plan_item.clip_id])
    tempo_bpm, key = rng.uniform(*_TEMPOS_BPM[plan_item.tempo]), int(rng.integers(12))
    mix = np.zeros(round(clip_seconds * SAMPLE_RATE))
    for instrument in plan_item.instruments:
        part = play(rng, instrument, tempo_bpm=tempo_bpm, key=key, n_samples=mix.size)
        mix += rng.uniform(0.6, 1.0) * part
    return np.asarray(mix * (rng.uniform(0.5, 0.8) / np.abs(mix).max()), dtype=np.float32)


def _mp3(waveform: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    # 64 kbit/s, well above the 32 kbit/s of the real data set.
    file = io.BytesIO()
    sf.write(
        file,
        waveform,
        SAMPLE_RATE,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=0.6,
    )
    return file.getvalue()


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
    rows = [_CLIP_INFO_COLUMNS]
    for clip in clips:
        rows.append(
            (
                *(str(clip.clip_id), f"{clip.track:02d}", f"Study {clip.clip_id}"),
                *(f"Synth Ensemble {clip.artist:02d}", f"Demo Pieces {clip.artist:02d}", ""),
                *("0", str(max(round(clip_seconds), 1))),
                # Another one for each clip: users tell pieces apart by this column.
                f"http://demo.invalid/{clip.clip_id}",
                clip.mp3_path,
            )
        )
    return _csv(rows)


def _remove_other_corpus(root: Path, manifest: dict[str, Any]) -> None:
    """Remove what an earlier call with other parameters wrote.

    Raises
    ------
    FileExistsError
        If the folder holds annotations that are not of a demo corpus.
    """
    try:
        old = json.loads((root / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if (root / _ANNOTATIONS).exists():
            raise FileExistsError(f"{root} holds a data set that is not a demo corpus") from None
        old = None
    if old != manifest:
        # Annotations first: without them nothing takes the folder for a complete corpus.
        (root / _ANNOTATIONS).unlink(missing_ok=True)
        for path in root.glob("[0-9a-f]/synth_ensemble_*.mp3"):
            path.unlink()


def write_demo_corpus(
    root: Path,
    *,
    n_clips: int = 256,
    clip_seconds: float = 8.0,
    seed: int = 0,
    on_clip: Callable[[int], None] | None = None,
) -> Path:
    """Write the demo corpus, or whatever of it is missing.

    Clips are written first and the annotations last, each file in one step, so that a call
    that is cut short can simply be repeated. Clips of the same parameters are left as they are;
    a corpus with other parameters is replaced.

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
    clips = plan(n_clips, seed)
    manifest = {
        "version": _VERSION,
        "n_clips": n_clips,
        "clip_seconds": float(clip_seconds),
        "seed": seed,
    }
    root = Path(root)
    _remove_other_corpus(root, manifest)
    write_json(root / _MANIFEST, manifest)

    def write(clip: ClipPlan) -> None:
        if not (root / clip.mp3_path).exists():
            waveform = render(clip, clip_seconds, seed=seed)
            write_bytes(root / clip.mp3_path, _mp3(waveform), durable=False)

    # Threads are enough: NumPy and the encoder compute outside Python's lock.
    with ThreadPoolExecutor() as pool:
        for n_done, _ in enumerate(pool.map(write, clips), 1):
            if on_clip is not None:
                on_clip(n_done)
    write_bytes(root / _CLIP_INFO, _clip_info(clips, clip_seconds))
    write_bytes(root / _ANNOTATIONS, _annotations(clips))
    return root / _ANNOTATIONS
