"""Promises of the front end: VGGish's log-mel patches, and nothing else than those."""

from __future__ import annotations

import warnings
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import RATE, noise, sine, sweep

from preprocess import log_mel_patches
from preprocess.signal.features import FRONT_ENDS, ShortClipWarning
from preprocess.signal.features.vggish import VggishFrontEnd, hz_to_mel, mel_matrix
from preprocess.signal.patches import n_windows
from tagger.base.errors import AudioError, ConfigError

BAND = {"n_bands": 64, "n_bins": 257, "sample_rate": RATE, "min_hz": 125.0, "max_hz": 7500.0}


def front_end(**params):
    return FRONT_ENDS.create("vggish", params)


def log_mel_by_definition(waveform):
    """Return the log-mel spectrogram in float64, frame by frame, straight from the paper's text."""
    mel = [1127 * np.log(1 + hz / 700) for hz in np.arange(257) * RATE / 512]
    edges = np.linspace(1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700), 66)
    window = np.array([0.5 - 0.5 * np.cos(2 * np.pi * n / 400) for n in range(400)])
    weights = np.zeros((257, 64))
    for band in range(64):
        lower, center, upper = edges[band : band + 3]
        for number in range(1, 257):
            slopes = (
                (mel[number] - lower) / (center - lower),
                (upper - mel[number]) / (upper - center),
            )
            weights[number, band] = max(0.0, min(slopes))
    rows = []
    for start in range(0, len(waveform) - 399, 160):
        frame = np.zeros(512)
        frame[:400] = np.asarray(waveform[start : start + 400], dtype=np.float64) * window
        rows.append(np.log(np.abs(np.fft.rfft(frame)) @ weights + 0.01))
    return np.array(rows)


def test_a_kilohertz_sine_gives_the_published_statistics():
    patches = log_mel_patches(sine(1000, 3), RATE)
    assert patches.shape == (3, 96, 64)
    assert patches.dtype == np.float32
    found = [patches.mean(), patches.std(), patches.min(), patches.max()]
    np.testing.assert_allclose(found, [-3.429619, 2.126577, -4.601163, 4.811118], atol=1e-4)
    assert patches.mean(axis=(0, 1)).argmax() == 19


@pytest.mark.parametrize(
    "waveform",
    [
        pytest.param(noise(1.3), id="noise"),
        pytest.param(noise(1.3, amplitude=1e-4), id="faint noise"),
        pytest.param(sweep(50, 7900, 1.3), id="sweep"),
        pytest.param(sine(7990, 1.3), id="tone above the bands"),
        pytest.param(np.zeros(20000, np.float32), id="silence"),
        pytest.param(np.eye(1, 20000, 10000, dtype=np.float32)[0], id="click"),
    ],
)
def test_the_spectrogram_is_the_one_of_the_definition(waveform):
    found = front_end().log_mel(waveform)
    wanted = log_mel_by_definition(waveform)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4)


def test_librosas_spectrum_of_the_padded_audio_gives_the_same_spectrogram():
    import librosa

    # librosa puts the 400-sample window in the middle of 512, 56 samples late; 56 more samples at
    # each side undo that and bring the last frame back.
    waveform = noise(2) + sweep(100, 7000, 2)
    stft = librosa.stft(
        np.pad(waveform.astype(np.float64), 56),
        n_fft=512,
        hop_length=160,
        win_length=400,
        window="hann",
        center=False,
    )
    wanted = np.log(np.abs(stft).T @ mel_matrix(**BAND) + 0.01)
    found = front_end().log_mel(waveform)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_librosas_own_mel_matrix_is_another_one():
    import librosa

    theirs = librosa.filters.mel(
        sr=RATE, n_fft=512, n_mels=64, fmin=125, fmax=7500, htk=True, norm=None
    ).T
    assert np.abs(theirs - mel_matrix(**BAND)).max() > 1e-3


def test_the_mel_matrix_gives_nothing_to_dc():
    lowest = mel_matrix(**{**BAND, "min_hz": 0.0})
    assert (lowest[0] == 0).all()
    assert (lowest[1] > 0).any()


def test_the_triangles_are_linear_in_mel_and_not_in_hz():
    # On a fine grid the middle of a rising side in mel weighs one half.
    fine = {**BAND, "n_bins": 80001}
    matrix = mel_matrix(**fine)
    bins_hz = np.linspace(0, RATE / 2, fine["n_bins"])
    edges = np.linspace(hz_to_mel(125.0), hz_to_mel(7500.0), 66)
    for band in (0, 30, 63):
        middle = (edges[band] + edges[band + 1]) / 2
        middle_hz = 700 * np.expm1(middle / 1127)
        assert np.interp(middle_hz, bins_hz, matrix[:, band]) == pytest.approx(0.5, abs=1e-4)
        ends_hz = 700 * np.expm1(edges[band : band + 2] / 1127)
        assert np.interp(ends_hz.mean(), bins_hz, matrix[:, band]) > 0.501


def test_neighbouring_triangles_add_up_to_one():
    matrix = mel_matrix(**BAND)
    edges = np.linspace(hz_to_mel(125.0), hz_to_mel(7500.0), 66)
    bins = hz_to_mel(np.linspace(0, RATE / 2, 257))
    inside = (bins >= edges[1]) & (bins <= edges[-2])
    np.testing.assert_allclose(matrix[inside].sum(axis=1), 1.0, atol=1e-12)


def test_silence_gives_the_logarithm_of_the_offset():
    patches = log_mel_patches(np.zeros(2 * RATE, np.float32), RATE)
    np.testing.assert_array_equal(patches, np.full((2, 96, 64), np.log(np.float32(0.01))))


@pytest.mark.parametrize("hop_frames", [1, 24, 48, 96, 130])
def test_the_hop_gives_patches_that_are_slices_of_the_spectrogram(hop_frames):
    waveform = noise(4)
    spectrogram = front_end().log_mel(waveform)
    patches = log_mel_patches(waveform, RATE, hop_seconds=hop_frames / 100)
    assert len(patches) == 1 + (len(spectrogram) - 96) // hop_frames
    for number, one in enumerate(patches):
        start = number * hop_frames
        np.testing.assert_array_equal(one, spectrogram[start : start + 96])


def test_window_starts_are_the_hop_apart():
    np.testing.assert_allclose(front_end(hop_seconds=0.24).window_starts(3), [0, 0.24, 0.48])


@pytest.mark.parametrize("n_samples", [1, 399, 400, 8000, 15599])
def test_a_short_clip_is_one_patch_padded_with_zeros_and_a_warning(n_samples):
    waveform = noise(1)[:n_samples]
    with pytest.warns(ShortClipWarning, match="padded with zeros"):
        patches = log_mel_patches(waveform, RATE)
    spectrogram = front_end().log_mel(waveform)
    assert patches.shape == (1, 96, 64)
    np.testing.assert_array_equal(patches[0, : len(spectrogram)], spectrogram)
    assert (patches[0, len(spectrogram) :] == 0).all()


def test_the_shortest_clip_that_fills_a_patch_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert log_mel_patches(noise(1)[:15600], RATE).shape == (1, 96, 64)


def test_a_partial_patch_is_dropped_unless_it_is_asked_for():
    waveform = noise(1.5)
    assert len(front_end().windows(waveform)["log_mel"]) == 1
    patches = front_end(keep_partial=True).windows(waveform)["log_mel"]
    spectrogram = front_end().log_mel(waveform)
    rest = len(spectrogram) - 96
    assert patches.shape == (2, 96, 64)
    np.testing.assert_array_equal(patches[1, :rest], spectrogram[96:])
    assert (patches[1, rest:] == 0).all()


def test_stereo_is_averaged():
    left, right = noise(1.5, seed=1), sine(700, 1.5)
    both = log_mel_patches(np.stack([left, right], axis=1), RATE)
    np.testing.assert_allclose(both, log_mel_patches((left + right) / 2, RATE), atol=1e-3)


def test_channels_in_opposite_phase_are_not_silence():
    one = sine(700, 1.5)
    patches = log_mel_patches(np.stack([one, -one], axis=1), RATE)
    np.testing.assert_array_equal(patches, log_mel_patches(one, RATE))


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 96000])
def test_other_sample_rates_are_resampled(rate):
    found = log_mel_patches(np.stack([sine(1000, 3, rate=rate, amplitude=0.5)] * 2, axis=1), rate)
    wanted = log_mel_patches(sine(1000, 3, amplitude=0.5), RATE)
    assert found.shape == wanted.shape
    # Away from the ends, where a resampler has nothing to go by, and in the bands of the tone.
    np.testing.assert_allclose(found[1, :, 17:22], wanted[1, :, 17:22], atol=0.02)
    assert np.abs(found[1] - wanted[1]).mean() < 0.02


@pytest.mark.parametrize("hop_seconds", [0.965, 0.001, 0, -0.96, np.nan, np.inf])
def test_a_hop_that_is_no_multiple_of_the_frame_hop_is_refused(hop_seconds):
    with pytest.raises(ConfigError, match="hop_seconds"):
        log_mel_patches(noise(1), RATE, hop_seconds=hop_seconds)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_hz": 8001}, "sample_rate / 2"),
        ({"min_hz": 7500}, "min_hz < max_hz"),
        ({"frame_seconds": 1e-5}, "shorter than a sample"),
        ({"n_bands": 0}, "n_bands"),
        ({"frame_seconds": np.inf}, "frame_seconds"),
        ({"fft": 512}, "fft: unknown key"),
    ],
)
def test_an_impossible_parameter_is_refused_by_name(params, message):
    with pytest.raises(ConfigError, match=message):
        front_end(**params)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(0, np.float32), RATE, "no samples"),
        (np.zeros((0, 2), np.float32), RATE, "no samples"),
        (np.zeros((9, 0), np.float32), RATE, "without channels"),
        (np.zeros((9, 2, 2), np.float32), RATE, "shape"),
        (np.array([0, np.nan], np.float32), RATE, "NaN"),
        (np.array([[0, np.inf]], np.float32), RATE, "infinite"),
        (np.zeros(99, np.int16), RATE, "int16"),
        (np.zeros(99, np.float32), 0, "sample rate 0"),
        (np.zeros(99, np.float32), 1, "sample rate 1 "),
    ],
)
def test_a_waveform_that_is_none_is_refused(samples, rate, message):
    with pytest.raises(AudioError, match=message):
        log_mel_patches(samples, rate)


def test_a_very_loud_waveform_is_still_finite():
    patches = front_end().windows(sine(1000, 1, amplitude=1e25).astype(np.float32))["log_mel"]
    assert np.isfinite(patches).all()


def test_golden_values_of_a_sweep(golden):
    patches = log_mel_patches(sweep(60, 7800, 2.2), RATE)
    assert patches.shape == (2, 96, 64)
    values = {
        "mean of each band": patches.mean(axis=(0, 1)),
        "mean of every eighth frame": patches.mean(axis=2)[:, ::8],
        "one frame": patches[1, 40],
    }
    golden("front_end_sweep", values, atol=2e-4)


OTHER_VALUES = {
    "sample_rate": 22050,
    "frame_seconds": 0.032,
    "frame_hop_seconds": 0.016,
    "n_bands": 96,
    "min_hz": 50.0,
    "max_hz": 7000.0,
    "log_offset": 0.001,
    "patch_frames": 64,
    "hop_seconds": 0.48,
    "keep_partial": True,
}


def test_the_spec_hash_changes_with_every_parameter():
    assert OTHER_VALUES.keys() == front_end().spec()["params"].keys()
    hashes = {front_end(**{name: value}).spec_hash() for name, value in OTHER_VALUES.items()}
    assert len(hashes | {front_end().spec_hash()}) == len(OTHER_VALUES) + 1


def test_the_spec_hash_changes_with_the_version(monkeypatch):
    before = front_end().spec_hash()
    monkeypatch.setattr(VggishFrontEnd, "version", VggishFrontEnd.version + 1)
    assert front_end().spec_hash() != before


def test_the_spec_hash_does_not_depend_on_how_a_default_is_given():
    assert front_end(hop_seconds=0.96, min_hz=125).spec_hash() == front_end().spec_hash()


@pytest.mark.parametrize("n_frames", [255, 256, 257, 511, 512, 513, 800])
def test_computing_in_chunks_changes_nothing(n_frames):
    waveform = noise(9)[: 400 + 160 * (n_frames - 1)]
    in_chunks = front_end().log_mel(waveform)
    assert len(in_chunks) == n_frames
    with patch("preprocess.signal.features._frames.CHUNK_FRAMES", 10**4):
        at_once = front_end().log_mel(waveform)
    np.testing.assert_allclose(in_chunks, at_once, rtol=0, atol=1e-5)


def test_a_frame_does_not_depend_on_what_comes_after_it():
    waveform = noise(4)
    whole = front_end().log_mel(waveform)
    part = front_end().log_mel(waveform[: 2 * RATE])
    np.testing.assert_allclose(part, whole[: len(part)], rtol=0, atol=1e-5)


# Lengths around the first frame, the first patch, and the end of the first and second chunk.
BORDERS = [400, 15600, 400 + 160 * 191, 400 + 160 * 255, 400 + 160 * 256, 400 + 160 * 511]
LENGTHS = st.one_of(
    st.builds(lambda border, off: border + off, st.sampled_from(BORDERS), st.integers(-1, 1)),
    st.integers(1, 100_000),
)
LONG_NOISE = noise(7)


def streamed(made, blocks):
    """Windows of a stream, of which nothing may warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chunks = [windows["log_mel"] for windows in made.stream(blocks)]
    assert all(len(chunk) for chunk in chunks)
    return np.concatenate(chunks)


def in_one_piece(made, waveform):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShortClipWarning)
        return made.windows(waveform)["log_mel"]


@settings(max_examples=80, deadline=None)
@given(
    n_samples=LENGTHS,
    cuts=st.lists(st.integers(0, 100_000), max_size=12),
    hop_frames=st.sampled_from([1, 48, 96, 130, 300]),
    keep_partial=st.booleans(),
)
def test_a_stream_gives_bit_for_bit_what_one_piece_gives(n_samples, cuts, hop_frames, keep_partial):
    made = front_end(hop_seconds=hop_frames / 100, keep_partial=keep_partial)
    waveform = LONG_NOISE[:n_samples]
    blocks = np.split(waveform, sorted(cuts))
    np.testing.assert_array_equal(streamed(made, blocks), in_one_piece(made, waveform))


@pytest.mark.parametrize("size", [1, 7, 160, 400, 4096, 40960, 41200])
def test_blocks_of_any_size_give_the_same_windows(size):
    made = front_end(hop_seconds=0.24)
    waveform = LONG_NOISE[:90_000]
    blocks = (waveform[start : start + size] for start in range(0, len(waveform), size))
    np.testing.assert_array_equal(streamed(made, blocks), in_one_piece(made, waveform))


@settings(max_examples=30, deadline=None)
@given(n_samples=LENGTHS, params=st.sampled_from([{}, {"patch_frames": 3}, {"keep_partial": True}]))
def test_a_waveform_is_short_where_one_piece_warns(n_samples, params):
    made = front_end(**params)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.windows(LONG_NOISE[:n_samples])
    assert made.is_short(min(n_samples, len(LONG_NOISE))) == bool(caught)


def test_frames_that_lie_apart_are_streamed_too():
    made = front_end(frame_seconds=0.01, frame_hop_seconds=0.016, hop_seconds=0.96)
    waveform = noise(9)
    blocks = np.split(waveform, [1, 65_500, 65_600])
    np.testing.assert_array_equal(streamed(made, blocks), in_one_piece(made, waveform))


@pytest.mark.parametrize("params", [{}, OTHER_VALUES, {"n_bands": 128, "patch_frames": 10}])
def test_the_shape_of_a_window_is_the_one_that_is_announced(params):
    made = front_end(**params)
    windows = made.windows(noise(3, rate=made.sample_rate))
    assert {name: array.shape[1:] for name, array in windows.items()} == made.input_shapes
    assert all(array.dtype == np.float32 for array in windows.values())


@settings(max_examples=60, deadline=None)
@given(n_samples=st.integers(1, 60000), hop_frames=st.integers(1, 150), keep_partial=st.booleans())
def test_the_number_of_patches_follows_from_the_number_of_samples(
    n_samples, hop_frames, keep_partial
):
    made = front_end(hop_seconds=hop_frames / 100, keep_partial=keep_partial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShortClipWarning)
        patches = made.windows(np.zeros(n_samples, np.float32))["log_mel"]
    n_frames = max(0, (n_samples - 400) // 160 + 1)
    wanted = n_windows(n_frames, window_frames=96, hop_frames=hop_frames, keep_partial=keep_partial)
    assert len(patches) == wanted
    if not keep_partial:
        assert wanted == max(1, (n_frames - 96) // hop_frames + 1)


def test_the_real_clip_gives_finite_patches(shared):
    import soundfile as sf

    path = next((shared / "magnatagatune" / "reference").glob("*.mp3"))
    samples, rate = sf.read(path, dtype="float32")
    patches = log_mel_patches(samples, rate)
    assert patches.shape == (30, 96, 64)
    assert np.isfinite(patches).all()
    np.testing.assert_allclose(
        patches, log_mel_by_definition(samples)[: 30 * 96].reshape(30, 96, 64), atol=2e-4
    )
