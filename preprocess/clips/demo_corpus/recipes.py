"""Which clip holds what: the deterministic plan of the corpus and its tags.

The draws are stratified rather than independent. Clips come in blocks of sixteen, and within
every block the eight sources, the numbers of sources per clip, the two voices, the held and
moving parts and the tempo classes are dealt out evenly. At sixteen clips per folder or more
each folder is made of whole blocks, hence every tag has positives and negatives in each folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FOLDERS = "0123456789abcdef"

# Names of sources are at the same time tags; all tags are names of MagnaTagATune.
SOURCES = ("guitar", "bells", "organ", "flute", "drums", "bass", "singing", "wind")
TAGS: tuple[str, ...] = (
    *SOURCES,
    "male vocal",
    "female vocal",
    "no vocals",
    "no drums",
    "percussion",
    "solo",
    "drone",
    "fast",
    "slow",
)

_BLOCK_SIZE = 16
# Numbers of sources of the clips of a block: 33 places, so 4 or 5 for each of the 8 sources.
_SOLOS_PER_BLOCK = 5
_MIX_SIZES = (2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4)

# Wide gaps between the classes, so that they can be told apart by ear.
_TEMPO_BPM = {"slow": (46.0, 58.0), "medium": (88.0, 104.0), "fast": (150.0, 172.0)}
_TONICS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_CLIPS_PER_ARTIST = 4
_QUIETEST_DB = -5.0


@dataclass(frozen=True)
class Source:
    """One source of a clip.

    Attributes
    ----------
    name : str
        One of ``SOURCES``.
    style : str
        'male' or 'female' for the voice, 'held' or 'moving' for organ and bass, else ''.
    level_db : float
        Level in dB relative to the loudest source of the clip.
    """

    name: str
    style: str
    level_db: float


@dataclass(frozen=True)
class ClipPlan:
    """Everything that is decided about a clip before it is rendered.

    Attributes
    ----------
    clip_id : int
        Number of the clip, from 1.
    folder : str
        One of ``FOLDERS``.
    file_name : str
        Name of the MP3 file in the folder.
    artist, title : str
        Invented names.
    track : int
        Number of the clip among those of its artist, from 1.
    sources : tuple of Source
        The sources that sound, loudest first.
    tonic : int
        Pitch class of the key, 0 (C) to 11 (B).
    minor : bool
        Whether the key is a minor one.
    tempo : {'slow', 'medium', 'fast'}
        Class of the tempo.
    tempo_bpm : float
        Beats per minute.
    noise_floor_db : float or None
        Level of a hiss relative to the mix in dB; None for no hiss.
    tags : frozenset of str
        The tags that are true.
    """

    clip_id: int
    folder: str
    file_name: str
    artist: str
    title: str
    track: int
    sources: tuple[Source, ...]
    tonic: int
    minor: bool
    tempo: str
    tempo_bpm: float
    noise_floor_db: float | None
    tags: frozenset[str]

    @property
    def mp3_path(self) -> str:
        """Path relative to the root of the corpus, with forward slashes."""
        return f"{self.folder}/{self.file_name}"

    @property
    def key(self) -> str:
        """Name of the key, such as 'F# minor'."""
        return f"{_TONICS[self.tonic]} {'minor' if self.minor else 'major'}"


def tags_of(sources: Sequence[Source], tempo: str) -> frozenset[str]:
    """Derive the tags of a clip from its recipe.

    Parameters
    ----------
    sources : sequence of Source
        The sources that sound.
    tempo : str
        Class of the tempo.

    Returns
    -------
    frozenset of str
        The tags that are true, all from ``TAGS``.
    """
    names = {source.name for source in sources}
    styles = {source.style for source in sources}
    tags = set(names)
    if "singing" in names:
        tags.add("male vocal" if "male" in styles else "female vocal")
    else:
        tags.add("no vocals")
    if "drums" not in names:
        tags.add("no drums")
    if names & {"drums", "bells"}:
        tags.add("percussion")
    if len(sources) == 1:
        tags.add("solo")
    if "held" in styles:
        tags.add("drone")
    if tempo != "medium":
        tags.add(tempo)
    return frozenset(tags)


def _deal_names(rng: np.random.Generator, solo_counts: dict[str, int]) -> list[tuple[str, ...]]:
    """Return the source names of the clips of a block, each source equally often."""
    counts = dict.fromkeys(SOURCES, 0)
    clips: list[tuple[str, ...]] = []

    def deal(size: int, solo: bool) -> None:
        # The least used sources first and ties by lot: counts never differ by more than one.
        lot = rng.permutation(len(SOURCES))
        order = sorted(
            range(len(SOURCES)),
            key=lambda i: (counts[SOURCES[i]], solo * solo_counts[SOURCES[i]], lot[i]),
        )
        names = tuple(SOURCES[i] for i in order[:size])
        for name in names:
            counts[name] += 1
            solo_counts[name] += solo
        clips.append(names)

    for _ in range(_SOLOS_PER_BLOCK):
        deal(1, True)
    for size in rng.permutation(_MIX_SIZES):
        deal(int(size), False)
    return [clips[i] for i in rng.permutation(_BLOCK_SIZE)]


def _deal_sources(
    rng: np.random.Generator, clips: Sequence[tuple[str, ...]]
) -> list[tuple[Source, ...]]:
    """Add styles, which alternate, and levels, which are free, to the names."""
    styles = {
        "organ": ("held", "moving"),
        "bass": ("held", "moving"),
        "singing": ("male", "female"),
    }
    turns = {name: int(rng.integers(2)) for name in styles}
    dealt = []
    for names in clips:
        sources = []
        for place, i in enumerate(rng.permutation(len(names))):
            name = names[i]
            style = ""
            if name in styles:
                style = styles[name][turns[name] % 2]
                turns[name] += 1
            level_db = 0.0 if place == 0 else float(rng.uniform(_QUIETEST_DB, 0.0))
            sources.append(Source(name, style, round(level_db, 2)))
        dealt.append(tuple(sorted(sources, key=lambda s: -s.level_db)))
    return dealt


def _deal_tempos(rng: np.random.Generator, clips: Sequence[tuple[Source, ...]]) -> list[str]:
    """Deal tempo classes in turn to the clips in which a tempo can be heard.

    The others, of held notes, slow song and wind, are slow: nothing in them moves quickly.
    """
    tempos = ["slow"] * len(clips)
    classes = [str(name) for name in rng.permutation(list(_TEMPO_BPM))]
    turn = 0
    for i in rng.permutation(len(clips)):
        if any(s.name not in ("singing", "wind") and s.style != "held" for s in clips[i]):
            tempos[i] = classes[turn % len(classes)]
            turn += 1
    return tempos


def plan(n_clips: int, seed: int) -> list[ClipPlan]:
    """Plan a corpus.

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
    per_folder = n_clips // len(FOLDERS)
    artists_per_folder = -(-per_folder // _CLIPS_PER_ARTIST)
    solo_counts = dict.fromkeys(SOURCES, 0)
    plans: list[ClipPlan] = []
    for block in range(n_clips // _BLOCK_SIZE):
        rng = np.random.default_rng([seed, 0, block])
        clips = _deal_sources(rng, _deal_names(rng, solo_counts))
        tempos = _deal_tempos(rng, clips)
        for sources, tempo in zip(clips, tempos, strict=True):
            folder, place = divmod(len(plans), per_folder)
            artist = folder * artists_per_folder + place // _CLIPS_PER_ARTIST + 1
            track = place % _CLIPS_PER_ARTIST + 1
            clip_id = len(plans) + 1
            slug = f"synth_ensemble_{artist:02d}-demo_pieces-{track:02d}-study_{clip_id}.mp3"
            plans.append(
                ClipPlan(
                    clip_id=clip_id,
                    folder=FOLDERS[folder],
                    # The name depends on the number of clips only, and tells no tags.
                    file_name=slug,
                    artist=f"Synth Ensemble {artist:02d}",
                    title=f"Study {clip_id}",
                    track=track,
                    sources=sources,
                    tonic=int(rng.integers(12)),
                    minor=bool(rng.integers(2)),
                    tempo=tempo,
                    tempo_bpm=round(float(rng.uniform(*_TEMPO_BPM[tempo])), 1),
                    noise_floor_db=(
                        round(float(rng.uniform(-55.0, -42.0)), 1) if rng.uniform() < 0.2 else None
                    ),
                    tags=tags_of(sources, tempo),
                )
            )
    return plans
