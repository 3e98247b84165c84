"""The instruments of the demo corpus: each plays a line of notes, one on each beat.

All notes of a part are computed at once, from the time since the beat of each sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SAMPLE_RATE = 16000

Waveform = np.ndarray[Any, np.dtype[np.float64]]

# Steps of the major pentatonic scale in semitones: any two of them sound well together.
_SCALE = (0, 2, 4, 7, 9, 12)
_RELEASE_S = 0.02
_VIBRATO_HZ = 5.5


@dataclass(frozen=True)
class Timbre:
    """How a pitched instrument sounds.

    Attributes
    ----------
    harmonics : tuple of float
        Amplitude of each harmonic, from the fundamental on.
    ratios : tuple of float
        Frequencies that sound together at each note, relative to the note.
    lowest_note : int
        MIDI number of the lowest note at the lowest key.
    attack_s : float
        Time in seconds in which a note reaches its level.
    decay_per_s : float
        How fast the fundamental falls, in nepers per second; harmonic h falls h times as fast.
    vibrato_cents : float
        Depth of the vibrato in cents.
    breath : float
        Level of noise relative to the tone.
    """

    harmonics: tuple[float, ...]
    ratios: tuple[float, ...] = (1.0,)
    lowest_note: int = 48
    attack_s: float = 0.01
    decay_per_s: float = 0.0
    vibrato_cents: float = 0.0
    breath: float = 0.0


_TIMBRES = {
    "guitar": Timbre(
        # A string that is plucked at a fifth of its length lacks each fifth harmonic.
        harmonics=tuple(abs(np.sin(np.pi * h / 5)) / h**0.5 for h in range(1, 16)),
        lowest_note=52,
        attack_s=0.002,
        decay_per_s=1.2,
    ),
    # Drawbars of the octaves and of the third and sixth harmonic; a fifth is held with each note.
    "organ": Timbre(
        harmonics=(1.0, 0.8, 0.6, 0.6, 0.0, 0.4, 0.0, 0.5), ratios=(1.0, 1.5), lowest_note=53
    ),
    # Two desks that are not quite in tune, with the harmonics of a saw.
    "strings": Timbre(
        harmonics=tuple(1 / h for h in range(1, 21)),
        ratios=(0.997, 1.003),
        lowest_note=55,
        attack_s=0.15,
        vibrato_cents=20.0,
    ),
    "flute": Timbre(
        harmonics=(1.0, 0.3, 0.1, 0.03),
        lowest_note=67,
        attack_s=0.05,
        vibrato_cents=30.0,
        breath=0.2,
    ),
    "bass": Timbre(
        harmonics=(1.0, 0.6, 0.3, 0.15), lowest_note=28, attack_s=0.005, decay_per_s=1.0
    ),
}
# All are names of tags of MagnaTagATune.
INSTRUMENTS = (*_TIMBRES, "drums")


def play(
    rng: np.random.Generator, instrument: str, *, tempo_bpm: float, key: int, n_samples: int
) -> Waveform:
    """Play one part of a clip.

    Parameters
    ----------
    rng : np.random.Generator
        Source of the notes and of small differences in timbre.
    instrument : str
        One of ``INSTRUMENTS``.
    tempo_bpm : float
        Beats per minute.
    key : int
        Semitones by which all notes are raised, from 0 to 11.
    n_samples : int
        Length of the part, at 16 kHz.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        The part, with an RMS of 1.
    """
    beat_s = 60.0 / tempo_bpm
    beat, since_s = np.divmod(np.arange(n_samples) / SAMPLE_RATE, beat_s)
    if instrument == "drums":
        wave = _drums(rng, beat, since_s=since_s, beat_s=beat_s)
    else:
        steps = rng.choice(_SCALE, size=int(beat[-1]) + 1)
        midi = _TIMBRES[instrument].lowest_note + key + steps[beat.astype(np.intp)]
        hz = 440.0 * 2.0 ** ((midi - 69) / 12)
        wave = _tones(rng, _TIMBRES[instrument], hz=hz, since_s=since_s, beat_s=beat_s)
    return wave / float(np.sqrt(np.mean(wave**2)))


def _tones(
    rng: np.random.Generator, timbre: Timbre, *, hz: Waveform, since_s: Waveform, beat_s: float
) -> Waveform:
    """Play a pitch at each sample, given the time since its note began."""
    n = hz.size
    wave = np.zeros(n)
    depth = timbre.vibrato_cents / 1200 * np.log(2) / (2 * np.pi * _VIBRATO_HZ)
    sway_s = depth * np.sin(2 * np.pi * _VIBRATO_HZ * np.arange(n) / SAMPLE_RATE)
    decay = timbre.decay_per_s * rng.uniform(0.7, 1.4)
    for ratio in timbre.ratios:
        # Powers of this oscillation are its harmonics; the polynomial adds them up.
        tone = np.exp((2j * np.pi * ratio * hz) * (since_s + sway_s) - decay * since_s)
        # Those above half the sample rate would sound at other frequencies.
        n_harmonics = int(0.48 * SAMPLE_RATE / (ratio * hz.max()))
        levels = np.array(timbre.harmonics[:n_harmonics])
        levels *= rng.uniform(0.6, 1.4, levels.size)
        wave += np.polyval([*levels[::-1], 0.0], tone).imag
    if timbre.breath:
        wave += timbre.breath * rng.standard_normal(n)
    attack = np.minimum(since_s / timbre.attack_s, 1.0)
    return wave * attack * np.minimum((beat_s - since_s) / _RELEASE_S, 1.0)


def _drums(
    rng: np.random.Generator, beat: Waveform, *, since_s: Waveform, beat_s: float
) -> Waveform:
    """Play a bass drum and a snare drum on alternate beats, and a hi-hat twice a beat."""
    noise = rng.standard_normal(beat.size)
    # The head is struck at a higher pitch, which falls within 30 ms.
    turns = rng.uniform(45, 65) * since_s + 5.0 * (1.0 - np.exp(-since_s / 0.03))
    kick = np.sin(2 * np.pi * turns) * np.exp(-since_s / rng.uniform(0.06, 0.12))
    snare = 0.5 * noise * np.exp(-since_s / rng.uniform(0.04, 0.08))
    # Differences leave the high end of the noise.
    hat = rng.uniform(0.1, 0.3) * np.diff(noise, prepend=0.0)
    hat *= np.exp(-np.mod(since_s, beat_s / 2) / 0.03)
    return np.where(beat % 2 == 0, kick, snare) + hat
