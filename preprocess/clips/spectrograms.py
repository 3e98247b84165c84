"""Files .npz that hold mel spectrograms of many clips, or of segments of them.

Arrays: ``mel`` [shape=(n_rows, bands, frames)], uint8 for ``(dB + 80) / 80 * 255`` or floats;
``genre`` [shape=(n_rows,)], an index into the texts ``genres``; optionally ``name``, e.g.
``rock.00007.3`` for a segment of ``rock.00007``, and ``features`` [shape=(n_rows, n_values)].
"""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.clips.index import refuse_repeats
from tagger.base.addresses import is_remote
from tagger.base.errors import AudioError, ConfigError
from tagger.untrusted.npz import read_arrays

_MOST_BYTES = 1 << 32
# Decibels that 0 and 255 of a spectrogram in bytes stand for: 80 dB apart.
_RANGE_DB = 80.0
_SEGMENT = re.compile(r"(?P<clip>.+\.\d+)\.(?P<number>\d+)")
_REMEDY = "give a .npz file with the arrays mel, genre and genres, or compute it again"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Spectrograms:
    """Content of a file.

    Parameters
    ----------
    path : Path
        The file.
    genres : tuple of str
        Names of the genres.
    genre : np.ndarray [shape=(n_rows,)]
        Index of the genre of each row.
    names : tuple of str
        Of each row: of a clip, or of a segment of one.
    stored : np.ndarray [shape=(n_rows, bands, frames)]
        As the file holds them.
    features : np.ndarray [shape=(n_rows, n_values), dtype=float32] or None
        Further values of each row.
    """

    path: Path
    genres: tuple[str, ...]
    genre: npt.NDArray[np.intp]
    names: tuple[str, ...]
    stored: npt.NDArray[np.uint8] | npt.NDArray[np.floating]
    features: Floats | None

    @cached_property
    def rows(self) -> dict[str, list[int]]:
        """Rows of each clip, those of its segments in their order."""
        found: dict[str, list[tuple[int, int]]] = {}
        for row, name in enumerate(self.names):
            match = _SEGMENT.fullmatch(name)
            clip, number = (match["clip"], int(match["number"])) if match else (name, 0)
            found.setdefault(clip, []).append((number, row))
        return {clip: [row for _, row in sorted(rows)] for clip, rows in found.items()}

    @cached_property
    def _row_of_name(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def rows_of(self, clip: str) -> list[int]:
        """Rows of a clip in order of time, or the one of a segment, by its name.

        Raises
        ------
        AudioError
            If there is none.
        """
        if clip in self.rows:
            return self.rows[clip]
        if clip not in self._row_of_name:
            raise AudioError(
                f"{self.path}: holds no clip {clip!r}, but e.g. {self.names[0]!r}; "
                "use the data set spectrogram_file with this file"
            )
        return [self._row_of_name[clip]]

    def mel(self, rows: list[int]) -> Floats:
        """Spectrograms of rows [shape=(n_rows, frames, bands)], in dB where bytes are stored."""
        values = self.stored[rows].astype(np.float32)
        if self.stored.dtype == np.uint8:
            values = values * np.float32(_RANGE_DB / 255) - np.float32(_RANGE_DB)
        return np.ascontiguousarray(values.transpose(0, 2, 1))

    def silence(self, mel: Floats) -> float:
        """Value of silence beside a spectrogram: its lowest where the scale is not known."""
        return -_RANGE_DB if self.stored.dtype == np.uint8 else float(mel.min())

    def require(self, *, bands: int, frames: int | None) -> None:
        """Raise an AudioError if spectrograms have another size; `frames` None allows any."""
        _, has_bands, has_frames = self.stored.shape
        if has_bands != bands or frames not in (None, has_frames):
            wanted = f"{frames or has_frames} x {bands}"
            raise AudioError(
                f"{self.path}: holds spectrograms of {has_frames} x {has_bands} (frames x bands) "
                f"in place of {wanted}; set front_end.params or give another file"
            )


def read_spectrograms(path: Path) -> Spectrograms:
    """Read a file; a second time in the same process only if it has changed.

    Parameters
    ----------
    path : Path
        A .npz file on this machine.

    Returns
    -------
    Spectrograms
        At least one row; floats are finite.

    Raises
    ------
    AudioError
        If it cannot be read, or is no file of spectrograms.
    """
    if is_remote(path):
        raise AudioError(f"{path}: a .npz file is read on this machine alone; copy it here")
    try:
        status = path.stat()
        return _read(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror or error}); {_REMEDY}") from None
    except (ConfigError, ValueError) as error:
        raise AudioError(f"{path}: no file of spectrograms ({error}); {_REMEDY}") from None


@lru_cache(maxsize=2)
def _read(path: Path, size: int, mtime_ns: int) -> Spectrograms:
    del size, mtime_ns
    arrays = read_arrays(path, most_bytes=_MOST_BYTES)
    missing = [name for name in ("mel", "genre", "genres") if name not in arrays]
    if missing:
        raise ValueError(f"it has no array {missing[0]!r}")
    mel, genre, genres = arrays["mel"], arrays["genre"], arrays["genres"]
    n_rows = len(mel) if mel.ndim == 3 else 0
    if 0 in mel.shape or not n_rows or (mel.dtype != np.uint8 and mel.dtype.kind != "f"):
        raise ValueError(f"mel is {mel.dtype}{list(mel.shape)}")
    if mel.dtype.kind == "f" and not np.isfinite(mel).all():
        raise ValueError("mel holds values that are no finite numbers")
    if genres.ndim != 1 or genres.dtype.kind != "U":
        raise ValueError(f"genres is {genres.dtype}{list(genres.shape)}")
    if genre.shape != (n_rows,) or genre.dtype.kind not in "iu":
        raise ValueError(f"genre is {genre.dtype}{list(genre.shape)} for {n_rows} rows")
    if genre.min() < 0 or genre.max() >= len(genres):
        raise ValueError(f"genre holds numbers beyond the {len(genres)} names in genres")
    labels = tuple(map(str, genres))
    refuse_repeats(labels, "genres", "genres")
    names = _names(arrays.get("name"), genre, labels)
    features = arrays.get("features")
    if features is not None:
        if features.ndim != 2 or len(features) != n_rows or features.dtype.kind not in "biuf":
            raise ValueError(f"features is {features.dtype}{list(features.shape)}")
        with np.errstate(over="ignore"):
            features = features.astype(np.float32)
        if not np.isfinite(features).all():
            raise ValueError("features hold values that are no finite numbers")
    found = Spectrograms(path, labels, genre.astype(np.intp), names, mel, features)
    for clip, rows in found.rows.items():
        if len({int(genre[row]) for row in rows}) > 1:
            raise ValueError(f"segments of {clip!r} have two genres")
    return found


def _names(
    texts: npt.NDArray[np.str_] | None, genre: npt.NDArray[np.integer], genres: tuple[str, ...]
) -> tuple[str, ...]:
    """Name of each row; without texts they are counted within their genre."""
    if texts is None:
        seen = [0] * len(genres)
        names = []
        for number in genre.tolist():
            names.append(f"{genres[number]}.{seen[number]:05d}")
            seen[number] += 1
        return tuple(names)
    if texts.shape != genre.shape or texts.dtype.kind != "U" or "" in texts:
        raise ValueError(f"name is {texts.dtype}{list(texts.shape)}, not one text for each row")
    refuse_repeats(texts.tolist(), "names", "name")
    return tuple(texts.tolist())
