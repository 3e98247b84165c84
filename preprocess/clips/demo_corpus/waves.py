"""What the synthesised instruments are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import signal

Waveform = np.ndarray[Any, np.dtype[np.float64]]


def n_samples(sample_rate: int, duration_s: float) -> int:
    """Count the samples of so many seconds: at least one."""
    return max(round(sample_rate * duration_s), 1)


def ramped(wave: Waveform, sample_rate: int, attack_s: float, release_s: float) -> Waveform:
    """Return the waveform with raised-cosine ends, which keep notes free of clicks."""
    for seconds, at_end in ((attack_s, False), (release_s, True)):
        n = min(n_samples(sample_rate, seconds), wave.size)
        ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / n)
        if at_end:
            wave[wave.size - n :] *= ramp[::-1]
        else:
            wave[:n] *= ramp
    return wave


def band_noise(
    rng: np.random.Generator, sample_rate: int, *, n: int, low_hz: float, high_hz: float
) -> Waveform:
    """Draw noise between two frequencies."""
    high_hz = min(high_hz, 0.48 * sample_rate)
    sos = signal.butter(4, (low_hz, high_hz), btype="bandpass", fs=sample_rate, output="sos")
    return np.asarray(signal.sosfilt(sos, rng.standard_normal(n)), dtype=np.float64)


def slow_curve(
    rng: np.random.Generator, sample_rate: int, *, n: int, points_per_s: float
) -> Waveform:
    """Return a smooth random curve in [-1, 1]."""
    n_points = int(np.ceil(n / sample_rate * points_per_s)) + 3
    phase = (np.arange(n) / sample_rate + rng.uniform(0, 1 / points_per_s)) * points_per_s
    return np.interp(phase, np.arange(n_points), rng.uniform(-1, 1, n_points))
