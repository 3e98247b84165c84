"""Promises of musicnn's front end: librosa's numbers without librosa, streamed or in one piece."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import RATE, noise, sine, sweep

from preprocess.signal.features import FRONT_ENDS, ShortClipWarning
from preprocess.signal.features.musicnn import hz_to_mel, mel_matrix, mel_to_hz
from tagger.base.errors import ConfigError

BANDS = {"n_bands": 96, "n_bins": 257, "sample_rate": RATE, "min_hz": 0.0, "max_hz": 8000.0}
LONG_NOISE = noise(9)
# Samples from which 187 frames can be made.
FULL = 186 * 256


def front_end(**params):
    return FRONT_ENDS.create("musicnn", params)


def log_mel_of_librosa(waveform):
    import librosa

    with warnings.catch_warnings():
        # It warns of waveforms shorter than a frame.
        warnings.simplefilter("ignore")
        mel = librosa.feature.melspectrogram(
            y=waveform, sr=RATE, n_fft=512, hop_length=256, n_mels=96, pad_mode="reflect"
        )
    return np.log10(10000 * mel.T + 1)


def in_one_piece(made, waveform):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShortClipWarning)
        return made.windows(waveform)["log_mel"]


def streamed(made, blocks):
    """Windows of a stream, of which nothing may warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chunks = [windows["log_mel"] for windows in made.stream(blocks)]
    assert all(len(chunk) for chunk in chunks)
    return np.concatenate(chunks)


@pytest.mark.parametrize(
    "waveform",
    [
        pytest.param(noise(4), id="noise"),
        pytest.param(noise(4, amplitude=1e-4), id="faint noise"),
        pytest.param(sine(1000, 4), id="sine"),
        pytest.param(sweep(20, 7990, 4), id="sweep"),
        pytest.param(np.zeros(50000, np.float32), id="silence"),
        pytest.param(np.eye(1, 50000, 10000, dtype=np.float32)[0], id="click"),
    ],
)
def test_the_spectrogram_is_the_one_of_librosa(waveform):
    found, wanted = front_end().log_mel(waveform), log_mel_of_librosa(waveform)
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def test_the_spectrogram_of_a_real_clip_is_the_one_of_librosa(shared):
    from preprocess.signal.audio import load_audio

    path = next((shared / "magnatagatune" / "reference").glob("*.mp3"))
    waveform = load_audio(path, target_rate=RATE)
    found = front_end().log_mel(waveform)
    np.testing.assert_allclose(found, log_mel_of_librosa(waveform), rtol=0, atol=1e-4)


@pytest.mark.parametrize("n_samples", [1, 2, 3, 100, 255, 256, 257, 511, 512, 513])
def test_a_waveform_too_short_to_mirror_is_mirrored_again_as_by_librosa(n_samples):
    waveform = noise(1)[:n_samples]
    found, wanted = front_end().log_mel(waveform), log_mel_of_librosa(waveform)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def test_the_mel_matrix_is_slaneys():
    import librosa

    wanted = librosa.filters.mel(sr=RATE, n_fft=512, n_mels=96).T
    np.testing.assert_allclose(mel_matrix(**BANDS), wanted, rtol=0, atol=1e-8)


def test_the_mel_scale_is_linear_below_a_kilohertz_and_logarithmic_above():
    np.testing.assert_allclose(hz_to_mel([0, 200, 1000, 6400]), [0, 3, 15, 42])


@given(st.floats(0, 20000))
def test_the_mel_scale_can_be_undone(hz):
    assert mel_to_hz(hz_to_mel(hz)) == pytest.approx(hz, abs=1e-6)


def test_every_triangle_has_an_area_of_one():
    fine = mel_matrix(**{**BANDS, "n_bins": 80001})
    np.testing.assert_allclose(fine.sum(axis=0) * 0.1, 1, atol=1e-4)


def test_silence_gives_zeros():
    assert not in_one_piece(front_end(), np.zeros(4 * RATE, np.float32)).any()


def test_a_window_is_of_the_published_size():
    made = front_end()
    assert made.input_shapes == {"log_mel": (187, 96)}
    assert made.sample_rate == 16000
    assert made.window_seconds == made.hop_seconds == pytest.approx(2.992)
    np.testing.assert_allclose(front_end(hop_frames=93).window_starts(3), [0, 1.488, 2.976])


@pytest.mark.parametrize("hop_frames", [1, 93, 187, 250])
def test_windows_are_slices_of_the_spectrogram(hop_frames):
    made = front_end(hop_frames=hop_frames)
    spectrogram = made.log_mel(LONG_NOISE)
    windows = in_one_piece(made, LONG_NOISE)
    assert len(windows) == 1 + (len(spectrogram) - 187) // hop_frames
    for number, window in enumerate(windows):
        start = number * hop_frames
        np.testing.assert_array_equal(window, spectrogram[start : start + 187])


@pytest.mark.parametrize("n_samples", [1, 100, 16000, FULL - 1])
def test_a_short_clip_is_repeated_until_it_fills_a_window(n_samples):
    made, waveform = front_end(), LONG_NOISE[:n_samples]
    assert made.is_short(n_samples)
    with pytest.warns(ShortClipWarning, match="repeated to one"):
        windows = made.windows(waveform)["log_mel"]
    wanted = np.resize(made.log_mel(waveform), (1, 187, 96))
    np.testing.assert_array_equal(windows, wanted)


def test_the_shortest_clip_that_fills_a_window_gives_no_warning():
    assert not front_end().is_short(FULL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert front_end().windows(LONG_NOISE[:FULL])["log_mel"].shape == (1, 187, 96)


def test_a_partial_window_is_dropped_unless_it_is_asked_for():
    waveform = LONG_NOISE[: 4 * RATE]
    spectrogram = front_end().log_mel(waveform)
    windows = in_one_piece(front_end(keep_partial=True), waveform)
    rest = len(spectrogram) - 187
    assert len(in_one_piece(front_end(), waveform)) == 1
    assert len(windows) == 2
    np.testing.assert_array_equal(windows[1, :rest], spectrogram[187:])
    assert not windows[1, rest:].any()


# Around the sizes where mirroring, a window, or a chunk of frames begins.
BORDERS = [256, 512, FULL, 373 * 256, 255 * 256, 256 * 256, 511 * 256]
LENGTHS = st.one_of(
    st.builds(lambda border, off: border + off, st.sampled_from(BORDERS), st.integers(-1, 1)),
    st.integers(1, 140_000),
)


@settings(max_examples=80, deadline=None)
@given(
    n_samples=LENGTHS,
    cuts=st.lists(st.one_of(st.integers(0, 600), st.integers(0, 140_000)), max_size=12),
    hop_frames=st.sampled_from([1, 93, 187, 250]),
    keep_partial=st.booleans(),
)
def test_a_stream_gives_bit_for_bit_what_one_piece_gives(n_samples, cuts, hop_frames, keep_partial):
    made = front_end(hop_frames=hop_frames, keep_partial=keep_partial)
    waveform = LONG_NOISE[:n_samples]
    blocks = np.split(waveform, sorted(cuts))
    np.testing.assert_array_equal(streamed(made, blocks), in_one_piece(made, waveform))


@pytest.mark.parametrize("size", [1, 7, 256, 257, 4096, 65536, 66048])
def test_blocks_of_any_size_give_the_same_windows(size):
    made = front_end(hop_frames=93)
    waveform = LONG_NOISE[:140_000]
    blocks = (waveform[start : start + size] for start in range(0, len(waveform), size))
    np.testing.assert_array_equal(streamed(made, blocks), in_one_piece(made, waveform))


@pytest.mark.parametrize("amplitude", [1e18, 1e25, 1e37])
def test_a_very_loud_waveform_is_still_finite(amplitude):
    made = front_end()
    assert np.isfinite(streamed(made, [sine(1000, 4, amplitude=amplitude)])).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_hz": 8001}, "sample_rate / 2"),
        ({"min_hz": 8000}, "min_hz < max_hz"),
        ({"n_fft": 1}, "n_fft"),
        ({"hop_frames": 0}, "hop_frames"),
        ({"log_scale": np.inf}, "log_scale"),
        ({"fft": 512}, "fft: unknown key"),
    ],
)
def test_an_impossible_parameter_is_refused_by_name(params, message):
    with pytest.raises(ConfigError, match=message):
        front_end(**params)


OTHER_VALUES = {
    "sample_rate": 22050,
    "n_fft": 1001,
    "hop_samples": 400,
    "n_bands": 64,
    "min_hz": 50.0,
    "max_hz": 7000.0,
    "log_scale": 1000.0,
    "window_frames": 100,
    "hop_frames": 50,
    "keep_partial": True,
}


def test_the_spec_hash_changes_with_every_parameter():
    assert OTHER_VALUES.keys() == front_end().spec()["params"].keys()
    hashes = {front_end(**{name: value}).spec_hash() for name, value in OTHER_VALUES.items()}
    assert len(hashes | {front_end().spec_hash()}) == len(OTHER_VALUES) + 1


def test_the_shape_of_a_window_is_the_one_that_is_announced():
    made = front_end(**OTHER_VALUES)
    windows = in_one_piece(made, noise(5, rate=22050))
    assert windows.shape[1:] == made.input_shapes["log_mel"]
    assert len(made.log_mel(noise(1)[:999])) == made._n_frames(999)


def test_neither_librosa_nor_scipy_is_imported():
    code = (
        "import sys, numpy; from preprocess.signal.features import FRONT_ENDS\n"
        "for name in ('musicnn', 'vggish'):\n"
        "    FRONT_ENDS.create(name, {}).windows(numpy.zeros(60000, numpy.float32))\n"
        "assert not {'librosa', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
