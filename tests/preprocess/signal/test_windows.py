"""Promises of the windows of a file: the same in blocks as in one piece, in constant memory."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from signals import RATE, noise

from preprocess.signal.audio import load_audio, prepare_waveform, stream_audio
from preprocess.signal.features import FRONT_ENDS, FrontEnd, ShortClipWarning
from preprocess.signal.windows import stream_windows, windows_of_file, windows_of_waveform
from tagger.base.errors import AudioError
from tagger.base.registry import Params

NAMES = ("vggish", "musicnn")


def front_end(name, **params):
    return FRONT_ENDS.create(name, params)


def write(path, samples, rate=RATE):
    sf.write(path, samples, rate)
    return path


def in_one_piece(made, waveform):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShortClipWarning)
        return made.windows(waveform)["log_mel"]


def streamed(path, made, **options):
    """Join the windows of a stream, of which nothing may warn."""
    stream = stream_windows(path, made, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chunks = [windows["log_mel"] for windows in stream]
    assert all(len(chunk) for chunk in chunks)
    return np.concatenate(chunks), stream


class Levels(FrontEnd):
    """Mean levels of tenths of a second; it computes in one piece only."""

    Params = Params
    sample_rate = 1000
    window_seconds = hop_seconds = 0.1
    input_shapes = {"level": ()}  # noqa: RUF012

    def windows(self, waveform):
        waveform = np.pad(waveform, (0, max(0, 100 - len(waveform))))
        parts = waveform[: len(waveform) // 100 * 100].reshape(-1, 100)
        return {"level": np.abs(parts).mean(axis=1)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_the_windows_of_a_file_in_blocks_are_those_in_one_piece(tmp_path, name, rate):
    made = front_end(name)
    # Longer than a block.
    path = write(tmp_path / "a.flac", np.stack([noise(70, rate=rate)] * 2, axis=1), rate)
    found, stream = streamed(path, made)
    waveform = load_audio(path, target_rate=RATE)
    np.testing.assert_array_equal(found, in_one_piece(made, waveform))
    assert stream.seconds == len(waveform) / RATE
    assert stream.offset_seconds == 0
    assert not stream.padded


@pytest.mark.parametrize("name", NAMES)
def test_a_file_a_waveform_and_a_stream_have_the_same_windows(tmp_path, name):
    made = front_end(name)
    path = write(tmp_path / "a.wav", noise(7, rate=22050), 22050)
    wanted, _ = streamed(path, made)
    of_file, padded = windows_of_file(path, made)
    of_waveform, _ = windows_of_waveform(load_audio(path, target_rate=RATE), made)
    assert not padded
    np.testing.assert_array_equal(of_file["log_mel"], wanted)
    np.testing.assert_array_equal(of_waveform["log_mel"], wanted)


@pytest.mark.parametrize("name", NAMES)
def test_a_real_clip_has_the_same_windows_in_blocks(shared, name):
    made = front_end(name)
    for path in sorted((shared / "scenes").glob("*/*.mp3"))[:3]:
        blocks = stream_audio(path, target_rate=RATE, block_seconds=2)
        found = np.concatenate([windows["log_mel"] for windows in made.stream(blocks)])
        wanted = in_one_piece(made, load_audio(path, target_rate=RATE))
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_samples", [1, 500, 8000])
def test_a_short_clip_is_one_padded_window_and_no_warning(tmp_path, name, n_samples):
    made = front_end(name)
    path = write(tmp_path / "a.wav", noise(1)[:n_samples])
    found, stream = streamed(path, made)
    assert len(found) == 1
    assert stream.padded
    assert stream.seconds == n_samples / RATE
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        windows, padded = windows_of_file(path, made)
    assert padded
    np.testing.assert_array_equal(windows["log_mel"], found)


@pytest.mark.parametrize("name", NAMES)
def test_the_middle_of_a_file_has_the_windows_of_that_slice(tmp_path, name):
    made = front_end(name)
    path = write(tmp_path / "a.wav", noise(20))
    found, stream = streamed(path, made, middle_seconds=8)
    waveform = load_audio(path, target_rate=RATE)[6 * RATE : 14 * RATE]
    np.testing.assert_array_equal(found, in_one_piece(made, waveform))
    assert (stream.offset_seconds, stream.seconds, stream.padded) == (6, 8, False)


def test_a_middle_shorter_than_a_window_is_padded(tmp_path):
    path = write(tmp_path / "a.wav", noise(20))
    found, stream = streamed(path, front_end("vggish"), middle_seconds=0.5)
    assert len(found) == 1
    assert stream.padded


def test_the_length_is_not_told_before_it_is_known(tmp_path):
    stream = stream_windows(write(tmp_path / "a.wav", noise(70)), front_end("vggish"))
    windows = iter(stream)
    next(windows)
    for name in ("seconds", "padded"):
        with pytest.raises(RuntimeError, match="only when all windows"):
            getattr(stream, name)
    assert sum(len(chunk["log_mel"]) for chunk in windows)
    assert stream.seconds == 70


def test_a_stream_can_be_read_again(tmp_path):
    stream = stream_windows(write(tmp_path / "a.wav", noise(70)), front_end("vggish"))
    first, second = list(stream), list(stream)
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one["log_mel"], other["log_mel"])


def test_a_front_end_that_computes_in_one_piece_is_streamed_too(tmp_path):
    made = Levels(Params())
    path = write(tmp_path / "a.wav", noise(90, rate=1000), 1000)
    chunks = [windows["level"] for windows in stream_windows(path, made)]
    assert [len(chunk) for chunk in chunks] == [256, 256, 256, 132]
    wanted = made.windows(load_audio(path, target_rate=1000))["level"]
    np.testing.assert_array_equal(np.concatenate(chunks), wanted)


@pytest.mark.parametrize(("n_samples", "short"), [(1, True), (99, True), (100, False)])
def test_a_front_end_finds_short_what_does_not_fill_a_window(n_samples, short):
    made = Levels(Params())
    windows, padded = windows_of_waveform(noise(1)[:n_samples], made)
    assert len(windows["level"]) == 1
    assert padded == made.is_short(n_samples) == short


def test_windows_before_the_damage_of_a_file_are_given_and_then_its_error(tmp_path):
    path = write(tmp_path / "a.flac", noise(200))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    n_windows = 0
    with pytest.raises(AudioError) as caught:
        for windows in stream_windows(path, front_end("vggish")):
            n_windows += len(windows["log_mel"])
    assert n_windows > 90
    assert str(caught.value).startswith(f"{path}: not decodable audio")


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(AudioError, match=r"a\.wav: no such file"):
        list(stream_windows(tmp_path / "a.wav", front_end("vggish")))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="lists open files as Linux does")
def test_a_stream_that_is_dropped_half_way_leaves_nothing_open(tmp_path):
    path = write(tmp_path / "a.wav", noise(100))

    def is_open():
        return any(
            link.exists() and link.samefile(path) for link in Path("/proc/self/fd").iterdir()
        )

    windows = iter(stream_windows(path, front_end("musicnn")))
    next(windows)
    assert is_open()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del windows
        gc.collect()
    assert not caught
    assert not is_open()


# Hours of audio.

LONG_RATE = 44100
LONG_SECONDS = 3 * 3600
# Reports the peak of its own memory: that of getrusage starts from its parent's.
LONG_PROGRAM = """
import json, re, sys
from pathlib import Path
import numpy as np
from preprocess.signal.features import FRONT_ENDS
from preprocess.signal.windows import stream_windows

path, name, chosen, out = sys.argv[1:]
chosen = set(json.loads(chosen))
stream = stream_windows(Path(path), FRONT_ENDS.create(name, {}))
n_windows, largest, kept = 0, 0, {}
for windows in stream:
    for number, window in enumerate(windows["log_mel"], n_windows):
        if number in chosen:
            kept[str(number)] = window.copy()
    n_windows += len(windows["log_mel"])
    largest = max(largest, len(windows["log_mel"]))
np.savez(out, **kept)
status = Path("/proc/self/status").read_text()
peak_kb = int(re.search(r"VmHWM:\\s*(\\d+)", status)[1])
report = {"n_windows": n_windows, "largest": largest, "seconds": stream.seconds, "peak_kb": peak_kb}
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    """A stereo file of three hours: noise around each end of a block of 30 s, silence elsewhere.

    The silence is a hole in the file, so that it takes little room on the disk.
    """
    path = tmp_path_factory.mktemp("long") / "long.wav"
    n_frames = LONG_SECONDS * LONG_RATE
    sf.write(path, np.zeros((1, 2), np.int16), LONG_RATE, subtype="PCM_16")
    header = bytearray(path.read_bytes()[:44])
    header[4:8] = (36 + 4 * n_frames).to_bytes(4, "little")
    header[40:44] = (4 * n_frames).to_bytes(4, "little")
    around = (8000 * noise(2 * 10, rate=LONG_RATE, amplitude=1)).reshape(-1, 2).astype("<i2")
    with path.open("wb") as file:
        file.write(header)
        for second in range(30, LONG_SECONDS, 30):
            file.seek(44 + 4 * (second - 5) * LONG_RATE)
            file.write(around.tobytes())
        file.truncate(44 + 4 * n_frames)
    yield path
    path.unlink()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory as Linux tells it")
@pytest.mark.parametrize(("name", "n_windows"), [("vggish", 11249), ("musicnn", 3609)])
@pytest.mark.campaign
def test_three_hours_of_audio_take_no_more_memory_than_minutes(
    tmp_path, long_file, name, n_windows
):
    made = front_end(name)
    # Windows before, at and after the ends of some blocks.
    around = {
        second: [int(second / made.hop_seconds) + step for step in (-1, 0, 1)]
        for second in (30, 60, 5400, LONG_SECONDS - 30)
    }
    chosen = [number for numbers in around.values() for number in numbers]
    run = subprocess.run(
        [sys.executable, "-c", LONG_PROGRAM, long_file, name, json.dumps(chosen), tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(run.stdout)
    assert report["peak_kb"] < 250_000
    assert report["n_windows"] == n_windows
    assert report["largest"] <= 256
    assert report["seconds"] == LONG_SECONDS
    found = np.load(tmp_path / "out.npz")
    for numbers in around.values():
        # A slice of the file that starts with a window before them: every fifth one of either front
        # end starts with a sample at both rates.
        first = (numbers[0] - 1) // 5 * 5
        start = round(first * made.hop_seconds * LONG_RATE)
        stop = round((numbers[-1] + 3) * made.hop_seconds * LONG_RATE)
        samples, _ = sf.read(long_file, start=start, stop=stop, dtype="float32")
        waveform = prepare_waveform(samples, LONG_RATE, target_rate=RATE)
        wanted = in_one_piece(made, waveform)
        for number in numbers:
            window = found[str(number)]
            np.testing.assert_allclose(window, wanted[number - first], rtol=0, atol=1e-4)
            # Of the noise, not of the silence.
            assert window.std() > 0.1
