"""Promises of the front end `librosa`: its values are those of plain calls of librosa."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
from scipy.stats import kurtosis, skew
from signals import noise, sine, sweep

from preprocess.signal.features import FRONT_ENDS
from preprocess.store.store import Store
from tagger.base.errors import ConfigError
from tagger.config import load_config

librosa = pytest.importorskip("librosa")

RATE = 22050


def front_end(**params):
    return FRONT_ENDS.create("librosa", params)


@pytest.fixture(scope="module")
def music():
    """Clicks twice a second on a chord that moves, in noise."""
    seconds = 6
    chord = sum(sine(f, seconds, rate=RATE, amplitude=0.1) for f in (220, 277, 330))
    clicks = np.zeros(seconds * RATE, np.float32)
    clicks[:: RATE // 2] = 0.8
    moving = sweep(100, 4000, seconds, rate=RATE, amplitude=0.1)
    return chord + clicks + moving + noise(seconds, rate=RATE, amplitude=0.01)


def table_by_plain_calls(y, sr=RATE):
    """The 57 values as the makers of the table call librosa."""
    feature = librosa.feature
    harmonic, percussive = librosa.effects.hpss(y)
    series = {
        "chroma_stft": feature.chroma_stft(y=y, sr=sr),
        "rms": feature.rms(y=y),
        "spectral_centroid": feature.spectral_centroid(y=y, sr=sr),
        "spectral_bandwidth": feature.spectral_bandwidth(y=y, sr=sr),
        "rolloff": feature.spectral_rolloff(y=y, sr=sr),
        "zero_crossing_rate": feature.zero_crossing_rate(y),
        "harmony": harmonic,
        "perceptr": percussive,
    }
    tempo, _ = librosa.beat.beat_track(y=y, sr=sr)
    series |= {f"mfcc{n}": v for n, v in enumerate(feature.mfcc(y=y, sr=sr), start=1)}
    row = {"tempo": float(np.atleast_1d(tempo)[0])}
    for name, values in series.items():
        row |= {f"{name}_mean": np.mean(values), f"{name}_var": np.var(values)}
    return row


def assert_close(found, names, wanted):
    for value, name in zip(found, names, strict=True):
        assert value == pytest.approx(wanted[name], rel=1e-5, abs=1e-5), name


def test_the_table_has_the_values_of_plain_calls(music):
    made = front_end()
    (row,) = made.windows(music)["features"]
    assert row.dtype == np.float32
    assert_close(row, made.feature_names, table_by_plain_calls(music))


def test_the_table_has_the_columns_of_the_one_that_others_use(shared):
    header = (shared / "gtzan/features_30_sec.csv").open().readline().strip().split(",")
    assert front_end().feature_names == tuple(header[2:-1])
    assert len(header[2:-1]) == 57


def test_statistics_are_those_of_plain_calls(music):
    made = front_end(values="statistics")
    (row,) = made.windows(music)["features"]
    assert len(row) == 8 * 6 + 1
    onsets = librosa.onset.onset_strength(y=music, sr=RATE)
    series = {
        "centroid": librosa.feature.spectral_centroid(y=music, sr=RATE),
        "flatness": librosa.feature.spectral_flatness(y=music),
        "contrast": librosa.feature.spectral_contrast(y=music, sr=RATE),
        "flux": onsets,
    }
    known = dict(zip(made.feature_names, row, strict=True))
    for name, values in series.items():
        flat = np.asarray(values, np.float64).ravel()
        statistics = {
            "max": flat.max(),
            "min": flat.min(),
            "mean": flat.mean(),
            "std": flat.std(),
            "kurtosis": kurtosis(flat),
            "skew": skew(flat),
        }
        for what, value in statistics.items():
            assert known[f"{name}_{what}"] == pytest.approx(value, rel=2e-5, abs=1e-5), name


def test_each_segment_is_described_by_itself(music):
    made = front_end(segment_seconds=2)
    rows = made.windows(music[: 5 * RATE])["features"]
    assert rows.shape == (2, 57)
    for number in range(2):
        alone = front_end().windows(music[2 * number * RATE : 2 * (number + 1) * RATE])
        np.testing.assert_array_equal(rows[number], alone["features"][0])
    assert made.window_starts(2).tolist() == [0, 2]


@pytest.mark.parametrize("values", ["table", "statistics"])
@pytest.mark.parametrize("samples", [np.zeros(RATE, np.float32), np.ones(300, np.float32)])
def test_silence_and_the_shortest_clips_give_finite_values(values, samples):
    found = front_end(values=values).windows(samples)["features"]
    assert np.isfinite(found).all()


def test_values_are_kept_in_float32(tmp_path, command):
    music = tmp_path / "music"
    for label in ("a", "b"):
        (music / label).mkdir(parents=True)
        for number in range(2):
            sf.write(music / label / f"{number}.wav", noise(1, rate=RATE, seed=number), RATE)
    sf.write(music / "a" / "1.wav", noise(1, rate=RATE, seed=9), RATE)
    sf.write(music / "b" / "1.wav", noise(1, rate=RATE, seed=8), RATE)
    sf.write(music / "b" / "0.wav", noise(1, rate=RATE, seed=7), RATE)
    settings = ["data.name=folders", f"data.root={music}", "front_end.name=librosa"]
    settings += [f"store.root={tmp_path / 'store'}", "store.workers=1"]
    with pytest.raises(ConfigError, match=r"store\.dtype: float16 cannot hold .*float32"):
        load_config(None, settings)
    options = [part for one in [*settings, "store.dtype=float32"] for part in ("--set", one)]
    assert command("preprocess", *options)[0] == 0
    stored = Store(tmp_path / "store").read(0)["features"]
    assert stored.dtype == np.float32 and stored.shape == (1, 57)


def test_processes_that_begin_at_once_compile_one_after_the_other(tmp_path):
    code = (
        "import numpy as np; from preprocess.signal.features import FRONT_ENDS\n"
        "front_end = FRONT_ENDS.create('librosa', {})\n"
        "print(front_end.windows(np.ones(9000, np.float32))['features'].shape)\n"
    )
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(tmp_path / "numba"),
        "TAGGER_CACHE": str(tmp_path / "cache"),
    }
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert said == [b"(1, 57)\n"] * 2
    assert (tmp_path / "cache" / "librosa.lock").exists()
