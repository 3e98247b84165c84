"""Synthesised drums."""

from __future__ import annotations

import numpy as np

from preprocess.clips.demo_corpus.waves import Waveform, band_noise, n_samples, ramped


def kick_drum(rng: np.random.Generator, sample_rate: int, *, duration_s: float = 0.35) -> Waveform:
    """Hit a bass drum: a falling sine with a click of the beater.

    Parameters
    ----------
    rng : np.random.Generator
        Source of tuning, decay and click.
    sample_rate : int
        Samples per second.
    duration_s : float
        Length in seconds.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        The stroke.
    """
    t = np.arange(n_samples(sample_rate, duration_s)) / sample_rate
    f = rng.uniform(45, 65) + rng.uniform(90, 220) * np.exp(-t / rng.uniform(0.015, 0.035))
    body = np.sin(2 * np.pi * np.cumsum(f) / sample_rate) * np.exp(-t / rng.uniform(0.06, 0.13))
    click = rng.uniform(0.2, 0.6) * rng.standard_normal(t.size) * np.exp(-t / 0.004)
    return ramped(1.5 * body + click, sample_rate, 0.0003, 0.03)


def snare_drum(rng: np.random.Generator, sample_rate: int, *, duration_s: float = 0.3) -> Waveform:
    """Hit a snare drum: two modes of the head and the rattle of the wires.

    Parameters
    ----------
    rng : np.random.Generator
        Source of tuning, decay and noise.
    sample_rate : int
        Samples per second.
    duration_s : float
        Length in seconds.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        The stroke.
    """
    t = np.arange(n_samples(sample_rate, duration_s)) / sample_rate
    f = rng.uniform(160, 230)
    head = np.sin(2 * np.pi * f * t) + 0.6 * np.sin(2 * np.pi * 1.59 * f * t)
    wires = band_noise(rng, sample_rate, n=t.size, low_hz=rng.uniform(900, 1800), high_hz=7600.0)
    wires *= np.exp(-t / rng.uniform(0.04, 0.1)) / (wires.std() + 1e-9)
    return ramped(
        0.6 * head * np.exp(-t / 0.05) + rng.uniform(0.5, 0.9) * wires, sample_rate, 0.0003, 0.03
    )


def hi_hat(
    rng: np.random.Generator, sample_rate: int, *, duration_s: float = 0.25, decay_s: float = 0.03
) -> Waveform:
    """Hit a hi-hat: high-passed noise with a short decay.

    Parameters
    ----------
    rng : np.random.Generator
        Source of colour and noise.
    sample_rate : int
        Samples per second.
    duration_s : float
        Length in seconds.
    decay_s : float
        Time constant in seconds: about 0.03 closed, 0.15 open.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        The stroke.
    """
    t = np.arange(n_samples(sample_rate, duration_s)) / sample_rate
    noise = band_noise(rng, sample_rate, n=t.size, low_hz=rng.uniform(4500, 5800), high_hz=7700.0)
    return ramped(
        0.7 * noise / (noise.std() + 1e-9) * np.exp(-t / decay_s), sample_rate, 0.0003, 0.02
    )
