"""Promises for real files of the kinds that go wrong: all of them is heard, and as it sounds."""

import numpy as np
import pytest

from preprocess.signal.ffmpeg_decoder import FfmpegDecoder
from preprocess.signal.pyav_decoder import PyavDecoder
from tagger.tagging.tagger import Tagger

CAN_READ_CONTAINERS = PyavDecoder.is_installed() or FfmpegDecoder.is_installed()
NEEDS_FFMPEG = {".m4a", ".m4b", ".wv"}
# What a codec may change in a score.
NEAR = 0.05


@pytest.fixture(scope="module")
def model(musicnn_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAGGER_CACHE", str(musicnn_cache))
        yield Tagger.load("musicnn-mtt")


@pytest.mark.parametrize(
    "name",
    [
        "anti_phase.flac",
        "book.m4b",
        "from_a_mac/song.mp3",
        "hole_in_the_middle.mp3",
        "really_m4a.mp3",
        "song.wv",
        "vbr_without_length.mp3",
    ],
)
def test_it_has_the_tags_of_the_same_music_in_a_good_file(shared, model, name):
    path = shared / "troubles" / name
    needs_ffmpeg = path.suffix in NEEDS_FFMPEG or "really" in name
    if needs_ffmpeg and not CAN_READ_CONTAINERS:
        pytest.skip("neither PyAV nor ffmpeg is installed")
    good = model.predict(shared / "troubles/reference.flac")
    found = model.predict(path)
    assert found.seconds == pytest.approx(good.seconds, abs=0.2)
    np.testing.assert_allclose(found.scores, good.scores, atol=NEAR)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("fragmented.m4a", 6.0),
        ("two_joined.mp3", 8.0),
        ("two_streams.ogg", 8.0),
        ("silence_then_vbr_without_length.mp3", 12.0),
        ("length_unknown.wav", 2.0),
    ],
)
def test_it_is_read_to_its_end(shared, model, name, seconds):
    if name.endswith(".m4a") and not CAN_READ_CONTAINERS:
        pytest.skip("neither PyAV nor ffmpeg is installed")
    found = model.predict(shared / "troubles" / name)
    assert found.seconds == pytest.approx(seconds, abs=0.1)
    assert found.missing == 0
