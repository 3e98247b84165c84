"""How each source plays: notes in the key and tempo of the clip, over a whole clip."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .drums import hi_hat, kick_drum, snare_drum
from .instruments import (
    bass_note,
    blow_wind,
    flute_note,
    organ_chord,
    pluck_string,
    sing,
    strike_bar,
)
from .recipes import ClipPlan, Source
from .waves import Waveform

# Chords as steps of the scale above the tonic; one progression serves all parts of a clip.
_PROGRESSIONS = ((0, 4, 5, 3), (0, 3, 4, 3), (0, 5, 3, 4), (0, 3, 0, 4), (0, 5, 1, 4))
_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)


def _hz(midi: float) -> float:
    return float(440.0 * 2.0 ** ((midi - 69.0) / 12.0))


class _Score:
    """The harmony and the time grid that all parts of a clip share."""

    def __init__(self, plan: ClipPlan, *, sample_rate: int, duration_s: float) -> None:
        # Drawn from the recipe alone, so that no part depends on what the others drew.
        rng = np.random.default_rng([plan.clip_id, plan.tonic])
        self.plan = plan
        self.sample_rate = sample_rate
        self.duration_s = duration_s
        self.beat_s = 60.0 / plan.tempo_bpm
        self.scale = _MINOR if plan.minor else _MAJOR
        self.progression = _PROGRESSIONS[int(rng.integers(len(_PROGRESSIONS)))]
        self.beats_per_chord = 2 if plan.tempo == "slow" else 4

    def steps(self, per_beat: float) -> list[tuple[float, float]]:
        """Return onset in seconds and beat of an even pulse that fills the clip."""
        n = max(int(np.ceil(self.duration_s / self.beat_s * per_beat - 0.05)), 1)
        return [(i / per_beat * self.beat_s, i / per_beat) for i in range(n)]

    def chord(self, beat: float, *, low: int, high: int) -> list[int]:
        """Return the chord notes at a beat as MIDI numbers in [low, high)."""
        root = self.progression[int(beat // self.beats_per_chord) % len(self.progression)]
        classes = {(self.plan.tonic + self.scale[(root + third) % 7]) % 12 for third in (0, 2, 4)}
        return [m for m in range(low, high) if m % 12 in classes]

    def root(self, beat: float, *, low: int) -> int:
        """Return the lowest root of the chord at a beat that is not below a MIDI number."""
        root = self.progression[int(beat // self.beats_per_chord) % len(self.progression)]
        return low + (self.plan.tonic + self.scale[root % 7] - low) % 12

    def empty(self) -> Waveform:
        return np.zeros(max(round(self.duration_s * self.sample_rate), 1))


def _add(track: Waveform, sound: Waveform, *, sample_rate: int, at_s: float, gain: float) -> None:
    start = max(round(at_s * sample_rate), 0)
    n = min(sound.size, track.size - start)
    if n > 0:
        track[start : start + n] += gain * sound[:n]


def _melody(
    rng: np.random.Generator, score: _Score, *, per_beat: float, low: int, high: int
) -> list[tuple[float, int]]:
    """Return onsets in seconds and MIDI numbers of a melody of chord notes in small leaps."""
    notes: list[tuple[float, int]] = []
    last = int(rng.integers(low, high))
    for at_s, beat in score.steps(per_beat):
        choices = np.array(score.chord(beat, low=low, high=high))
        weights = np.exp(-np.abs(choices - last) / 5.0) * np.where(choices == last, 0.5, 1.0)
        last = int(rng.choice(choices, p=weights / weights.sum()))
        notes.append((at_s, last))
    return notes


def _pulse(rng: np.random.Generator, score: _Score) -> float:
    """Return notes per beat; a medium tempo leaves room for choice."""
    if score.plan.tempo == "fast":
        return 2.0
    return 1.0 if score.plan.tempo == "slow" else float(rng.choice((1.5, 2.0)))


def _rests(rng: np.random.Generator, index: int) -> bool:
    return index > 0 and rng.uniform() < 0.06


def _humanised(rng: np.random.Generator, at_s: float) -> tuple[float, float]:
    return at_s + rng.uniform(0.0, 0.012), rng.uniform(0.65, 1.0)


def _play_guitar(rng: np.random.Generator, score: _Score, _: str) -> Waveform:
    sr, track = score.sample_rate, score.empty()
    brightness, pick = rng.uniform(0.5, 1.0), rng.uniform(0.08, 0.3)
    decay_s, strum = rng.uniform(0.8, 2.2), rng.uniform() < 0.4
    low = int(rng.integers(43, 55))
    per_beat = _pulse(rng, score)
    ring_s = min(max(2.0 * score.beat_s / per_beat, 0.6), 1.6)
    for i, (at_s, midi) in enumerate(
        _melody(rng, score, per_beat=per_beat, low=low, high=low + 19)
    ):
        if _rests(rng, i):
            continue
        notes = [midi]
        # Whole chords on the beat only: strums of every note would hide the line.
        if strum and i % int(2 * per_beat) == 0:
            notes = score.chord(at_s / score.beat_s, low=low, high=low + 14)[:4]
        at_s, velocity = _humanised(rng, at_s)
        for string, note in enumerate(notes):
            sound = pluck_string(
                rng,
                sr,
                frequency_hz=_hz(note),
                duration_s=ring_s,
                brightness=brightness,
                pick_position=pick,
                decay_s=decay_s,
            )
            gain = velocity / np.sqrt(len(notes))
            _add(track, sound, sample_rate=sr, at_s=at_s + 0.014 * string, gain=gain)
    return track


def _play_bells(rng: np.random.Generator, score: _Score, _: str) -> Waveform:
    sr, track = score.sample_rate, score.empty()
    tubular, hardness = bool(rng.integers(2)), rng.uniform(0.4, 1.0)
    decay_s, low = rng.uniform(0.9, 3.0), int(rng.integers(76, 86))
    per_beat = _pulse(rng, score)
    for i, (at_s, midi) in enumerate(
        _melody(rng, score, per_beat=per_beat, low=low, high=low + 17)
    ):
        if _rests(rng, i):
            continue
        at_s, velocity = _humanised(rng, at_s)
        sound = strike_bar(
            rng,
            sr,
            frequency_hz=_hz(midi),
            duration_s=min(decay_s, 2.0),
            tubular=tubular,
            hardness=hardness,
            decay_s=decay_s,
        )
        _add(track, sound, sample_rate=sr, at_s=at_s, gain=velocity)
    return track


def _play_organ(rng: np.random.Generator, score: _Score, style: str) -> Waveform:
    sr, track = score.sample_rate, score.empty()
    drawbars = [int(level) for level in rng.integers(0, 9, 9)]
    # Full registrations: with the 8' stop alone an organ could pass for a flute.
    drawbars = [max(level, 3) for level in drawbars]
    drawbars[2] = int(rng.integers(6, 9))
    # A strong 16' stop would take the organ into the register of the bass.
    drawbars[0] = min(drawbars[0], 3)
    tremulant_hz = float(rng.uniform(5.0, 7.0)) if rng.uniform() < 0.5 else 0.0
    if style == "held":
        tonic = score.root(0.0, low=int(rng.integers(48, 58)))
        keys = [_hz(tonic), _hz(tonic + 7)]
        if rng.uniform() < 0.5:
            keys.append(_hz(tonic + 12))
        return organ_chord(
            rng,
            sr,
            frequencies_hz=keys,
            duration_s=score.duration_s,
            drawbars=drawbars,
            tremulant_hz=tremulant_hz,
        )
    per_beat, low = _pulse(rng, score), int(rng.integers(50, 62))
    duty = rng.uniform(0.45, 0.8)
    for i, (at_s, beat) in enumerate(score.steps(per_beat)):
        if _rests(rng, i):
            continue
        chord = score.chord(beat, low=low, high=low + 16)
        voicing = rng.choice(chord, size=min(3, len(chord)), replace=False)
        at_s, velocity = _humanised(rng, at_s)
        sound = organ_chord(
            rng,
            sr,
            frequencies_hz=[_hz(float(m)) for m in voicing],
            duration_s=duty * score.beat_s / per_beat,
            drawbars=drawbars,
            tremulant_hz=tremulant_hz,
        )
        _add(track, sound, sample_rate=sr, at_s=at_s, gain=velocity)
    return track


def _play_flute(rng: np.random.Generator, score: _Score, _: str) -> Waveform:
    sr, track = score.sample_rate, score.empty()
    breath, overtones = rng.uniform(0.06, 0.22), rng.uniform(0.2, 0.5)
    vibrato_hz, vibrato_cents = rng.uniform(4.5, 6.2), rng.uniform(8.0, 30.0)
    low, duty = int(rng.integers(69, 79)), rng.uniform(0.75, 0.98)
    per_beat = _pulse(rng, score)
    for i, (at_s, midi) in enumerate(
        _melody(rng, score, per_beat=per_beat, low=low, high=low + 15)
    ):
        if _rests(rng, i):
            continue
        at_s, velocity = _humanised(rng, at_s)
        sound = flute_note(
            rng,
            sr,
            frequency_hz=_hz(midi),
            duration_s=duty * score.beat_s / per_beat,
            breath=breath,
            vibrato_hz=vibrato_hz,
            vibrato_cents=vibrato_cents,
            overtones=overtones,
        )
        _add(track, sound, sample_rate=sr, at_s=at_s, gain=velocity)
    return track


def _play_drums(rng: np.random.Generator, score: _Score, _: str) -> Waveform:
    sr, track = score.sample_rate, score.empty()
    # One drum of each kind per clip, as of one drummer at one kit.
    kick, snare = kick_drum(rng, sr), snare_drum(rng, sr)
    closed = hi_hat(rng, sr, decay_s=rng.uniform(0.015, 0.04))
    opened = hi_hat(rng, sr, decay_s=rng.uniform(0.08, 0.16))
    four_on_the_floor, hat_gain = rng.uniform() < 0.4, rng.uniform(0.35, 0.8)
    hats_per_beat = 1.0 if score.plan.tempo == "slow" else 2.0
    for at_s, beat in score.steps(hats_per_beat):
        at_s, velocity = _humanised(rng, at_s)
        hat = opened if beat % 2 == 1.5 and rng.uniform() < 0.5 else closed
        _add(track, hat, sample_rate=sr, at_s=at_s, gain=hat_gain * velocity)
        if beat % 1 == 0:
            if four_on_the_floor or beat % 2 == 0:
                _add(track, kick, sample_rate=sr, at_s=at_s, gain=velocity)
            if beat % 2 == 1:
                _add(track, snare, sample_rate=sr, at_s=at_s, gain=velocity)
        elif rng.uniform() < 0.15:
            _add(track, kick, sample_rate=sr, at_s=at_s, gain=0.7 * velocity)
    return track


def _play_bass(rng: np.random.Generator, score: _Score, style: str) -> Waveform:
    sr, track = score.sample_rate, score.empty()
    triangle, cutoff_hz = bool(rng.integers(2)), rng.uniform(350.0, 900.0)
    low = int(rng.integers(28, 36))
    if style == "held":
        return bass_note(
            rng,
            sr,
            frequency_hz=_hz(score.root(0.0, low=low)),
            duration_s=score.duration_s,
            triangle=triangle,
            cutoff_hz=cutoff_hz,
            decay_s=np.inf,
        )
    per_beat, duty = _pulse(rng, score), rng.uniform(0.55, 0.9)
    decay_s = rng.uniform(0.3, 1.0)
    for i, (at_s, beat) in enumerate(score.steps(per_beat)):
        if _rests(rng, i):
            continue
        at_s, velocity = _humanised(rng, at_s)
        midi = score.root(beat, low=low) + int(rng.choice((0, 0, 0, 7, 12)))
        sound = bass_note(
            rng,
            sr,
            frequency_hz=_hz(midi),
            duration_s=duty * score.beat_s / per_beat,
            triangle=triangle,
            cutoff_hz=cutoff_hz,
            decay_s=decay_s,
        )
        _add(track, sound, sample_rate=sr, at_s=at_s, gain=velocity)
    return track


def _play_singing(rng: np.random.Generator, score: _Score, style: str) -> Waveform:
    low = int(rng.integers(43, 49)) if style == "male" else int(rng.integers(57, 63))
    per_beat = 0.5 if score.plan.tempo == "slow" else 1.0
    notes = _melody(rng, score, per_beat=per_beat, low=low, high=low + 11)
    onsets = [at_s for at_s, _ in notes] + [score.duration_s]
    return sing(
        rng,
        score.sample_rate,
        frequencies_hz=[_hz(midi) for _, midi in notes],
        durations_s=list(np.diff(onsets)),
        register=style,
        vibrato_hz=rng.uniform(4.8, 6.2),
        vibrato_cents=rng.uniform(15.0, 60.0),
        breath=rng.uniform(0.01, 0.08),
    )


def _play_wind(rng: np.random.Generator, score: _Score, _: str) -> Waveform:
    return blow_wind(
        rng,
        score.sample_rate,
        duration_s=score.duration_s,
        low_hz=rng.uniform(200.0, 700.0),
        high_hz=rng.uniform(1800.0, 5500.0),
        gust_db=rng.uniform(2.0, 6.0),
    )


_PLAYERS: dict[str, Callable[[np.random.Generator, _Score, str], Waveform]] = {
    "guitar": _play_guitar,
    "bells": _play_bells,
    "organ": _play_organ,
    "flute": _play_flute,
    "drums": _play_drums,
    "bass": _play_bass,
    "singing": _play_singing,
    "wind": _play_wind,
}


def play(
    rng: np.random.Generator,
    source: Source,
    *,
    plan: ClipPlan,
    sample_rate: int,
    duration_s: float,
) -> Waveform:
    """Play one source over the whole of a clip.

    Parameters
    ----------
    rng : np.random.Generator
        Source of notes, timbre and articulation.
    source : Source
        What to play.
    plan : ClipPlan
        The clip, for its key and tempo.
    sample_rate : int
        Samples per second.
    duration_s : float
        Length of the clip in seconds.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        The part, of exactly the length of the clip, at an arbitrary level.
    """
    score = _Score(plan, sample_rate=sample_rate, duration_s=duration_s)
    track = score.empty()
    _add(
        track,
        _PLAYERS[source.name](rng, score, source.style),
        sample_rate=sample_rate,
        at_s=0.0,
        gain=1.0,
    )
    return track
