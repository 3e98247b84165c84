"""Synthesised audio."""

import numpy as np

RATE = 16000


def sine(frequency_hz, seconds, *, rate=RATE, amplitude=1.0):
    t = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency_hz * t)).astype(np.float32)


def noise(seconds, *, rate=RATE, seed=0, amplitude=0.3):
    rng = np.random.default_rng(seed)
    return (amplitude * rng.standard_normal(round(seconds * rate))).astype(np.float32)


def sweep(low_hz, high_hz, seconds, *, rate=RATE, amplitude=0.8):
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (low_hz * t + (high_hz - low_hz) * t**2 / (2 * seconds))
    return (amplitude * np.sin(phase)).astype(np.float32)
