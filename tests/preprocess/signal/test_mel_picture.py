"""Promises of pictures of spectrograms: drawn from audio as real ones were, or read from files."""

import numpy as np
import pytest
from signals import noise, sine

from preprocess.clips.spectrograms import read_spectrograms
from preprocess.signal.features import FRONT_ENDS
from preprocess.signal.features._magma import MAGMA
from preprocess.signal.features.mel_picture import drawn
from preprocess.signal.windows import windows_of_file
from tagger.base.errors import AudioError

Image = pytest.importorskip("PIL.Image")

RATE = 22050


def front_end(**params):
    return FRONT_ENDS.create("mel_picture", params)


@pytest.fixture(scope="module")
def colours():
    """A picture [shape=(217, 335, 3)] that varies slowly."""
    rows, columns = np.mgrid[:217, :335]
    return np.stack([rows, columns * 0.7, 255 - rows], axis=2).astype(np.uint8)


def test_the_colours_are_those_of_matplotlib():
    matplotlib = pytest.importorskip("matplotlib")
    wanted = matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255
    np.testing.assert_array_equal(MAGMA, np.round(wanted))


def test_low_tones_are_at_the_bottom_and_time_goes_to_the_right():
    waveform = np.concatenate([sine(100, 15, rate=RATE), sine(8000, 15, rate=RATE)])
    (picture,) = front_end().windows(waveform)["picture"]
    assert picture.shape == (217, 335, 3) and picture.dtype == np.float32
    levels = picture.sum(axis=2)
    halves = levels[:, :160].mean(axis=1), levels[:, 175:].mean(axis=1)
    # Bands are at even distances: 8 kHz is band 115 of 128.
    assert halves[0].argmax() > 207 and 10 < halves[1].argmax() < 30
    assert (
        picture[levels == levels.max()].tolist()
        == [MAGMA[255].tolist()] * (levels == levels.max()).sum()
    )


def test_silence_and_what_is_missing_are_black():
    black = MAGMA[0].astype(np.float32)
    assert (front_end().windows(np.zeros(30 * RATE, np.float32))["picture"] == black).all()
    (short,) = next(front_end().stream([noise(15, rate=RATE)]))["picture"]
    assert (short[:, 170:] == black).all()
    assert not (short[:, :160] == black).all(axis=(0, 2)).any()


def test_40_decibels_of_power_under_the_maximum_are_black():
    loud, faint = sine(1000, 15, rate=RATE), sine(1000, 15, rate=RATE)
    for decibels, is_black in ((35, False), (45, True)):
        waveform = np.concatenate([loud, faint * np.float32(10 ** (-decibels / 20))])
        (picture,) = front_end().windows(waveform)["picture"]
        assert (picture[:, 180:] == MAGMA[0]).all() == is_black


def test_a_drawing_is_the_real_picture_of_the_same_clip(shared):
    spectrograms = read_spectrograms(shared / "gtzan/segments_3s.npz")
    for clip in ("jazz.00003", "rock.00007", "classical.00010"):
        (real,) = front_end().windows_in(
            shared / f"gtzan/images/{clip.partition('.')[0]}/{clip}.png", clip
        )["picture"]
        segments = spectrograms.mel(spectrograms.rows_of(clip))
        # Where each segment of 66,149 samples lies among the frames of the whole clip.
        places = [slice(round(n * 66149 / 512), round(n * 66149 / 512) + 130) for n in range(10)]
        best = {}
        for offset in range(-30, 1):
            decibels = np.full((1293, 128), -80, np.float32)
            for place, segment in zip(places, segments, strict=True):
                room = decibels[place]
                room[:] = segment[: len(room)] + offset
            picture = drawn(np.clip(1 + decibels / 40, 0, 1))
            for number in range(10):
                # The level of a segment within the clip is not known.
                columns = slice(round(number * 33.5) + 1, round((number + 1) * 33.5) - 1)
                ours, theirs = picture[:, columns], real[:, columns]
                error = np.abs(ours - theirs).mean()
                best[number] = min(best.get(number, np.inf), error)
        assert np.median(list(best.values())) < 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "I;16", "CMYK"])
def test_pictures_of_all_kinds_become_red_green_and_blue(tmp_path, colours, mode):
    name = "a.jpg" if mode == "CMYK" else "a.png"
    if mode == "I;16":
        Image.fromarray(colours[:, :, 0].astype(np.uint16) * 257).save(tmp_path / name)
        wanted = np.repeat(colours[:, :, :1], 3, axis=2)
    else:
        made = Image.fromarray(colours).convert(mode)
        made.save(tmp_path / name)
        wanted = np.asarray(made.convert("RGB"))
    windows, padded = windows_of_file(tmp_path / name, front_end(), clip="a")
    assert windows["picture"].shape == (1, 217, 335, 3) and not padded
    assert np.abs(windows["picture"][0] - wanted).mean() < (6 if mode == "CMYK" else 1e-3)


def test_transparent_colours_of_a_palette_are_read_without_a_warning(tmp_path, colours, recwarn):
    made = Image.fromarray(colours).convert("P")
    made.save(tmp_path / "a.png", transparency=bytes([0, 128] * 20))
    found = windows_of_file(tmp_path / "a.png", front_end(), clip="a")[0]["picture"][0]
    np.testing.assert_array_equal(found, np.asarray(made.convert("RGB")))
    assert not recwarn.list


def test_a_larger_picture_is_shrunk_by_means_over_areas(tmp_path, colours):
    Image.fromarray(np.kron(colours, np.ones((2, 2, 1), np.uint8))).save(tmp_path / "A.PNG")
    found = windows_of_file(tmp_path / "A.PNG", front_end(), clip="a")[0]["picture"][0]
    np.testing.assert_allclose(found, colours, atol=1e-3)
    half = front_end(height=108, width=167)
    (small,) = windows_of_file(tmp_path / "A.PNG", half, clip="a")[0]["picture"]
    wanted = Image.fromarray(colours).resize((167, 108), Image.Resampling.BOX)
    assert np.abs(small - np.asarray(wanted)).mean() < 1.5


def test_a_drawing_and_a_picture_of_it_are_shrunk_alike(tmp_path):
    waveform = noise(30, rate=RATE)
    (whole,) = front_end().windows(waveform)["picture"]
    Image.fromarray(whole.astype(np.uint8)).save(tmp_path / "a.png")
    half = front_end(height=108, width=167)
    read = windows_of_file(tmp_path / "a.png", half, clip="a")[0]["picture"]
    np.testing.assert_allclose(half.windows(waveform)["picture"], read, atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width"), [(100, 335), (217, 160), (217, 600), (400, 335)], ids=str
)
def test_a_picture_of_another_kind_is_refused_with_its_size(tmp_path, height, width):
    Image.new("RGB", (width, height)).save(tmp_path / "a.png")
    with pytest.raises(
        AudioError, match=rf"a\.png: a picture of {width} x {height} .* 335 x 217; cut margins off"
    ):
        windows_of_file(tmp_path / "a.png", front_end(), clip="a")


def bomb(folder):
    """Few bytes that promise 10 gigapixels."""
    import struct
    import zlib

    def chunk(kind, content):
        sum_ = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", sum_)

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    (folder / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )


def cut(folder):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (217, 335, 3), np.uint8)).save(
        folder / "a.png"
    )
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:5000])


@pytest.mark.parametrize(
    "write",
    [
        bomb,
        cut,
        lambda folder: (folder / "a.png").write_bytes(b""),
        lambda folder: (folder / "a.png").write_bytes(b"no picture"),
        lambda folder: Image.new("RGB", (335, 217)).save(folder / "a.png", format="GIF"),
        lambda folder: Image.new("1", (5000, 4000)).save(folder / "a.png"),
    ],
    ids=["bomb", "cut off", "empty", "text", "other format", "too many pixels"],
)
def test_what_is_no_good_picture_is_refused_in_one_line(tmp_path, write):
    write(tmp_path)
    with pytest.raises(AudioError, match=r"a\.png: no picture that can be read \(.+\)") as caught:
        windows_of_file(tmp_path / "a.png", front_end(), clip="a")
    assert "\n" not in str(caught.value) and "0x" not in str(caught.value)
    assert "whole .png or .jpg" in str(caught.value)


def test_a_picture_that_is_gone_is_named(tmp_path):
    with pytest.raises(AudioError, match=r"gone\.png: cannot be read \(No such file"):
        windows_of_file(tmp_path / "gone.png", front_end(), clip="a")
