"""Mel spectrograms as pictures, as those of GTZAN that go around (``images_original`` on Kaggle).

How these were made was found by comparison with spectrograms of the same clips: 128 mel bands
(2,048 samples, hop 512) of the whole clip, ``librosa.amplitude_to_db`` of their *power*, so that 40
dB under the maximum are black, drawn by ``librosa.display.specshow`` without scales, on
matplotlib's figure of 432 x 288 pixels in a notebook: bands, not Hz, go upwards at even distances,
and each pixel has the colour of the frame and the band at its centre.

What it makes of the spectrograms of 50 clips of classical, jazz and rock (joined segments of 3 s,
whose level within the clip is not known and was fitted) correlates with the real pictures to 0.992
in the median and 0.987 in the mean (0.76 at the worst), and differs by 1.7 of 255 in the median and
2.3 in the mean. What is left are columns that show the frame beside, the joints, and the palette of
256 colours of the real pictures.
"""

import io
import warnings
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from preprocess.clips.audio_files import PICTURE_SUFFIXES
from preprocess.signal.features import Windows
from preprocess.signal.features._magma import MAGMA
from preprocess.signal.features._mel_db import MelDb, StretchFrontEnd, fitted, tolerance_of
from tagger.base.errors import AudioError
from tagger.base.registry import Params

Floats = npt.NDArray[np.float32]

_N_FFT, _HOP, _BANDS = 2048, 512, 128
# Decibels of power under the maximum that are black, and the least power: `amplitude_to_db` takes
# twice as many, and amplitudes of 1e-5.
_RANGE_DB, _LEAST_POWER = 40.0, 1e-5
# The real pictures, cut out of a figure of 432 x 288 pixels of which the spectrogram takes 77.5 %
# and 75.5 % (matplotlib's margins in notebooks): its edges lie half a pixel outside.
_HEIGHT, _WIDTH = 217, 335
_AXES_HEIGHT, _AXES_WIDTH = 0.755 * 288, 0.775 * 432
_MOST_PIXELS = 1 << 24
# How much larger one side may be in proportion, and by how much a picture may be enlarged.
_MOST_STRETCHED, _MOST_ENLARGED = 1.5, 2.0


class MelPictureParams(Params):
    """Parameters of a picture; the defaults are those of the real ones."""

    height: Annotated[int, Field(ge=8, le=2048, description="pixels")] = _HEIGHT
    width: Annotated[int, Field(ge=8, le=2048, description="pixels")] = _WIDTH
    sample_rate: Annotated[int, Field(ge=1000, le=96000, description="samples per second")] = 22050
    seconds: Annotated[
        float, Field(ge=0.1, le=3600, description="of audio that one picture shows")
    ] = 30.0


class MelPicture(StretchFrontEnd):
    """Window ``picture`` [shape=(height, width, 3)]: red, green and blue, each 0 to 255.

    Low frequencies are at the bottom, and time goes to the right. A last stretch of audio that
    lacks up to half a second counts as a whole one; of one that is shorter the rest is black.

    A picture in a file becomes one of this size, whose pixels are means over those that they cover.
    """

    Params = MelPictureParams
    params: MelPictureParams
    suffixes: ClassVar[frozenset[str]] = PICTURE_SUFFIXES
    _padding = "black"

    @property
    def sample_rate(self) -> int:  # noqa: D102 (the contract documents it)
        return self.params.sample_rate

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:  # noqa: D102
        return {"picture": (self.params.height, self.params.width, 3)}

    def is_short(self, n_samples: int) -> bool:  # noqa: D102
        length, tolerance = self._stretch
        return n_samples < length - tolerance

    @property
    def _stretch(self) -> tuple[int, int]:
        n_samples = round(self.params.seconds * self.sample_rate)
        return n_samples, tolerance_of(n_samples, self.sample_rate)

    @cached_property
    def _mel(self) -> MelDb:
        rate = self.params.sample_rate
        return MelDb(rate, _N_FFT, _HOP, _BANDS, range_db=_RANGE_DB, least_power=_LEAST_POWER)

    def _window(self, samples: npt.NDArray[np.float32]) -> Windows:
        mel = self._mel(samples)
        # Colours go from the lowest value to the highest one.
        lowest = mel.min()
        shares = (mel - lowest) / -lowest if lowest < 0 else np.zeros_like(mel)
        shares = fitted(shares, self._mel.n_frames(self._stretch[0]), fill=0.0)
        return {"picture": self._resized(drawn(shares))}

    def windows_in(self, path: Path, clip: str) -> Windows:  # noqa: D102 (the contract documents it)
        del clip
        picture = _read_picture(path)
        height, width = picture.shape[:2]
        wanted = (self.params.height, self.params.width)
        rows, columns = wanted[0] / height, wanted[1] / width
        if max(rows, columns) > _MOST_ENLARGED or not (
            1 / _MOST_STRETCHED <= rows / columns <= _MOST_STRETCHED
        ):
            raise AudioError(
                f"{path}: a picture of {width} x {height} pixels does not become one of "
                f"{wanted[1]} x {wanted[0]}; cut margins off, or set front_end.params.width and "
                "height"
            )
        return {"picture": self._resized(picture)[np.newaxis]}

    def _resized(self, picture: Floats) -> Floats:
        """Picture [shape=(height, width, 3)] of the size that is wanted."""
        wanted = (self.params.height, self.params.width)
        if picture.shape[:2] == wanted:
            return picture
        rows, columns = map(_areas, picture.shape[:2], wanted)
        resized: Floats = np.einsum("ah,hwc,bw->abc", rows, picture, columns, optimize=True)
        return resized


def drawn(shares: Floats) -> Floats:
    """Draw a spectrogram as the real pictures were drawn.

    Parameters
    ----------
    shares : np.ndarray [shape=(n_frames, n_bands), dtype=float32]
        From 0 to 1.

    Returns
    -------
    np.ndarray [shape=(217, 335, 3), dtype=float32]
        From 0 to 255.
    """
    n_frames, n_bands = shares.shape
    frames = np.floor((np.arange(_WIDTH) + 1) / _AXES_WIDTH * n_frames).astype(np.intp)
    bands = np.floor((np.arange(_HEIGHT) + 1) / _AXES_HEIGHT * n_bands).astype(np.intp)
    shown = shares[np.ix_(np.minimum(frames, n_frames - 1), np.minimum(bands, n_bands - 1))]
    colours = np.minimum((shown * 256).astype(np.intp), 255)
    picture: Floats = MAGMA[colours.T[::-1]].astype(np.float32)
    return picture


def _areas(n_before: int, n_after: int) -> Floats:
    """Share of each pixel in a mean over the length of a new one [shape=(n_after, n_before)]."""
    edges = np.linspace(0, n_before, n_after + 1)
    pixels = np.arange(n_before)
    covered = np.minimum(edges[1:, np.newaxis], pixels + 1) - np.maximum(
        edges[:-1, np.newaxis], pixels
    )
    shares: Floats = (np.maximum(covered, 0) * (n_after / n_before)).astype(np.float32)
    return shares


def _read_picture(path: Path) -> Floats:
    """Red, green and blue [shape=(height, width, 3)], each 0 to 255."""
    from PIL import Image, UnidentifiedImageError

    try:
        content = path.read_bytes()
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Of so many pixels that the picture may be made to fill the memory.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are too many")
                if image.mode.startswith("I"):
                    # Grey of 16 bits, of which `convert` would keep 8.
                    grey = np.asarray(image, dtype=np.float32) / 257
                    return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
                return np.asarray(image.convert("RGB"), dtype=np.float32)
    except MemoryError:
        raise
    except Exception as error:
        # Pillow hands on what zlib, struct and its own readers raise.
        reason = (str(error).splitlines() or [""])[0]
        if isinstance(error, UnidentifiedImageError):
            reason = "it is neither PNG nor JPEG"
        raise AudioError(
            f"{path}: no picture that can be read ({reason or type(error).__name__}); give a whole "
            ".png or .jpg file"
        ) from None


ENTRY = MelPicture
