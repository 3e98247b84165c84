"""Synthesis of single sounds: one function per instrument.

All functions take a random generator (the source of timbre and articulation) and the sample
rate in Hz, and return a mono waveform of float64 samples at an arbitrary but moderate level;
the caller sets the loudness of each part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import signal

from preprocess.clips.demo_corpus.waves import Waveform, band_noise, n_samples, ramped, slow_curve

# Mean formant frequencies F1-F3 in Hz of American English vowels, men and women, from
# Peterson & Barney (1952), "Control methods used in a study of the vowels", table II.
# F4 is not in that table; one value per register is added for the upper spectrum.
FORMANTS_HZ: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "male": {
        "ah": (730.0, 1090.0, 2440.0, 3400.0),
        "eh": (530.0, 1840.0, 2480.0, 3400.0),
        "ee": (270.0, 2290.0, 3010.0, 3700.0),
        "aw": (570.0, 840.0, 2410.0, 3400.0),
        "oo": (300.0, 870.0, 2240.0, 3400.0),
    },
    "female": {
        "ah": (850.0, 1220.0, 2810.0, 4100.0),
        "eh": (610.0, 2330.0, 2990.0, 4100.0),
        "ee": (310.0, 2790.0, 3310.0, 4300.0),
        "aw": (590.0, 920.0, 2710.0, 4100.0),
        "oo": (370.0, 950.0, 2670.0, 4100.0),
    },
}
_BANDWIDTHS_HZ = (70.0, 90.0, 140.0, 220.0)

# Mode ratios of a bar free at both ends and of a tuned tubular bell relative to its strike
# note (Fletcher & Rossing 1998, "The Physics of Musical Instruments", chapters 2 and 19).
_FREE_BAR_RATIOS = (1.0, 2.756, 5.404, 8.933)
_TUBULAR_RATIOS = (0.5, 1.0, 1.53, 2.0, 2.61, 3.27, 4.07)

# Pitches of the nine drawbars of a tonewheel organ relative to the 8' stop.
_DRAWBAR_RATIOS = (0.5, 1.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)


def pluck_string(
    rng: np.random.Generator,
    sample_rate: int,
    *,
    frequency_hz: float,
    duration_s: float,
    brightness: float = 0.5,
    pick_position: float = 0.2,
    decay_s: float = 2.5,
) -> Waveform:
    """Pluck one string.

    The delay-line model of Karplus & Strong (1983), with the fractional tuning, pick position
    and decay control of Jaffe & Smith (1983).

    Parameters
    ----------
    rng : np.random.Generator
        Source of the noise burst that excites the string.
    sample_rate : int
        Samples per second.
    frequency_hz : float
        Fundamental frequency in Hz.
    duration_s : float
        Length of the note in seconds.
    brightness : float
        From 0 (felt-like) to 1 (steel-like).
    pick_position : float
        Place of the pick as a fraction of the string.
    decay_s : float
        Time in seconds in which the fundamental falls by 60 dB.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        The note.
    """
    n = n_samples(sample_rate, duration_s)
    lowpass = 0.5 - 0.4 * brightness
    loop_samples = sample_rate / frequency_hz - lowpass
    whole = int(loop_samples)
    fraction = loop_samples - whole
    gain = 10.0 ** (-3.0 / (frequency_hz * decay_s))
    taps = np.convolve((1.0 - lowpass, lowpass), (1.0 - fraction, fraction))
    feedback = np.zeros(whole + 3)
    feedback[0] = 1.0
    feedback[whole : whole + 3] -= gain * taps

    burst = np.zeros(n)
    period = min(whole, n)
    noise = rng.standard_normal(period)
    softness = 0.75 * (1.0 - brightness)
    noise = signal.lfilter((1.0 - softness,), (1.0, -softness), noise)
    burst[:period] = noise - noise.mean()
    shift = max(round(pick_position * period), 1)
    picked = burst.copy()
    picked[shift:] -= burst[:-shift] if shift < n else 0.0
    wave = np.asarray(signal.lfilter((1.0,), feedback, picked), dtype=np.float64)
    wave /= np.sqrt(np.mean(picked[: 2 * period] ** 2)) + 1e-9
    return ramped(wave, sample_rate, 0.0005, 0.03)


def strike_bar(
    rng: np.random.Generator,
    sample_rate: int,
    *,
    frequency_hz: float,
    duration_s: float,
    tubular: bool = False,
    hardness: float = 0.5,
    decay_s: float = 2.0,
) -> Waveform:
    """Strike a metal bar or tubular bell.

    Parameters
    ----------
    rng : np.random.Generator
        Source of the strike place (the weights of the modes).
    sample_rate : int
        Samples per second.
    frequency_hz : float
        Frequency of the nominal mode in Hz.
    duration_s : float
        Length of the note in seconds.
    tubular : bool
        Whether the modes are those of a tubular bell rather than a free bar.
    hardness : float
        Hardness of the mallet, 0 to 1; a hard one excites the high modes.
    decay_s : float
        Time in seconds in which the nominal mode falls by 60 dB.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        The note, a sum of decaying inharmonic partials.
    """
    n = n_samples(sample_rate, duration_s)
    t = np.arange(n) / sample_rate
    wave = np.zeros(n)
    for ratio in _TUBULAR_RATIOS if tubular else _FREE_BAR_RATIOS:
        f = frequency_hz * ratio * (1.0 + 0.003 * rng.standard_normal())
        if f >= 0.47 * sample_rate:
            continue
        weight = rng.uniform(0.4, 1.0) * max(ratio, 1.0) ** (-1.4 + 1.2 * hardness)
        rate = 6.9 / decay_s * max(ratio, 1.0) ** 0.8
        wave += weight * np.exp(-rate * t) * np.sin(2 * np.pi * f * t + rng.uniform(0, 6.28))
    n_click = min(n, n_samples(sample_rate, 0.008))
    wave[:n_click] += 0.4 * hardness * rng.standard_normal(n_click) * np.linspace(1, 0, n_click)
    return ramped(wave, sample_rate, 0.001, 0.03)


def organ_chord(
    rng: np.random.Generator,
    sample_rate: int,
    *,
    frequencies_hz: Sequence[float],
    duration_s: float,
    drawbars: Sequence[int] = (0, 0, 8, 8, 6, 4, 0, 0, 2),
    tremulant_hz: float = 0.0,
) -> Waveform:
    """Hold a chord on an additive drawbar organ.

    Parameters
    ----------
    rng : np.random.Generator
        Source of the phases and of the key click.
    sample_rate : int
        Samples per second.
    frequencies_hz : sequence of float
        Fundamental frequency in Hz of each key.
    duration_s : float
        Length of the chord in seconds.
    drawbars : sequence of int
        Nine settings from 0 (off) to 8; each step is 3 dB.
    tremulant_hz : float
        Rate of the tremulant in Hz; 0 for none.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        The chord.
    """
    n = n_samples(sample_rate, duration_s)
    t = np.arange(n) / sample_rate
    if tremulant_hz > 0.0:
        sway = np.sin(2 * np.pi * tremulant_hz * t)
        # A phase deviation in seconds, so that all partials share one relative vibrato.
        t_swayed = t + 0.003 / (2 * np.pi * tremulant_hz) * sway
        loudness = 1.0 + 0.12 * sway
    else:
        t_swayed, loudness = t, np.ones(n)
    wave = np.zeros(n)
    for key_hz in frequencies_hz:
        for ratio, level in zip(_DRAWBAR_RATIOS, drawbars, strict=True):
            f = key_hz * ratio
            if level > 0 and f < 0.45 * sample_rate:
                phase = rng.uniform(0, 2 * np.pi)
                wave += 10 ** (-0.15 * (8 - level)) * np.sin(2 * np.pi * f * t_swayed + phase)
    wave *= loudness
    n_click = min(n, n_samples(sample_rate, 0.006))
    wave[:n_click] += 0.3 * rng.standard_normal(n_click)
    return ramped(wave, sample_rate, 0.006, 0.02)


def flute_note(
    rng: np.random.Generator,
    sample_rate: int,
    *,
    frequency_hz: float,
    duration_s: float,
    breath: float = 0.1,
    vibrato_hz: float = 5.0,
    vibrato_cents: float = 15.0,
    overtones: float = 0.35,
) -> Waveform:
    """Blow one note on a flute.

    Parameters
    ----------
    rng : np.random.Generator
        Source of the breath noise.
    sample_rate : int
        Samples per second.
    frequency_hz : float
        Fundamental frequency in Hz.
    duration_s : float
        Length of the note in seconds.
    breath : float
        Level of the breath noise relative to the fundamental.
    vibrato_hz : float
        Rate of the vibrato in Hz.
    vibrato_cents : float
        Depth of the vibrato in cents.
    overtones : float
        Amplitude ratio of one harmonic to the one below it.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        The note.
    """
    n = n_samples(sample_rate, duration_s)
    t = np.arange(n) / sample_rate
    # Players let the vibrato grow after the onset.
    depth = np.minimum(t / 0.3, 1.0)
    sway = depth * np.sin(2 * np.pi * vibrato_hz * t + rng.uniform(0, 6.28))
    f = frequency_hz * 2.0 ** (vibrato_cents / 1200.0 * sway)
    phase = 2 * np.pi * np.cumsum(f) / sample_rate
    wave = np.zeros(n)
    for h in range(1, 7):
        if h * frequency_hz < 0.46 * sample_rate:
            wave += overtones ** (h - 1) * rng.uniform(0.7, 1.3) * np.sin(h * phase)
    wave *= 1.0 + 0.15 * sway
    noise = band_noise(
        rng, sample_rate, n=n, low_hz=0.8 * frequency_hz, high_hz=max(4.0 * frequency_hz, 5000.0)
    )
    chiff = 1.0 + 3.0 * np.exp(-t / 0.03)
    wave += breath * chiff * noise / (noise.std() + 1e-9)
    return ramped(wave, sample_rate, 0.045, 0.05)


def bass_note(
    rng: np.random.Generator,
    sample_rate: int,
    *,
    frequency_hz: float,
    duration_s: float,
    triangle: bool = False,
    cutoff_hz: float = 600.0,
    decay_s: float = 2.0,
) -> Waveform:
    """Play one note on a subtractive bass synthesiser.

    Parameters
    ----------
    rng : np.random.Generator
        Source of the detuning of the second oscillator.
    sample_rate : int
        Samples per second.
    frequency_hz : float
        Fundamental frequency in Hz.
    duration_s : float
        Length of the note in seconds.
    triangle : bool
        Whether the oscillators give a triangle rather than a saw.
    cutoff_hz : float
        Corner of the low-pass filter in Hz.
    decay_s : float
        Time constant of the amplitude in seconds; infinite for a held note.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        The note.
    """
    t = np.arange(n_samples(sample_rate, duration_s)) / sample_rate
    # Not quite symmetric, because a pure triangle has hardly any power above 125 Hz.
    width = 0.8 if triangle else 1.0
    wave = np.zeros(t.size)
    for detune in (0.0, rng.uniform(0.0005, 0.003)):
        phase = 2 * np.pi * (frequency_hz * (1.0 + detune) * t + rng.uniform())
        wave += signal.sawtooth(phase, width)
    sos = signal.butter(3, cutoff_hz, fs=sample_rate, output="sos")
    wave = np.asarray(signal.sosfilt(sos, wave), dtype=np.float64) * np.exp(-t / decay_s)
    return ramped(wave, sample_rate, 0.006, 0.025)


def sing(
    rng: np.random.Generator,
    sample_rate: int,
    *,
    frequencies_hz: Sequence[float],
    durations_s: Sequence[float],
    register: str = "female",
    vowels: Sequence[str] | None = None,
    vibrato_hz: float = 5.5,
    vibrato_cents: float = 35.0,
    breath: float = 0.02,
) -> Waveform:
    """Sing a legato phrase, one vowel per note.

    Pulses after Rosenberg (1971) pass through a cascade of formant resonators after Klatt
    (1980), tuned to the vowels of Peterson & Barney (1952).

    Parameters
    ----------
    rng : np.random.Generator
        Source of vowels, jitter and breath noise.
    sample_rate : int
        Samples per second.
    frequencies_hz : sequence of float
        Fundamental frequency in Hz of each note.
    durations_s : sequence of float
        Length in seconds of each note.
    register : {'male', 'female'}
        Whose formants to use.
    vowels : sequence of str, optional
        One key of ``FORMANTS_HZ[register]`` per note; drawn at random by default.
    vibrato_hz : float
        Rate of the vibrato in Hz.
    vibrato_cents : float
        Depth of the vibrato in cents.
    breath : float
        Level of the breath noise relative to the pulses.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        The phrase.
    """
    formants = FORMANTS_HZ[register]
    if vowels is None:
        vowels = [str(v) for v in rng.choice(list(formants), size=len(frequencies_hz))]
    ends = np.round(np.cumsum(durations_s) * sample_rate).astype(np.int64)
    n = max(int(ends[-1]), 1)
    t = np.arange(n) / sample_rate
    note = np.minimum(np.searchsorted(ends, np.arange(n), side="right"), len(ends) - 1)

    # A 25 ms slide between the notes, filtered backwards and forwards to stay in time.
    slide = np.exp(-1.0 / (0.0125 * sample_rate))
    octaves = np.log2(np.asarray(frequencies_hz, dtype=np.float64))[note]
    octaves = signal.filtfilt((1.0 - slide,), (1.0, -slide), octaves, padlen=min(n - 1, 100))
    sway = vibrato_cents * np.sin(2 * np.pi * vibrato_hz * t + rng.uniform(0, 6.28))
    jitter = 6.0 * slow_curve(rng, sample_rate, n=n, points_per_s=30.0)
    f = 2.0 ** (octaves + (sway + jitter) / 1200.0)
    cycle = np.mod(np.cumsum(f) / sample_rate, 1.0)
    pulse = _glottal_pulse(cycle)
    # The lips radiate the derivative of the flow; its size must not depend on the pitch.
    source = np.diff(pulse, prepend=0.0) * sample_rate / f
    source += breath * source.std() * rng.standard_normal(n)

    glide = np.exp(-1.0 / (0.02 * sample_rate))
    wave = np.zeros(n)
    chosen = np.asarray(vowels)[note]
    for vowel in sorted(set(vowels)):
        filtered = source
        for centre_hz, width_hz in zip(formants[vowel], _BANDWIDTHS_HZ, strict=True):
            c = -np.exp(-2 * np.pi * width_hz / sample_rate)
            b = 2 * np.exp(-np.pi * width_hz / sample_rate)
            b *= np.cos(2 * np.pi * centre_hz / sample_rate)
            filtered = signal.lfilter((1.0 - b - c,), (1.0, -b, -c), filtered)
        weight = signal.lfilter((1.0 - glide,), (1.0, -glide), (chosen == vowel).astype(np.float64))
        wave += weight * filtered / (np.std(filtered) + 1e-9)
    # A dip of a few dB at each note, as of a consonant, tells repeated notes apart.
    since = np.arange(n) - np.concatenate(([0], ends[:-1]))[note]
    wave *= 0.45 + 0.55 * np.minimum(since / (0.06 * sample_rate), 1.0)
    return ramped(wave, sample_rate, 0.04, 0.06)


def _glottal_pulse(cycle: Waveform, *, rise: float = 0.4, fall: float = 0.16) -> Waveform:
    """Flow through the glottis at each place in its cycle, from 0 to 1."""
    return np.where(
        cycle < rise,
        0.5 - 0.5 * np.cos(np.pi * cycle / rise),
        np.where(cycle < rise + fall, np.cos(0.5 * np.pi * (cycle - rise) / fall), 0.0),
    )


def blow_wind(
    rng: np.random.Generator,
    sample_rate: int,
    *,
    duration_s: float,
    low_hz: float = 300.0,
    high_hz: float = 3000.0,
    gust_db: float = 5.0,
) -> Waveform:
    """Let the wind blow: band-limited noise with slow gusts.

    Parameters
    ----------
    rng : np.random.Generator
        Source of the noise and of the gusts.
    sample_rate : int
        Samples per second.
    duration_s : float
        Length in seconds.
    low_hz, high_hz : float
        Edges of the band in Hz.
    gust_db : float
        Largest rise and fall of the level in dB.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        The noise, spectrally flat within its band.
    """
    n = n_samples(sample_rate, duration_s)
    noise = band_noise(rng, sample_rate, n=n, low_hz=low_hz, high_hz=high_hz)
    level_db = gust_db * slow_curve(rng, sample_rate, n=n, points_per_s=1.2)
    return ramped(noise * 10.0 ** (level_db / 20.0), sample_rate, 0.05, 0.05)
