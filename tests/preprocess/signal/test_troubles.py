"""Promises for files that are not as they should be: read to their end, or told what they lack."""

import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st
from signals import RATE, noise, sine

from preprocess.signal import byte_ranges
from preprocess.signal.audio import load_audio, prepare_waveform, stream_audio
from preprocess.signal.byte_ranges import FileBytes
from preprocess.signal.ffmpeg_decoder import FfmpegDecoder
from preprocess.signal.mpeg_frames import header_at, mpeg_streams
from preprocess.signal.pyav_decoder import PyavDecoder
from tagger.base.errors import AudioError

DECODERS = [
    pytest.param(
        decoder, marks=pytest.mark.skipif(not decoder.is_installed(), reason="not installed")
    )
    for decoder in (PyavDecoder, FfmpegDecoder)
]


@pytest.fixture(params=DECODERS)
def decoder(request, monkeypatch):
    """The only one that there is beside libsndfile."""
    for other in (PyavDecoder, FfmpegDecoder):
        if other is not request.param:
            monkeypatch.setattr(other, "is_installed", lambda: False)
    return request.param


def container(path, samples, *, rate=44100, codec="aac"):
    """Write what libsndfile cannot."""
    av = pytest.importorskip("av")
    samples = np.atleast_2d(samples).astype(np.float32)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, layout="stereo" if len(samples) == 2 else "mono")
        form = stream.format.name if stream.format else "fltp"
        resampler = av.AudioResampler(
            form, stream.layout, rate, frame_size=stream.frame_size or 1024
        )
        frame = av.AudioFrame.from_ndarray(samples, "fltp", stream.layout.name)
        frame.sample_rate = rate
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return path


def encoded(folder, samples, *, rate=RATE, suffix="mp3", **options):
    path = folder / f"encoded.{suffix}"
    sf.write(path, samples, rate, **options)
    return path.read_bytes()


def changing(seconds):
    """Sound of which a variable bit rate makes large and small frames."""
    quiet = 0.001 * sine(440, seconds / 2)
    return np.concatenate([quiet, noise(seconds / 2, amplitude=0.3)])


def variable(folder, seconds, **options):
    return encoded(
        folder, changing(seconds), bitrate_mode="VARIABLE", compression_level=0.5, **options
    )


def without_header(mp3):
    """Cut the frame off that says how many there are."""
    header = header_at(mp3, 0)
    assert header is not None and mp3[header.side_bytes : header.side_bytes + 4] in (
        b"Xing",
        b"Info",
    )
    return mp3[header.length :]


def seconds_of(path, content):
    path.write_bytes(content)
    blocks = list(stream_audio(path, target_rate=RATE, block_seconds=0.7))
    whole = load_audio(path, target_rate=RATE)
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    return len(whole) / RATE


@given(data=st.data(), content=st.binary(max_size=200))
def test_a_file_is_asked_for_its_bytes_as_bytes_are(data, content):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_ranges, "_PAGE_BYTES", data.draw(st.integers(1, 50)))
        asked = FileBytes(io.BytesIO(content))
        for _ in range(5):
            start, end = sorted(data.draw(st.tuples(*[st.integers(0, 220)] * 2)))
            assert asked[start:end] == content[start:end]
            wanted = data.draw(st.sampled_from([b"a", b"ab", content[start : start + 3] or b"x"]))
            assert asked.find(wanted, start) == content.find(wanted, start)
            end = min(end, len(content))
            assert asked.find(wanted, start, end) == content.find(wanted, start, end)


@pytest.mark.parametrize("suffix", ["mp3", "ogg"])
def test_a_file_that_another_program_cuts_while_it_is_looked_at_ends_no_process(tmp_path, suffix):
    content = encoded(tmp_path, noise(4), suffix=suffix)
    # A process that has a file in its memory is ended when it looks at what is not there any more.
    code = f"""
import os, sys
from preprocess.signal import byte_ranges
from preprocess.signal.mended import mend
from pathlib import Path
path, page = Path(sys.argv[1]), byte_ranges.FileBytes.page
def cut(*arguments, **options):
    os.truncate(path, {len(content) // 8})
    return page(*arguments, **options)
byte_ranges._PAGE_BYTES = 64
byte_ranges.FileBytes.page = cut
print(len(mend(path).streams))
"""
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(content)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_an_mp3_as_encoders_make_it_is_left_as_it_is(tmp_path):
    for number, content in enumerate(
        (
            encoded(tmp_path, noise(3)),
            variable(tmp_path, 4),
            encoded(tmp_path, noise(3), rate=44100),
        )
    ):
        path = tmp_path / f"{number}.mp3"
        path.write_bytes(content)
        with path.open("rb") as file:
            assert mpeg_streams(file) is None


@pytest.mark.parametrize("between", [b"", b"ID3\x04\0\0\0\0\0\x0a0123456789", b"TAG" + bytes(125)])
@pytest.mark.parametrize("header", [True, False])
def test_joined_mp3s_are_read_to_the_end(tmp_path, between, header):
    first, second = encoded(tmp_path, sine(440, 2)), variable(tmp_path, 6)
    if not header:
        first, second = without_header(first), without_header(second)
    assert seconds_of(tmp_path / "a.mp3", first + between + second) == pytest.approx(8, abs=0.2)


def test_joined_mp3s_of_two_sample_rates_are_read_to_the_end(tmp_path):
    first, second = encoded(tmp_path, noise(2)), encoded(tmp_path, noise(3, rate=44100), rate=44100)
    assert seconds_of(tmp_path / "a.mp3", first + second) == pytest.approx(5, abs=0.2)


def test_the_middle_of_joined_mp3s_is_the_middle_of_both(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(encoded(tmp_path, noise(2)) + variable(tmp_path, 6))
    whole = load_audio(path, target_rate=RATE)
    stream = stream_audio(path, target_rate=RATE, middle_seconds=5)
    found = np.concatenate(list(stream))
    assert len(found) == pytest.approx(5 * RATE, abs=4)
    start = round(stream.offset_seconds * RATE)
    assert np.corrcoef(found, whole[start : start + len(found)])[0, 1] > 0.99


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_chained_ogg_files_are_read_to_the_end(tmp_path, suffix):
    options = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    first = encoded(tmp_path, noise(2), suffix=suffix, **options)
    second = encoded(tmp_path, sine(300, 3), suffix=suffix, **options)
    path = tmp_path / f"a.{suffix}"
    assert seconds_of(path, first + second) == pytest.approx(5, abs=0.05)
    # The same twice, which has the same serial number twice.
    assert seconds_of(path, first + first) == pytest.approx(4, abs=0.05)


@pytest.mark.parametrize("change", ["without", "zero"])
def test_an_mp3_of_a_variable_bit_rate_that_does_not_say_its_length_is_read_whole(tmp_path, change):
    content = variable(tmp_path, 24)
    if change == "without":
        content = without_header(content)
    else:
        at = header_at(content, 0).side_bytes + 8
        content = content[:at] + bytes(4) + content[at + 4 :]
    assert seconds_of(tmp_path / "a.mp3", content) == pytest.approx(24, abs=0.2)


def test_a_damaged_stretch_of_an_mp3_is_told_and_the_rest_is_used(tmp_path, capfd):
    content = bytearray(variable(tmp_path, 10))
    start, end = len(content) // 2, len(content) // 2 + len(content) // 10
    content[start:end] = bytes(end - start)
    seconds = seconds_of(tmp_path / "a.mp3", bytes(content))
    assert 8 < seconds < 9.9
    err = capfd.readouterr().err
    assert "a.mp3: " in err and "% or more of its audio is missing, the rest is used" in err
    # Nothing of the decoder's own.
    assert all(line.startswith("warning: ") for line in err.splitlines())


@pytest.mark.parametrize("header", [True, False])
def test_what_stands_before_and_behind_the_frames_of_an_mp3_is_no_loss(tmp_path, header, capfd):
    content = variable(tmp_path, 6)
    content = content if header else without_header(content)
    lyrics = b"LYRICSBEGIN" + b"la la la " * 400 + b"LYRICS200"
    old_tag = b"TAG" + bytes(125)
    found = seconds_of(tmp_path / "a.mp3", bytes(2000) + content + lyrics + old_tag)
    assert found == pytest.approx(6, abs=0.2)
    assert "missing" not in capfd.readouterr().err


def test_a_damaged_stretch_of_a_flac_is_told_and_what_follows_is_used(tmp_path, capfd):
    samples = np.concatenate([noise(8, amplitude=0.3), 0.5 * sine(440, 4)])
    content = bytearray(encoded(tmp_path, samples, suffix="flac"))
    content[len(content) // 3 : len(content) // 3 + 3000] = bytes(3000)
    (tmp_path / "a.flac").write_bytes(content)
    waveform = load_audio(tmp_path / "a.flac", target_rate=RATE)
    assert 10.5 * RATE < len(waveform) < 12 * RATE
    np.testing.assert_allclose(waveform[-3 * RATE :], samples[-3 * RATE :], atol=1e-4)
    assert "or more of its audio is missing, the rest is used" in capfd.readouterr().err


def test_an_mp3_of_which_more_than_half_is_missing_is_refused(tmp_path):
    content = encoded(tmp_path, noise(10))
    (tmp_path / "a.mp3").write_bytes(content[: len(content) * 2 // 5])
    with pytest.raises(AudioError, match=r"truncated or damaged: 6\d % .* missing; copy or"):
        load_audio(tmp_path / "a.mp3", target_rate=RATE)


@pytest.mark.parametrize("suffix", ["mp3", "wav", "flac", "ogg"])
def test_the_file_that_a_mac_puts_beside_another_is_not_looked_at(tmp_path, suffix):
    path = tmp_path / f"song.{suffix}"
    path.write_bytes(encoded(tmp_path, noise(2), suffix=suffix))
    (tmp_path / f"._song.{suffix}").write_bytes(
        b"\0\x05\x16\x07\0\x02\0\0Mac OS X        " + bytes(60)
    )
    assert len(load_audio(path, target_rate=RATE)) == pytest.approx(2 * RATE, abs=100)


@pytest.mark.parametrize("length", [0, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF, 0xFFFFF000, None])
def test_a_wav_whose_length_is_a_placeholder_or_some_bytes_too_long_is_read_whole(tmp_path, length):
    content = bytearray(encoded(tmp_path, noise(2), suffix="wav"))
    assert content[36:40] == b"data"
    length = len(content) - 44 + 10 if length is None else length
    content[40:44] = length.to_bytes(4, "little")
    assert seconds_of(tmp_path / "a.wav", bytes(content)) == 2


def test_a_wav_without_samples_and_with_chunks_behind_them_stays_empty(tmp_path):
    content = bytearray(encoded(tmp_path, np.zeros(0, np.float32), suffix="wav"))
    assert content[40:44] == bytes(4)
    (tmp_path / "a.wav").write_bytes(bytes(content) + b"LIST\x04\0\0\0INFO")
    with pytest.raises(AudioError, match="holds no samples"):
        load_audio(tmp_path / "a.wav", target_rate=RATE)


@pytest.mark.parametrize("real", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize("named", ["wav", "mp3", "m4a", "wma", "mkv"])
def test_what_a_file_is_its_content_says(tmp_path, real, named):
    content = encoded(tmp_path, noise(2), suffix=real)
    assert seconds_of(tmp_path / f"a.{named}", content) == pytest.approx(2, abs=0.1)


def test_without_ffmpeg_a_file_that_needs_it_is_named_for_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(PyavDecoder, "is_installed", lambda: False)
    (tmp_path / "a.mp3").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    with pytest.raises(AudioError, match=r"a\.mp3: is an MP4 file named \.mp3, and needs ffmpeg"):
        load_audio(tmp_path / "a.mp3", target_rate=RATE)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("m4a", "aac"), ("mkv", "aac"), ("wv", "wavpack"), ("caf", "alac"), ("tta", "tta")],
)
def test_containers_are_heard_in_blocks_and_in_part(tmp_path, decoder, suffix, codec):
    # 5 s of one pitch and 5 of another.
    samples = np.concatenate([sine(440, 5, rate=44100), sine(1760, 5, rate=44100)])
    path = container(tmp_path / f"a.{suffix}", samples, codec=codec)
    whole = load_audio(path, target_rate=RATE)
    assert len(whole) == pytest.approx(10 * RATE, abs=2000)
    for block_seconds in (0.3, 4):
        blocks = list(stream_audio(path, target_rate=RATE, block_seconds=block_seconds))
        np.testing.assert_array_equal(np.concatenate(blocks), whole)
    part = stream_audio(path, target_rate=RATE, middle_seconds=2)
    found = np.concatenate(list(part))
    assert abs(len(found) - 2 * RATE) <= 1 and part.offset_seconds == pytest.approx(4, abs=0.1)
    heard = [np.abs(np.fft.rfft(half)).argmax() for half in (found[:RATE], found[RATE:])]
    assert heard == [440, 1760]


def test_both_give_the_same_samples(tmp_path):
    if not FfmpegDecoder.is_installed():
        pytest.skip("ffmpeg is not installed")
    path = container(tmp_path / "a.m4a", np.stack([noise(3), sine(440, 3)]), rate=16000)
    one, other = (
        np.concatenate([block for block, _ in each.probe(path).blocks(None, 1.0)])
        for each in (PyavDecoder, FfmpegDecoder)
    )
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert one.shape[1] == 2


@pytest.mark.parametrize("share", [0.8, 0.6])
def test_of_a_container_that_breaks_off_what_is_missing_is_told(tmp_path, decoder, share, capfd):
    path = container(tmp_path / "a.mkv", noise(20, rate=44100))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    stream = stream_audio(path, target_rate=RATE)
    assert sum(map(len, stream)) == pytest.approx(share * 20 * RATE, rel=0.1)
    assert stream.missing == pytest.approx(1 - share, abs=0.1)
    assert "truncated or damaged" in capfd.readouterr().err
    with pytest.raises(AudioError, match=r"truncated or damaged: \d+ % of its audio is missing"):
        load_audio(path, target_rate=RATE, most_missing=0.1)


def test_a_damaged_container_is_read_on_or_one_line_and_nobody_else_speaks(
    tmp_path, decoder, capfd
):
    path = container(tmp_path / "a.mkv", noise(5, rate=44100))
    whole, rng, n_read = path.read_bytes(), np.random.default_rng(0), 0
    for number in range(40 if decoder is PyavDecoder else 8):
        content = bytearray(whole)
        for place in rng.integers(len(content) if number % 2 else 600, size=1 + number % 20):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            n_read += len(load_audio(path, target_rate=RATE)) > 0
        except AudioError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert n_read
    assert all(line.startswith("warning: ") for line in capfd.readouterr().err.splitlines())


def test_a_film_without_sound_is_one_line(tmp_path, decoder):
    av = pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=24)
        stream.width = stream.height = 32
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with pytest.raises(AudioError, match="holds no audio stream"):
        load_audio(path, target_rate=RATE)


def test_a_playlist_that_is_called_a_song_is_not_followed(tmp_path, decoder):
    (tmp_path / "secret.mp3").write_bytes(encoded(tmp_path, noise(2)))
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.mp3\n#EXT-X-ENDLIST\n"
    for name in ("song.mp3", "song.mka", "song.wav"):
        (tmp_path / name).write_text(playlist)
        with pytest.raises(AudioError):
            load_audio(tmp_path / name, target_rate=RATE)


def test_samples_with_their_channels_first_are_those_with_their_channels_last():
    stereo = np.stack([noise(1), sine(440, 1)], axis=1)
    last, first = (
        prepare_waveform(samples, RATE, target_rate=RATE) for samples in (stereo, stereo.T)
    )
    np.testing.assert_array_equal(first, last)
    assert len(last) == RATE


def test_floats_in_the_range_of_integers_are_refused_with_the_remedy():
    with pytest.raises(AudioError, match="divide those of 16-bit audio by 32768"):
        prepare_waveform(noise(1, amplitude=0.3) * 32768, RATE, target_rate=RATE)
    assert len(prepare_waveform(noise(1, amplitude=0.3) * 3, RATE, target_rate=RATE)) == RATE


@pytest.mark.parametrize("block_seconds", [0.3, 30.0, None])
def test_channels_that_cancel_one_another_are_not_taken_for_silence(tmp_path, capfd, block_seconds):
    one = noise(40, amplitude=0.1)
    sf.write(tmp_path / "a.flac", np.stack([one, -0.9 * one], axis=1), RATE)
    stream = stream_audio(tmp_path / "a.flac", target_rate=RATE, block_seconds=block_seconds)
    np.testing.assert_allclose(np.concatenate(list(stream)), one, atol=1e-4)
    assert "a.flac: its channels cancel one another; the loudest alone" in capfd.readouterr().err


def test_the_mean_of_channels_is_taken_where_it_loses_nothing(tmp_path, capfd):
    left, right = noise(3, seed=1), noise(3, seed=2)
    silent = np.zeros_like(left)
    for channels in (
        [left, right],
        [left, left],
        [left, silent],
        [left, *[silent] * 7],
        [silent] * 2,
    ):
        sf.write(tmp_path / "a.wav", np.stack(channels, axis=1), RATE, subtype="FLOAT")
        found = load_audio(tmp_path / "a.wav", target_rate=RATE)
        np.testing.assert_allclose(found, np.mean(channels, axis=0), atol=1e-6)
    assert capfd.readouterr().err == ""


def test_samples_whose_channels_cancel_one_another_are_tagged_by_one():
    one = noise(1, amplitude=0.3)
    found = prepare_waveform(np.stack([0.5 * one, -one], axis=1), RATE, target_rate=RATE)
    np.testing.assert_array_equal(found, -one)


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("Cafe\u0301.wav", "Caf\u00e9.wav"),
        ("Caf\u00e9.wav", "Cafe\u0301.wav"),
        ("deep/song.wav", "deep\\song.wav"),
        ("song.wav", "song.wav "),
        ("Song.WAV", "song.wav"),
    ],
)
def test_a_file_whose_name_is_written_in_another_way_is_pointed_out(tmp_path, there, named):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    sf.write(tmp_path / there, noise(0.1), RATE)
    with pytest.raises(AudioError, match=r"no such file; check the path; there is ") as caught:
        load_audio(tmp_path / named, target_rate=RATE)
    assert str(tmp_path / there) in str(caught.value)
    with pytest.raises(AudioError, match=r"no such file; check the path$"):
        load_audio(tmp_path / "other.wav", target_rate=RATE)
