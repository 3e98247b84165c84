"""Two inputs of each segment of 3 s: a mel spectrogram in dB, and 55 values of librosa.

Those of "A music genre classification method based on middle-level feature interaction" (MLFI),
whose tables leave out the bandwidths of the 57 values of the front end `librosa`.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from preprocess.clips.spectrograms import read_spectrograms
from preprocess.signal.features import Windows
from preprocess.signal.features._mel_db import RANGE_DB, MelDb, StretchFrontEnd, fitted
from preprocess.signal.features.librosa import TABLE, Librosa, LibrosaParams
from tagger.base.errors import AudioError
from tagger.base.registry import Params

_N_FFT, _HOP, _BANDS = 2048, 512, 128
_PLACES = [number for number, name in enumerate(TABLE) if "bandwidth" not in name]
VALUES = tuple(TABLE[number] for number in _PLACES)


class MelSegmentsParams(Params):
    """How long a segment is."""

    segment_samples: Annotated[
        int, Field(ge=_N_FFT, le=1 << 24, description="of which one window is made")
    ] = 66149
    sample_rate: Annotated[int, Field(ge=8000, le=96000, description="samples per second")] = 22050
    frames: Annotated[int, Field(ge=1, description="of the spectrogram: the first ones")] = 130

    @model_validator(mode="after")
    def _consistent(self) -> "MelSegmentsParams":
        most = 1 + self.segment_samples // _HOP
        if self.frames > most:
            raise ValueError(f"frames={self.frames}, but segment_samples give {most}")
        return self


class MelSegments(StretchFrontEnd):
    """Windows ``mel`` [shape=(130, 128)] in dB under their maximum, and ``values`` [shape=(55,)].

    What is left behind the last whole segment is not used. Of a clip that is shorter than one,
    missing frames hold -80 dB. Values span too many orders of magnitude for float16.

    A file .npz holds spectrograms and features (`preprocess.clips.spectrograms`) of segments.
    """

    Params = MelSegmentsParams
    params: MelSegmentsParams
    needs_float32: ClassVar[bool] = True
    suffixes: ClassVar[frozenset[str]] = frozenset({".npz"})

    @property
    def sample_rate(self) -> int:  # noqa: D102 (the contract documents it)
        return self.params.sample_rate

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:  # noqa: D102
        return {"mel": (self.params.frames, _BANDS), "values": (len(VALUES),)}

    def is_short(self, n_samples: int) -> bool:  # noqa: D102
        return n_samples < self.params.segment_samples

    @property
    def _stretch(self) -> tuple[int, int]:
        return self.params.segment_samples, 0

    @cached_property
    def _mel(self) -> MelDb:
        return MelDb(self.params.sample_rate, _N_FFT, _HOP, _BANDS)

    @cached_property
    def _table(self) -> Librosa:
        return Librosa(LibrosaParams(sample_rate=self.params.sample_rate))

    def _window(self, samples: npt.NDArray[np.float32]) -> Windows:
        (row,) = self._table.windows(samples)["features"]
        mel = fitted(self._mel(samples), self.params.frames, fill=-RANGE_DB)
        return {"mel": mel, "values": row[_PLACES]}

    def windows_in(self, path: Path, clip: str) -> Windows:  # noqa: D102 (the contract documents it)
        file = read_spectrograms(path)
        rows = file.rows_of(clip)
        file.require(bands=_BANDS, frames=self.params.frames)
        if file.features is None or file.features.shape[1] != len(TABLE):
            found = "none" if file.features is None else f"{file.features.shape[1]} a row"
            raise AudioError(
                f"{path}: 'features' are to be {len(TABLE)} values of each row, and it holds "
                f"{found}; give another file, or use the front end mel_clip"
            )
        return {"mel": file.mel(rows), "values": file.features[rows][:, _PLACES]}


ENTRY = MelSegments
