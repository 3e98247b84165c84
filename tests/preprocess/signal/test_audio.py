"""Promises of decoding: every file gives mono samples at the wanted rate, or one clear error."""

from __future__ import annotations

import gc
import json
import os
import re
import time
import tracemalloc
import warnings
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signals import RATE, noise, sine

from preprocess.clips.audio_files import find_audio_files
from preprocess.signal.audio import load_audio, prepare_waveform, stream_audio
from preprocess.signal.pyav_decoder import PyavDecoder
from tagger.base.errors import AudioError

FORMATS = ("wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64", "opus")
REMEDIES = r"; .*\b(check|convert|copy|export|give|install|remove|replace|split|use|write)\b"


def write(path, samples, rate=RATE):
    kind = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    sf.write(path, samples, rate, **kind)
    return path


def refusal(path):
    """Load a file that cannot be used and return the message, after checking its form."""
    with pytest.raises(AudioError) as caught:
        load_audio(path, target_rate=RATE)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert re.search(REMEDIES, message)
    assert "\n" not in message
    return message


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_decodes_to_the_same_sine(tmp_path, suffix):
    wanted = sine(440, 2, amplitude=0.5)
    found = load_audio(write(tmp_path / f"a.{suffix}", wanted), target_rate=RATE)
    assert found.dtype == np.float32
    assert found.ndim == 1
    # Some encoders pad the end by a frame of theirs.
    assert 0 <= len(found) - len(wanted) <= 1536
    np.testing.assert_allclose(found[2000:30000], wanted[2000:30000], atol=0.03)


def test_the_suffix_may_be_upper_case(tmp_path):
    assert len(load_audio(write(tmp_path / "A.WAV", sine(440, 1)), target_rate=RATE)) == RATE


def test_eight_channels_are_averaged(tmp_path):
    channels = np.stack([noise(1, seed=number, amplitude=0.1) for number in range(8)], axis=1)
    sf.write(tmp_path / "a.wav", channels, RATE, subtype="FLOAT")
    found = load_audio(tmp_path / "a.wav", target_rate=RATE)
    np.testing.assert_allclose(found, channels.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 96000, 192000])
def test_other_rates_become_the_wanted_one(tmp_path, rate):
    path = write(tmp_path / "a.wav", sine(440, 2, rate=rate, amplitude=0.5), rate)
    found = load_audio(path, target_rate=RATE)
    assert abs(len(found) - 2 * RATE) <= 1
    np.testing.assert_allclose(
        found[2000:30000], sine(440, 2, amplitude=0.5)[2000:30000], atol=2e-3
    )


def test_what_a_lower_rate_cannot_hold_is_filtered_and_not_folded(tmp_path):
    path = write(tmp_path / "a.wav", sine(15000, 1, rate=44100, amplitude=0.5), 44100)
    assert np.abs(load_audio(path, target_rate=RATE)[1000:-1000]).max() < 1e-3


def test_a_single_sample_is_audio(tmp_path):
    path = write(tmp_path / "a.wav", np.array([0.5], np.float32))
    assert load_audio(path, target_rate=RATE).tolist() == [0.5]


def test_audio_shorter_than_a_sample_at_the_wanted_rate_is_refused(tmp_path):
    path = write(tmp_path / "a.wav", np.array([0.5], np.float32), 96000)
    assert "shorter than a sample" in refusal(path)


def test_silence_is_audio(tmp_path):
    path = write(tmp_path / "a.wav", np.zeros(RATE, np.float32))
    assert not load_audio(path, target_rate=RATE).any()


def test_a_file_without_samples_is_refused(tmp_path):
    assert "no samples" in refusal(write(tmp_path / "a.wav", np.zeros(0, np.float32)))


@pytest.mark.parametrize("suffix", [*FORMATS, "m4a"])
def test_an_empty_file_is_refused_as_empty(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.touch()
    assert "0 bytes" in refusal(path)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a", "folder/a.flac"])
def test_a_missing_file_is_refused_as_missing(tmp_path, name):
    assert "no such file" in refusal(tmp_path / name)


def test_a_folder_is_refused_as_a_folder(tmp_path):
    (tmp_path / "a.wav").mkdir()
    assert "is a folder" in refusal(tmp_path / "a.wav")


def test_a_file_used_as_a_folder_is_refused(tmp_path):
    write(tmp_path / "a.wav", sine(440, 1))
    assert "cannot be read" in refusal(tmp_path / "a.wav" / "b.wav")


def test_a_name_that_is_too_long_is_refused(tmp_path):
    assert "cannot be read" in refusal(tmp_path / ("a" * 300 + ".wav"))


def test_a_name_with_a_null_byte_is_refused(tmp_path):
    with pytest.raises(AudioError, match="not a file name"):
        load_audio(tmp_path / "a\0b.wav", target_rate=RATE)


@pytest.mark.timeout(30)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    assert "is a pipe" in refusal(tmp_path / "a.wav")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file, whatever its rights")
def test_a_file_without_permission_is_refused_as_forbidden(tmp_path):
    path = write(tmp_path / "a.wav", sine(440, 1))
    path.chmod(0)
    assert "no permission" in refusal(path)


@pytest.mark.parametrize("suffix", [*FORMATS, "vox", "gsm"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"This is a letter and no music.\n" * 200, id="text"),
        pytest.param(bytes(5000), id="zeros"),
        pytest.param(np.random.default_rng(0).bytes(5000), id="random"),
        pytest.param(b"RIFF", id="four bytes"),
    ],
)
def test_a_file_that_is_no_audio_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "aiff", "caf"])
def test_a_file_of_which_more_than_half_is_missing_is_refused(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", 0.3 * sine(440, 20) + noise(20, amplitude=0.05))
    refusal(cut(path, 0.2))


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "aiff"])
def test_the_share_that_may_be_missing_is_a_choice(tmp_path, suffix):
    path = cut(write(tmp_path / f"a.{suffix}", 0.3 * noise(20)), 0.3)
    assert len(load_audio(path, target_rate=RATE, most_missing=0.8)) >= 5 * RATE
    with pytest.raises(AudioError, match=r"truncated or damaged|not decodable audio"):
        load_audio(path, target_rate=RATE, most_missing=0.6)
    for no_share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="most_missing must be from 0 to 1"):
            load_audio(path, target_rate=RATE, most_missing=no_share)


@pytest.mark.parametrize("share", [0.97, 0.7])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "opus"])
def test_what_a_file_lacks_is_told_and_the_rest_is_used(tmp_path, suffix, share, capfd):
    path = write(tmp_path / f"a.{suffix}", 0.3 * sine(440, 20) + noise(20, amplitude=0.05))
    stream = stream_audio(cut(path, share), target_rate=RATE)
    n_samples = sum(map(len, stream))
    assert n_samples == pytest.approx(share * 20 * RATE, abs=1.5 * RATE)
    # How many pages follow the last one of an Ogg file, it does not say.
    missing = stream.missing
    assert (
        missing > 0 if suffix in ("ogg", "opus") else missing == pytest.approx(1 - share, abs=0.06)
    )
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: {path}: truncated or damaged: ")
    assert "or more of its audio is missing, the rest is used; copy or download it again" in line


def test_of_a_whole_file_nothing_is_missing(tmp_path, capfd):
    for suffix in FORMATS:
        stream = stream_audio(write(tmp_path / f"a.{suffix}", noise(3)), target_rate=RATE)
        assert sum(map(len, stream)) >= 3 * RATE - 1
        assert stream.missing == 0
    assert capfd.readouterr().err == ""


def test_a_truncated_wav_is_refused_by_its_missing_share(tmp_path):
    path = cut(write(tmp_path / "a.wav", sine(440, 5)), 0.4)
    assert "truncated or damaged: 60 % of its audio is missing" in refusal(path)


def test_a_wav_of_a_stream_which_does_not_know_its_length_is_used(tmp_path):
    path = write(tmp_path / "a.wav", sine(440, 1))
    content = path.read_bytes()
    assert content[36:40] == b"data"
    path.write_bytes(content[:40] + b"\xff\xff\xff\xff" + content[44:])
    assert len(load_audio(path, target_rate=RATE)) == RATE


@pytest.mark.parametrize("riff_size", [b"\xff\xff\xff\xff", b"\0\0\0\0"])
@pytest.mark.parametrize("block_seconds", [None, 0.3])
def test_a_wav_that_ffmpeg_wrote_into_a_pipe_is_used(tmp_path, riff_size, block_seconds):
    samples = sine(440, 1)
    content = write(tmp_path / "a.wav", samples).read_bytes()
    # What ffmpeg puts between the format and samples whose number it does not know yet.
    info = b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf61.7.100\0\0"
    head = b"RIFF" + riff_size + content[8:36] + info + b"data\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(head + content[44:])
    blocks = stream_audio(tmp_path / "a.wav", target_rate=RATE, block_seconds=block_seconds)
    np.testing.assert_allclose(np.concatenate(list(blocks)), samples, atol=1e-4)


def test_bytes_after_the_audio_of_a_wav_do_no_harm(tmp_path):
    path = write(tmp_path / "a.wav", sine(440, 1))
    path.write_bytes(path.read_bytes() + b"LIST\x04\0\0\0abcd")
    assert len(load_audio(path, target_rate=RATE)) == RATE


def test_a_flac_of_a_stream_which_does_not_know_its_length_is_refused_as_that(tmp_path):
    path = write(tmp_path / "a.flac", sine(440, 1))
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert "does not say how long" in refusal(path)


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    path = write(tmp_path / "a.flac", sine(440, 1))
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    tracemalloc.start()
    # Not for lack of memory: none is taken for what is not there.
    assert "truncated or damaged: 100 %" in refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20


def test_a_file_of_many_pieces_is_read_as_one(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", sine(440, 1))
    whole = load_audio(path, target_rate=RATE)
    monkeypatch.setattr("preprocess.signal.decoders._BLOCK_VALUES", 700)
    np.testing.assert_array_equal(load_audio(path, target_rate=RATE), whole)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 7000, -1])
def test_a_sample_that_is_not_finite_is_refused(tmp_path, value, position):
    samples = sine(440, 1)
    samples[position] = value
    sf.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert "NaN or infinite" in refusal(tmp_path / "a.wav")


def test_samples_whose_squares_overflow_are_finite_nonetheless(tmp_path):
    sf.write(tmp_path / "a.wav", 1e30 * sine(440, 1), RATE, subtype="FLOAT")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(load_audio(tmp_path / "a.wav", target_rate=RATE)).all()


@pytest.mark.parametrize("rate", [1, 999, 2**31 - 1])
def test_a_sample_rate_that_is_none_of_audio_is_refused(tmp_path, rate):
    path = write(tmp_path / "a.wav", sine(440, 0.1))
    content = bytearray(path.read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(content)
    assert f"sample rate {rate} Hz" in refusal(path)


def test_a_waveform_of_two_dimensions_has_its_channels_last():
    with pytest.raises(AudioError, match="shape"):
        prepare_waveform(np.zeros((2, 2, 2), np.float32), RATE, target_rate=RATE)


# Block by block.


def joined(path, *, rate=RATE, **options):
    return np.concatenate(list(stream_audio(path, target_rate=rate, **options)))


@pytest.mark.parametrize("block_seconds", [0.01, 0.37, 1, 30])
@pytest.mark.parametrize("suffix", FORMATS)
def test_blocks_of_any_size_join_to_the_same_samples(tmp_path, suffix, block_seconds):
    path = write(tmp_path / f"a.{suffix}", 0.3 * sine(440, 3) + noise(3, amplitude=0.05))
    found = joined(path, block_seconds=block_seconds)
    np.testing.assert_array_equal(found, load_audio(path, target_rate=RATE))


@pytest.mark.parametrize("n_channels", [1, 2, 3, 8])
@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 96000])
def test_resampled_blocks_join_to_the_same_samples(tmp_path, rate, n_channels):
    channels = [noise(3, rate=rate, seed=number) for number in range(n_channels)]
    path = write(tmp_path / "a.wav", np.stack(channels, axis=1), rate)
    wanted = load_audio(path, target_rate=RATE)
    for block_seconds in (0.013, 0.5, 2, 3, 4):
        np.testing.assert_array_equal(joined(path, block_seconds=block_seconds), wanted)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 96000])
def test_resampling_in_blocks_is_resampling_at_once(tmp_path, rate):
    samples = noise(3, rate=rate)
    sf.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    np.testing.assert_array_equal(
        joined(tmp_path / "a.wav", block_seconds=0.5),
        prepare_waveform(samples, rate, target_rate=RATE),
    )


def real_mp3s(shared):
    return [
        *(shared / "magnatagatune" / "reference").glob("*.mp3"),
        *sorted((shared / "scenes").glob("*/*.mp3"))[:5],
    ]


def test_a_real_mp3_is_the_same_in_blocks(shared):
    # Its frames borrow from those before them, which those of noise do not.
    for path in real_mp3s(shared):
        wanted = load_audio(path, target_rate=RATE)
        np.testing.assert_array_equal(joined(path, block_seconds=1), wanted)


def test_no_block_is_empty_or_longer_than_asked_for(tmp_path):
    path = write(tmp_path / "a.wav", noise(3))
    sizes = [len(block) for block in stream_audio(path, target_rate=RATE, block_seconds=0.8)]
    assert sizes == [12800, 12800, 12800, 9600]


def test_many_channels_are_read_in_smaller_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("preprocess.signal.decoders._BLOCK_VALUES", 8000)
    path = write(tmp_path / "a.wav", np.stack([noise(1)] * 8, axis=1))
    assert {len(block) for block in stream_audio(path, target_rate=RATE)} == {1000}


def test_a_stream_can_be_read_again(tmp_path):
    stream = stream_audio(write(tmp_path / "a.flac", noise(2)), target_rate=8000, block_seconds=0.5)
    np.testing.assert_array_equal(np.concatenate(list(stream)), np.concatenate(list(stream)))


def test_a_file_that_has_gone_since_is_refused_as_missing(tmp_path):
    path = write(tmp_path / "a.wav", noise(1))
    stream = stream_audio(path, target_rate=RATE)
    path.unlink()
    with pytest.raises(AudioError, match="no such file"):
        list(stream)


def is_open(path):
    return any(link.exists() and link.samefile(path) for link in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="lists open files as Linux does")
def test_a_stream_that_is_dropped_half_way_leaves_nothing_open(tmp_path):
    path = write(tmp_path / "a.wav", noise(3))
    blocks = iter(stream_audio(path, target_rate=8000, block_seconds=0.5))
    next(blocks)
    assert is_open(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del blocks
        gc.collect()
    assert not caught
    assert not is_open(path)


def blocks_until_refused(path, **options):
    """Count the blocks before the error and return it, after checking its form."""
    n_blocks = 0
    with pytest.raises(AudioError) as caught:
        for _ in stream_audio(path, target_rate=RATE, **options):
            n_blocks += 1
    assert str(caught.value).startswith(f"{path}: ")
    assert re.search(REMEDIES, str(caught.value))
    return n_blocks, str(caught.value)


def test_a_cut_flac_is_refused_at_the_end_of_the_stream(tmp_path):
    path = cut(write(tmp_path / "a.flac", noise(20)), 0.5)
    n_blocks, message = blocks_until_refused(path, block_seconds=1)
    assert n_blocks >= 9
    assert "not decodable audio" in message


def test_a_sample_that_is_not_finite_is_refused_when_it_comes(tmp_path):
    samples = noise(3)
    samples[40_000] = np.nan
    sf.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    n_blocks, message = blocks_until_refused(tmp_path / "a.wav", block_seconds=1)
    assert n_blocks == 2
    assert "NaN or infinite" in message


@pytest.mark.parametrize("name", ["middle_seconds", "block_seconds"])
@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
def test_a_length_that_is_none_is_refused(tmp_path, name, value):
    path = write(tmp_path / "a.wav", noise(1))
    with pytest.raises(ValueError, match=name):
        stream_audio(path, target_rate=RATE, **{name: value})


# The middle alone.


@pytest.mark.parametrize("block_seconds", [None, 0.3])
@pytest.mark.parametrize("suffix", sorted(set(FORMATS) - {"mp3"}))
def test_the_middle_of_a_file_is_that_slice_of_it(tmp_path, suffix, block_seconds):
    path = write(tmp_path / f"a.{suffix}", noise(5))
    whole = load_audio(path, target_rate=RATE)
    stream = stream_audio(path, target_rate=RATE, middle_seconds=2, block_seconds=block_seconds)
    start = (len(whole) - 2 * RATE) // 2
    assert stream.offset_seconds == start / RATE
    np.testing.assert_allclose(
        np.concatenate(list(stream)), whole[start : start + 2 * RATE], atol=1e-6
    )


@pytest.mark.parametrize("seconds", [0.5, 3, 7.7, 20])
def test_the_middle_of_a_real_mp3_is_that_slice_of_it(shared, seconds):
    for path in real_mp3s(shared):
        whole = load_audio(path, target_rate=RATE)
        stream = stream_audio(path, target_rate=RATE, middle_seconds=seconds)
        start, length = round(stream.offset_seconds * RATE), round(seconds * RATE)
        # The length that its header gives is an estimate.
        assert abs(start - (len(whole) - length) // 2) < 0.2 * RATE
        np.testing.assert_allclose(
            np.concatenate(list(stream)), whole[start : start + length], atol=1e-4
        )


def test_the_middle_is_counted_in_seconds_of_the_file(tmp_path):
    path = write(tmp_path / "a.wav", sine(440, 5, rate=44100, amplitude=0.5), 44100)
    stream = stream_audio(path, target_rate=RATE, middle_seconds=2)
    assert stream.offset_seconds == 1.5
    found = np.concatenate(list(stream))
    assert len(found) == 2 * RATE
    wanted = sine(440, 5, amplitude=0.5)[24000:56000]
    np.testing.assert_allclose(found[500:-500], wanted[500:-500], atol=2e-3)


@pytest.mark.parametrize("seconds", [3, 3.1, 1000])
def test_all_of_a_shorter_file_is_read_where_its_middle_is_asked_for(tmp_path, seconds):
    path = write(tmp_path / "a.wav", noise(3))
    stream = stream_audio(path, target_rate=RATE, middle_seconds=seconds)
    assert stream.offset_seconds == 0
    np.testing.assert_array_equal(np.concatenate(list(stream)), load_audio(path, target_rate=RATE))


def test_the_middle_of_a_file_that_ends_before_it_is_refused(tmp_path):
    path = cut(write(tmp_path / "a.mp3", sine(440, 20)), 0.4)
    blocks_until_refused(path, middle_seconds=2)


def test_the_middle_of_a_file_that_ends_within_it_is_refused(tmp_path):
    path = cut(write(tmp_path / "a.mp3", sine(440, 20)), 0.5)
    _, message = blocks_until_refused(path, middle_seconds=8, block_seconds=1)
    assert "truncated" in message


@pytest.mark.parametrize("suffix", ["wav", "aiff", "mp3"])
def test_the_middle_of_a_file_that_lacks_most_of_it_is_refused(tmp_path, suffix):
    path = cut(write(tmp_path / f"a.{suffix}", noise(20)), 0.3)
    blocks_until_refused(path, middle_seconds=2)


# Formats that libsndfile does not read.

FAKE_FFPROBE = """#!/bin/sh
echo "$@" >> "$LOG"
echo '{"streams": [{"sample_rate": "44100", "channels": 1}], "format": {"duration": "2.000000"}}'
"""
FAKE_FFMPEG = """#!/bin/sh
echo "$@" >> "$LOG"
exec /bin/cat "$DECODED"
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Return a function that makes a program of that name the only one on the path."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(PyavDecoder, "is_installed", lambda: False)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("DECODED", str(tmp_path / "decoded.raw"))

    def install(name, script):
        (folder / name).write_text(script, encoding="utf-8")
        (folder / name).chmod(0o755)

    return install


def m4a(folder, name="a.m4a"):
    path = folder / name
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    return path


def decoded_by_ffmpeg(folder, samples):
    samples.astype("<f4").tofile(folder / "decoded.raw")


@pytest.mark.parametrize("installed", [(), ("ffmpeg",), ("ffprobe",)])
def test_an_m4a_without_ffmpeg_is_refused_and_names_ffmpeg(tmp_path, programs, installed):
    for name in installed:
        programs(name, FAKE_FFMPEG)
    assert ".m4a files need ffmpeg, which is not installed; install it" in refusal(m4a(tmp_path))


@pytest.mark.parametrize("name", ["a.m4a", "-i.m4a", "http:x.m4a", "with space; & quote'.m4a"])
def test_an_m4a_is_what_ffmpeg_decodes(tmp_path, programs, name):
    programs("ffprobe", FAKE_FFPROBE)
    programs("ffmpeg", FAKE_FFMPEG)
    decoded_by_ffmpeg(tmp_path, sine(440, 2, rate=44100))
    found = load_audio(m4a(tmp_path, name), target_rate=RATE)
    np.testing.assert_allclose(found[2000:30000], sine(440, 2)[2000:30000], atol=2e-3)
    calls = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert len(calls) == 2
    assert all(f"file:{tmp_path / name}" in call for call in calls)


def test_what_ffmpeg_says_is_in_the_error(tmp_path, programs):
    programs("ffprobe", FAKE_FFPROBE)
    programs("ffmpeg", "#!/bin/sh\necho first >&2\necho 'moov atom not found' >&2\nexit 1\n")
    assert "(moov atom not found)" in refusal(m4a(tmp_path))


def test_a_film_without_sound_is_refused(tmp_path, programs):
    programs("ffprobe", "#!/bin/sh\necho '{\"streams\": []}'\n")
    programs("ffmpeg", "#!/bin/sh\nexit 1\n")
    assert "holds no audio stream" in refusal(m4a(tmp_path, "a.mp4"))


@pytest.mark.parametrize("output", ["", "echo nonsense"])
def test_an_ffmpeg_that_gives_nothing_is_an_error_of_that_file(tmp_path, programs, output):
    programs("ffprobe", FAKE_FFPROBE)
    programs("ffmpeg", f"#!/bin/sh\n{output}\n")
    refusal(m4a(tmp_path))


def test_an_ffprobe_that_gives_nonsense_is_an_error_of_that_file(tmp_path, programs):
    programs("ffprobe", "#!/bin/sh\necho nonsense\n")
    programs("ffmpeg", FAKE_FFMPEG)
    refusal(m4a(tmp_path))


@pytest.mark.parametrize(
    "output",
    [
        "nonsense",
        '{"streams": [{}]}',
        '{"streams": [{"sample_rate": "44100", "channels": 0}]}',
        "3",
    ],
)
def test_an_ffprobe_that_tells_no_rate_and_channels_is_an_error_of_that_file(
    tmp_path, programs, output
):
    programs("ffprobe", f"#!/bin/sh\necho '{output}'\n")
    programs("ffmpeg", FAKE_FFMPEG)
    assert "ffprobe" in refusal(m4a(tmp_path))


def ffprobe_telling(**stream):
    described = json.dumps({"streams": [stream]})
    return f"#!/bin/sh\necho '{described}'\n"


@pytest.mark.parametrize("block_seconds", [None, 0.3, 2, 30])
def test_the_channels_of_an_m4a_are_averaged_in_blocks_too(tmp_path, programs, block_seconds):
    programs("ffprobe", ffprobe_telling(sample_rate="16000", channels=2))
    programs("ffmpeg", FAKE_FFMPEG)
    channels = np.stack([noise(2, seed=1), noise(2, seed=2)], axis=1)
    decoded_by_ffmpeg(tmp_path, channels)
    found = joined(m4a(tmp_path), block_seconds=block_seconds)
    np.testing.assert_allclose(found, channels.mean(axis=1), atol=1e-6)
    found += 1  # it may be written to


def test_the_middle_of_an_m4a_is_what_ffmpeg_is_asked_for(tmp_path, programs):
    programs("ffprobe", FAKE_FFPROBE)
    programs("ffmpeg", FAKE_FFMPEG)
    decoded_by_ffmpeg(tmp_path, noise(0.5, rate=44100))
    stream = stream_audio(m4a(tmp_path), target_rate=44100, middle_seconds=0.5)
    assert stream.offset_seconds == 0.75
    assert sum(map(len, stream)) == 22050
    call = (tmp_path / "log").read_text(encoding="utf-8").splitlines()[-1]
    assert "-ss 0.750000 -t 0.500000 -i file:" in call


def test_all_of_a_shorter_m4a_is_read_where_its_middle_is_asked_for(tmp_path, programs):
    programs("ffprobe", FAKE_FFPROBE)
    programs("ffmpeg", FAKE_FFMPEG)
    decoded_by_ffmpeg(tmp_path, noise(2, rate=44100))
    stream = stream_audio(m4a(tmp_path), target_rate=44100, middle_seconds=2)
    assert stream.offset_seconds == 0
    assert sum(map(len, stream)) == 88200
    assert "-ss" not in (tmp_path / "log").read_text(encoding="utf-8")


def test_the_middle_of_an_m4a_of_unknown_length_is_refused(tmp_path, programs):
    programs("ffprobe", ffprobe_telling(sample_rate="16000", channels=2, duration="N/A"))
    programs("ffmpeg", FAKE_FFMPEG)
    n_blocks, message = blocks_until_refused(m4a(tmp_path), middle_seconds=1)
    assert n_blocks == 0
    assert "does not say how long" in message


def test_a_middle_of_which_ffmpeg_gives_far_less_than_asked_for_is_refused(tmp_path, programs):
    programs("ffprobe", FAKE_FFPROBE)
    programs("ffmpeg", FAKE_FFMPEG)
    decoded_by_ffmpeg(tmp_path, noise(0.2, rate=44100))
    _, message = blocks_until_refused(m4a(tmp_path), middle_seconds=0.5)
    assert "truncated" in message


def test_an_ffmpeg_that_complains_at_length_is_not_blocked_by_that(tmp_path, programs):
    programs("ffprobe", FAKE_FFPROBE)
    complaints = tmp_path / "complaints"
    complaints.write_text("something is odd\n" * 100_000, encoding="utf-8")
    programs("ffmpeg", f'#!/bin/sh\n/bin/cat "{complaints}" >&2\nexec /bin/cat "$DECODED"\n')
    decoded_by_ffmpeg(tmp_path, noise(1, rate=44100))
    assert len(load_audio(m4a(tmp_path), target_rate=44100)) == 44100


def test_an_ffmpeg_that_fails_in_the_middle_is_an_error_at_the_end_of_the_stream(
    tmp_path, programs
):
    programs("ffprobe", FAKE_FFPROBE)
    programs("ffmpeg", '#!/bin/sh\n/bin/cat "$DECODED"\necho "bad frame" >&2\nexit 1\n')
    decoded_by_ffmpeg(tmp_path, noise(1, rate=44100))
    n_blocks, message = blocks_until_refused(m4a(tmp_path), block_seconds=0.3)
    assert n_blocks == 3
    assert "(bad frame)" in message


def ends(process_id):
    for _ in range(200):
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_a_stream_that_is_dropped_half_way_leaves_no_ffmpeg_behind(tmp_path, programs):
    programs("ffprobe", FAKE_FFPROBE)
    programs("ffmpeg", '#!/bin/sh\necho $$ > "$LOG"\nexec /bin/cat /dev/zero\n')
    blocks = iter(stream_audio(m4a(tmp_path), target_rate=RATE, block_seconds=1))
    next(blocks)
    process_id = int((tmp_path / "log").read_text(encoding="utf-8"))
    os.kill(process_id, 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del blocks
        gc.collect()
    assert not caught
    assert ends(process_id)


@pytest.mark.parametrize("block_seconds", [None, 1])
def test_an_ffmpeg_that_gives_nothing_for_too_long_is_ended(
    tmp_path, programs, monkeypatch, block_seconds
):
    monkeypatch.setattr("preprocess.signal.ffmpeg_decoder._FFMPEG_TIMEOUT_SECONDS", 1)
    programs("ffprobe", FAKE_FFPROBE)
    programs("ffmpeg", '#!/bin/sh\necho $$ > "$LOG"\nexec /bin/sleep 60\n')
    _, message = blocks_until_refused(m4a(tmp_path), block_seconds=block_seconds)
    assert "did not finish within 1 s" in message
    assert ends(int((tmp_path / "log").read_text(encoding="utf-8")))


# Damage of any kind.


@cache
def small_file(suffix):
    with TemporaryDirectory() as folder:
        samples = 0.3 * sine(440, 0.3) + noise(0.3, amplitude=0.02)
        return write(Path(folder) / f"a.{suffix}", samples).read_bytes()


# Headers are a small part of a file, so that they are aimed at in half of the cases.
PLACES = st.one_of(st.floats(0, 1), st.floats(0, 0.02))
DAMAGES = st.lists(
    st.one_of(
        st.tuples(st.just("set"), PLACES, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("insert"), PLACES, st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("delete"), PLACES, st.integers(1, 3000)),
        st.tuples(st.just("cut"), PLACES, st.none()),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content, damages):
    for kind, place, what in damages:
        at = int(place * len(content))
        if kind == "set":
            content = content[:at] + what + content[at + len(what) :]
        elif kind == "insert":
            content = content[:at] + what + content[at:]
        elif kind == "delete":
            content = content[:at] + content[at + what :]
        else:
            content = content[:at]
    return content


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(damages=DAMAGES)
def test_a_damaged_file_decodes_or_is_refused_and_nothing_else(tmp_path, suffix, damages):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(damaged(small_file(suffix), damages))
    try:
        waveform = load_audio(path, target_rate=RATE)
    except AudioError as error:
        assert str(error).startswith(f"{path}: ")
        assert re.search(REMEDIES, str(error))
    else:
        assert waveform.ndim == 1
        assert len(waveform)
        assert np.isfinite(waveform).all()


def test_audio_files_are_found_by_suffix_in_sorted_order(tmp_path):
    hidden = (".hidden.wav", ".Trash-1000/x.mp3", "a/@eaDir/c.mp3", "$RECYCLE.BIN/d.wav")
    for name in ("b.mp3", "a/c.FLAC", "a/b.m4a", "a/notes.txt", *hidden, "z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.wav").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in find_audio_files(tmp_path)]
    assert found == ["a/b.m4a", "a/c.FLAC", "b.mp3"]
    # Named, it is meant.
    assert find_audio_files(tmp_path / ".Trash-1000") == [tmp_path / ".Trash-1000/x.mp3"]
