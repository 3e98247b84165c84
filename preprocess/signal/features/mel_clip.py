"""Mel spectrogram of a whole clip in dB, as projects on FMA and GTZAN make it with librosa.

The defaults are those of Dwivedi's preprocessing of FMA ("Using CNNs and RNNs for Music Genre
Recognition", 2018), which gives 640 frames of 128 bands for clips of 30 s.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from preprocess.clips.spectrograms import read_spectrograms
from preprocess.signal.features import Windows
from preprocess.signal.features._mel_db import (
    RANGE_DB,
    MelDb,
    StretchFrontEnd,
    fitted,
    tolerance_of,
)
from tagger.base.registry import Params


class MelClipParams(Params):
    """Parameters of the spectrogram."""

    sample_rate: Annotated[int, Field(ge=1000, le=96000, description="samples per second")] = 22050
    n_fft: Annotated[int, Field(ge=16, le=1 << 16, description="samples in a frame")] = 2048
    hop: Annotated[int, Field(ge=1, description="samples between starts of frames")] = 1024
    bands: Annotated[int, Field(ge=1, le=1024, description="mel bands")] = 128
    frames: Annotated[int, Field(ge=1, description="frames of a window: the first ones")] = 640
    seconds: Annotated[
        float, Field(ge=0.1, le=3600, description="of audio that one window is made of")
    ] = 30.0
    normalise: Annotated[
        Literal["none", "clip"], Field(description="clip: mean 0 and deviation 1 in each window")
    ] = "none"

    @model_validator(mode="after")
    def _consistent(self) -> "MelClipParams":
        most = 1 + round(self.seconds * self.sample_rate) // self.hop
        if self.frames > most:
            raise ValueError(
                f"frames={self.frames}, but {self.seconds:g} s at sample_rate and hop give {most}"
            )
        return self


class MelClip(StretchFrontEnd):
    """Window ``mel`` [shape=(frames, bands)]: power in dB under the maximum of 30 s of audio.

    A last stretch that lacks up to half a second counts as a whole one. Frames that are missing
    hold -80 dB. Numbers are those of librosa 0.11 to 1e-3 dB.

    A file .npz holds spectrograms (`preprocess.clips.spectrograms`): those of the segments of a
    clip are joined, each under its own maximum.
    """

    Params = MelClipParams
    params: MelClipParams
    suffixes: ClassVar[frozenset[str]] = frozenset({".npz"})

    @property
    def sample_rate(self) -> int:  # noqa: D102 (the contract documents it)
        return self.params.sample_rate

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:  # noqa: D102
        return {"mel": (self.params.frames, self.params.bands)}

    def is_short(self, n_samples: int) -> bool:  # noqa: D102
        return self._mel.n_frames(min(n_samples, self._stretch[0])) < self.params.frames

    @property
    def _stretch(self) -> tuple[int, int]:
        n_samples = round(self.params.seconds * self.sample_rate)
        return n_samples, tolerance_of(n_samples, self.sample_rate)

    @cached_property
    def _mel(self) -> MelDb:
        params = self.params
        return MelDb(params.sample_rate, params.n_fft, params.hop, params.bands)

    def _window(self, samples: npt.NDArray[np.float32]) -> Windows:
        mel = fitted(self._mel(samples), self.params.frames, fill=-RANGE_DB)
        return {"mel": self._normalised(mel)}

    def windows_in(self, path: Path, clip: str) -> Windows:  # noqa: D102 (the contract documents it)
        file = read_spectrograms(path)
        rows = file.rows_of(clip)
        params = self.params
        file.require(bands=params.bands, frames=params.frames if len(rows) == 1 else None)
        joined = np.concatenate(list(file.mel(rows)))
        mel = fitted(joined, params.frames, fill=file.silence(joined))
        return {"mel": self._normalised(mel)[np.newaxis]}

    def _normalised(self, mel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self.params.normalise == "none":
            return mel
        deviation = mel.std(dtype=np.float64)
        # What is constant differs from its mean by rounding alone.
        scale = 1 / deviation if mel.min() < mel.max() else 0.0
        normalised: npt.NDArray[np.float32] = (mel - mel.mean(dtype=np.float64)) * scale
        return normalised.astype(np.float32)


ENTRY = MelClip
