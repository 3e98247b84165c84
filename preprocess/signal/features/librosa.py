"""Values of librosa: one row of named numbers for each clip, or for each segment of it.

The 57 values of ``table`` are those of the table that most projects on GTZAN use (Olteanu, "GTZAN
Dataset", Kaggle 2020), with its names and in its order. ``statistics`` are those of the comparison
report. librosa decides all numbers; here its calls share one spectrogram, and medians are taken row
by row, which gives the same ten times as fast.
"""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from preprocess.signal.features import FrontEnd, Windows
from tagger.base.cache import cache_folder
from tagger.base.files import one_at_a_time
from tagger.base.registry import Params

_N_FFT, _HOP = 2048, 512
_N_MFCC = 20
# Deviation, as a share of the mean, below which values differ by rounding alone.
_CONSTANT = 1e-7
# Frames and bands over which `librosa.decompose.hpss` takes its medians.
_KERNEL = 31
_SERIES = (
    "chroma_stft",
    "rms",
    "spectral_centroid",
    "spectral_bandwidth",
    "rolloff",
    "zero_crossing_rate",
    "harmony",
    "perceptr",
)
TABLE = (
    *(f"{name}_{moment}" for name in _SERIES for moment in ("mean", "var")),
    "tempo",
    *(f"mfcc{n}_{moment}" for n in range(1, _N_MFCC + 1) for moment in ("mean", "var")),
)
_DESCRIBED = (
    "centroid",
    "bandwidth",
    "rolloff",
    "contrast",
    "flatness",
    "zero_crossing_rate",
    "rms",
    "flux",
)
_STATISTICS = ("max", "min", "mean", "std", "kurtosis", "skew")
STATISTICS = (*(f"{name}_{what}" for name in _DESCRIBED for what in _STATISTICS), "tempo")

Floats = npt.NDArray[np.floating]


class LibrosaParams(Params):
    """Which values, of what."""

    values: Annotated[
        Literal["table", "statistics"], Field(description="57 means and variances, or 49 values")
    ] = "table"
    segment_seconds: Annotated[
        float | None, Field(gt=0, description="a row for each so long segment; null: for each clip")
    ] = None
    sample_rate: Annotated[int, Field(ge=8000, le=96000)] = 22050


class Librosa(FrontEnd):
    """Rows of values that librosa computes; what is left behind the last whole segment is not used.

    They span too many orders of magnitude for float16.
    """

    Params = LibrosaParams
    params: LibrosaParams
    needs_float32: ClassVar[bool] = True

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the values of a row, in order."""
        return TABLE if self.params.values == "table" else STATISTICS

    @property
    def sample_rate(self) -> int:  # noqa: D102 (the contract documents it)
        return self.params.sample_rate

    @property
    def window_seconds(self) -> float | None:  # noqa: D102
        return self.params.segment_seconds

    @property
    def hop_seconds(self) -> float | None:  # noqa: D102
        return self.params.segment_seconds

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:  # noqa: D102
        return {"features": (len(self.feature_names),)}

    def is_short(self, n_samples: int) -> bool:  # noqa: D102
        return n_samples < max(_N_FFT, round((self.window_seconds or 0) * self.sample_rate))

    def windows(self, waveform: npt.NDArray[np.float32]) -> Windows:  # noqa: D102
        _compile()
        # librosa wants one whole frame.
        short = max(0, _N_FFT - len(waveform))
        waveform = np.pad(waveform, (0, short)) if short else waveform
        seconds = self.params.segment_seconds
        length = len(waveform)
        if seconds is not None:
            length = max(_N_FFT, round(seconds * self.sample_rate))
        n_segments = max(1, len(waveform) // length)
        segments = (waveform[n * length : (n + 1) * length] for n in range(n_segments))
        describe = _table_row if self.params.values == "table" else _statistics_row
        rows = [describe(segment, self.sample_rate) for segment in segments]
        names = self.feature_names
        # Of silence librosa gives no skew and no tempo.
        values = np.array([[row[name] for name in names] for row in rows], dtype=np.float32)
        return {"features": np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)}


@functools.cache
def _compile() -> None:
    """Compile what librosa compiles at first use, one process after the other.

    It keeps that in files, which several processes that write them at once leave damaged: whoever
    reads them then is ended by the system.
    """
    import librosa

    with one_at_a_time(cache_folder() / "librosa.lock"):
        some = np.sin(np.arange(4 * _N_FFT, dtype=np.float32) ** 1.5)
        rate = 22050
        librosa.feature.chroma_stft(y=some, sr=rate)
        librosa.feature.zero_crossing_rate(some)
        librosa.feature.spectral_contrast(y=some, sr=rate)
        librosa.feature.tempo(y=some, sr=rate)


class _Spectra:
    """What several of librosa's features are made of."""

    def __init__(self, samples: npt.NDArray[np.float32], rate: int) -> None:
        import librosa

        self.samples, self.rate = samples, rate
        # As librosa's own features are called: centred frames, zeros beyond the ends.
        self.complex = librosa.stft(samples, n_fft=_N_FFT, hop_length=_HOP)
        self.magnitude = np.abs(self.complex)
        self.power = self.magnitude**2
        mel = librosa.feature.melspectrogram(S=self.power, sr=rate)
        self.log_mel = librosa.power_to_db(mel)

    def centroid(self) -> Floats:
        import librosa

        return np.asarray(librosa.feature.spectral_centroid(S=self.magnitude, sr=self.rate))

    def bandwidth(self, centroid: Floats) -> Floats:
        import librosa

        return np.asarray(
            librosa.feature.spectral_bandwidth(S=self.magnitude, sr=self.rate, centroid=centroid)
        )

    def rolloff(self) -> Floats:
        import librosa

        return np.asarray(librosa.feature.spectral_rolloff(S=self.magnitude, sr=self.rate))

    def onsets(self) -> Floats:
        """Onset strength, which is the positive flux of the log-mel spectrogram."""
        from librosa.onset import onset_strength

        return np.asarray(onset_strength(S=self.log_mel, sr=self.rate))

    def tempo(self, onsets: Floats) -> float:
        import librosa

        if not onsets.any():
            return 0.0
        return float(librosa.feature.tempo(onset_envelope=onsets, sr=self.rate)[0])

    def harmonic_and_percussive(self) -> tuple[Floats, Floats]:
        """Waveforms of ``librosa.effects.hpss``."""
        import librosa

        magnitude, phase = librosa.magphase(self.complex)
        harmonic = _medians(magnitude)
        percussive = np.ascontiguousarray(_medians(np.ascontiguousarray(magnitude.T)).T)
        masks = (
            librosa.util.softmask(harmonic, percussive, power=2.0, split_zeros=True),
            librosa.util.softmask(percussive, harmonic, power=2.0, split_zeros=True),
        )
        first, second = (
            librosa.istft(
                (magnitude * mask) * phase, dtype=self.samples.dtype, length=len(self.samples)
            )
            for mask in masks
        )
        return np.asarray(first), np.asarray(second)


def _medians(rows: Floats) -> Floats:
    from scipy.ndimage import median_filter

    filtered = np.empty_like(rows)
    for number, row in enumerate(rows):
        filtered[number] = median_filter(row, size=_KERNEL, mode="reflect")
    return filtered


def _table_row(samples: npt.NDArray[np.float32], rate: int) -> Mapping[str, Any]:
    import librosa

    spectra = _Spectra(samples, rate)
    centroid = spectra.centroid()
    harmonic, percussive = spectra.harmonic_and_percussive()
    series = (
        # Silence has no tuning that could be estimated.
        librosa.feature.chroma_stft(
            S=spectra.power, sr=rate, tuning=None if samples.any() else 0.0
        ),
        librosa.feature.rms(y=samples),
        centroid,
        spectra.bandwidth(centroid),
        spectra.rolloff(),
        librosa.feature.zero_crossing_rate(samples),
        harmonic,
        percussive,
    )
    row = {"tempo": spectra.tempo(spectra.onsets())}
    coefficients = librosa.feature.mfcc(S=spectra.log_mel, n_mfcc=_N_MFCC)
    named = [
        *zip(_SERIES, series, strict=True),
        *((f"mfcc{n}", values) for n, values in enumerate(coefficients, start=1)),
    ]
    for name, values in named:
        row[f"{name}_mean"], row[f"{name}_var"] = np.mean(values), np.var(values)
    return row


def _statistics_row(samples: npt.NDArray[np.float32], rate: int) -> Mapping[str, Any]:
    import librosa

    spectra = _Spectra(samples, rate)
    centroid, onsets = spectra.centroid(), spectra.onsets()
    series = (
        centroid,
        spectra.bandwidth(centroid),
        spectra.rolloff(),
        librosa.feature.spectral_contrast(S=spectra.magnitude, sr=rate),
        librosa.feature.spectral_flatness(S=spectra.magnitude),
        librosa.feature.zero_crossing_rate(samples),
        librosa.feature.rms(y=samples),
        onsets,
    )
    row: dict[str, Any] = {"tempo": spectra.tempo(onsets)}
    for name, values in zip(_DESCRIBED, series, strict=True):
        found = _statistics(np.asarray(values, dtype=np.float64).ravel())
        row |= {f"{name}_{what}": v for what, v in zip(_STATISTICS, found, strict=True)}
    return row


def _statistics(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Values of `_STATISTICS`; of what never changes kurtosis and skew are 0."""
    mean, deviation = float(values.mean()), float(values.std())
    standardised = (values - mean) / deviation if deviation > _CONSTANT * abs(mean) else 0 * values
    kurtosis = float((standardised**4).mean()) - 3 if standardised.any() else 0.0
    skew = float((standardised**3).mean())
    return float(values.max()), float(values.min()), mean, deviation, kurtosis, skew


ENTRY = Librosa
