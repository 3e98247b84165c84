"""Promises of the front ends of mel bands in dB: librosa's numbers, streamed or in one piece."""

import warnings

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import noise, sine, sweep

from preprocess.signal.features import FRONT_ENDS, ShortClipWarning
from preprocess.signal.features.librosa import TABLE
from tagger.base.errors import ConfigError

RATE = 22050
MUSIC = (
    sum(sine(f, 30, rate=RATE, amplitude=0.1) for f in (220, 277, 330))
    + sweep(100, 4000, 30, rate=RATE, amplitude=0.1)
    + noise(30, rate=RATE, amplitude=0.01)
)
SMALL = {"seconds": 0.5, "frames": 20, "hop": 512, "bands": 16}


def front_end(name="mel_clip", **params):
    return FRONT_ENDS.create(name, params)


def by_plain_calls(y, *, hop=1024, frames=640):
    librosa = pytest.importorskip("librosa")
    with warnings.catch_warnings():
        # It warns of waveforms shorter than a frame.
        warnings.simplefilter("ignore")
        mel = librosa.feature.melspectrogram(y=y, sr=RATE, n_fft=2048, hop_length=hop, n_mels=128)
    decibels = librosa.power_to_db(mel, ref=np.max).T[:frames]
    return np.pad(decibels, ((0, frames - len(decibels)), (0, 0)), constant_values=-80)


def in_one_piece(made, waveform):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShortClipWarning)
        return made.windows(waveform)


@pytest.mark.parametrize(
    "waveform",
    [
        pytest.param(MUSIC, id="music"),
        pytest.param(noise(30, rate=RATE), id="noise"),
        pytest.param(noise(30, rate=RATE, amplitude=1e-6), id="faint noise"),
        pytest.param(sine(1000, 30, rate=RATE), id="sine"),
        pytest.param(np.eye(1, 30 * RATE, 5000, dtype=np.float32)[0], id="click"),
        pytest.param(np.zeros(30 * RATE, np.float32), id="silence"),
        pytest.param(noise(3, rate=RATE), id="short"),
        pytest.param(np.ones(1, np.float32), id="one sample"),
    ],
)
def test_a_clip_has_the_decibels_of_librosa(waveform):
    (found,) = in_one_piece(front_end(), waveform)["mel"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_plain_calls(waveform), rtol=0, atol=1e-3)


def test_it_does_not_need_librosa_or_scipy():
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['librosa'] = sys.modules['scipy'] = None\n"
        "import numpy as np; from preprocess.signal.features import FRONT_ENDS\n"
        "for name in ('mel_clip', 'mel_picture'):\n"
        "    made = FRONT_ENDS.create(name, {})\n"
        "    print(next(iter(made.stream([np.ones(700000, np.float32)]))).keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["dict_keys(['mel'])", "dict_keys(['picture'])"]


@pytest.mark.parametrize(
    ("seconds", "n_windows"),
    [(0.1, 1), (29.4, 1), (29.98, 1), (30.0, 1), (59.4, 1), (59.97, 2), (60.4, 2), (95.0, 3)],
)
def test_a_window_is_a_stretch_of_30_seconds_or_half_a_second_less(seconds, n_windows):
    made = front_end(hop=20480, frames=32, n_fft=512)
    assert len(in_one_piece(made, np.ones(round(seconds * RATE), np.float32))["mel"]) == n_windows
    assert made.window_seconds == made.hop_seconds == 30


def test_each_stretch_is_measured_by_itself():
    waveform = np.concatenate([MUSIC, noise(30, rate=RATE), np.ones(100, np.float32)])
    found = front_end().windows(waveform)["mel"]
    assert len(found) == 2
    for number in range(2):
        alone = front_end().windows(waveform[number * 30 * RATE : (number + 1) * 30 * RATE])["mel"]
        np.testing.assert_array_equal(found[number], alone[0])


@pytest.mark.parametrize("waveform", [noise(30, rate=RATE), noise(3, rate=RATE)])
def test_a_normalised_window_has_mean_0_and_deviation_1_also_where_it_is_padded(waveform):
    (found,) = in_one_piece(front_end(normalise="clip"), waveform)["mel"]
    (plain,) = in_one_piece(front_end(), waveform)["mel"]
    np.testing.assert_allclose(found, (plain - plain.mean()) / plain.std(), atol=1e-4)
    assert found.mean(dtype=float) == pytest.approx(0, abs=1e-5)
    assert found.std(dtype=float) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("normalise", ["none", "clip"])
def test_silence_and_what_is_very_loud_give_finite_values(normalise):
    made = front_end(normalise=normalise)
    for waveform in (np.zeros(30 * RATE, np.float32), sine(1000, 30, rate=RATE, amplitude=1e37)):
        assert np.isfinite(made.windows(waveform)["mel"]).all()
    assert not made.windows(np.zeros(30 * RATE, np.float32))["mel"].any()


@pytest.mark.parametrize("name", ["mel_clip", "mel_segments", "mel_picture"])
def test_a_clip_that_is_too_short_is_told(name):
    if name == "mel_segments":
        pytest.importorskip("librosa")
    made, waveform = front_end(name), noise(1, rate=RATE)
    assert made.is_short(RATE) and not made.is_short(30 * RATE)
    with pytest.warns(ShortClipWarning, match=r"clip of 1\.000 s does not fill .* padded with"):
        windows = made.windows(waveform)
    assert {key: value.shape[1:] for key, value in windows.items()} == made.input_shapes


def test_frames_that_no_clip_fills_are_refused():
    with pytest.raises(ConfigError, match=r"frames=640, but 3 s at sample_rate and hop give 130"):
        front_end(seconds=3, hop=512)
    with pytest.raises(ConfigError, match="frames=131, but segment_samples give 130"):
        front_end("mel_segments", frames=131)


LENGTHS = st.one_of(
    st.builds(
        lambda border, off: border + off,
        st.sampled_from([5512, 11025, 16537, 22050, 33075]),
        st.integers(-2, 2),
    ),
    st.integers(1, 40_000),
)


@settings(max_examples=60, deadline=None)
@given(
    n_samples=LENGTHS,
    cuts=st.lists(st.integers(0, 40_000), max_size=8),
    name=st.sampled_from(["mel_clip", "mel_picture"]),
)
def test_a_stream_gives_bit_for_bit_what_one_piece_gives(n_samples, cuts, name):
    made = front_end(name, **(SMALL if name == "mel_clip" else {"seconds": 0.5, "height": 20}))
    waveform = MUSIC[:n_samples]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        streamed = list(made.stream(np.split(waveform, sorted(cuts))))
    (key,) = made.input_shapes
    whole = in_one_piece(made, waveform)[key]
    np.testing.assert_array_equal(np.concatenate([one[key] for one in streamed]), whole)


def test_a_stream_keeps_no_more_than_one_stretch():
    made = front_end(**SMALL)
    given_blocks = 0

    def blocks():
        nonlocal given_blocks
        for _ in range(100):
            given_blocks += 1
            yield np.ones(RATE // 4, np.float32)

    stream = made.stream(blocks())
    for number in range(1, 10):
        next(stream)
        assert given_blocks <= 2 * number + 1


def test_a_segment_has_a_spectrogram_and_55_values_of_the_table():
    pytest.importorskip("librosa")
    made, length = front_end("mel_segments"), 66149
    assert made.input_shapes == {"mel": (130, 128), "values": (55,)}
    assert made.needs_float32 and made.window_seconds == pytest.approx(3, abs=1e-3)
    waveform = MUSIC[: 2 * length + 60_000]
    found = made.windows(waveform)
    assert len(found["mel"]) == 2
    names = [name for name in TABLE if "bandwidth" not in name]
    for number in range(2):
        segment = waveform[number * length : (number + 1) * length]
        np.testing.assert_allclose(
            found["mel"][number], by_plain_calls(segment, hop=512, frames=130), rtol=0, atol=1e-3
        )
        row = dict(zip(TABLE, front_end("librosa").windows(segment)["features"][0], strict=True))
        assert found["values"][number].tolist() == [row[name] for name in names]
    blocks = np.split(waveform, [5, 60_000, 140_000])
    for whole, part in zip(
        found.values(), zip(*map(dict.values, made.stream(blocks)), strict=True), strict=True
    ):
        np.testing.assert_array_equal(whole, np.concatenate(part))


def test_clips_of_fma_are_stored_as_spectrograms(tmp_path, command):
    from preprocess.store.store import Store

    (tmp_path / "fma_metadata").mkdir()
    lines = [",set,set,track,artist,album", ",split,subset,genre_top,id,id", "track_id,,,,,"]
    parts = [("2", "training", "Rock"), ("5", "validation", "Folk"), ("7", "test", "Rock")]
    lines += [f"{number},{part},small,{genre},1,1" for number, part, genre in parts]
    (tmp_path / "fma_metadata/tracks.csv").write_text("\n".join(lines) + "\n")
    folder = tmp_path / "fma_small/000"
    folder.mkdir(parents=True)
    for number, seconds in ((2, 29.98), (5, 30), (7, 2)):
        clip = noise(seconds, rate=44100, seed=number)
        sf.write(folder / f"{number:06d}.mp3", np.stack([clip, clip], axis=1), 44100)
    settings = ["data.name=fma", f"data.root={tmp_path}", "front_end.name=mel_clip"]
    settings += [f"store.root={tmp_path / 'store'}", "store.workers=1"]
    assert command("preprocess", *[part for one in settings for part in ("--set", one)])[0] == 0
    store = Store(tmp_path / "store")
    assert [(clip.n_windows, clip.padded) for clip in store.clips] == [
        (1, False),
        (1, False),
        (1, True),
    ]
    windows = store.read(2)["mel"]
    assert windows.shape == (1, 640, 128) and (windows[0, 60:] == -80).all()
