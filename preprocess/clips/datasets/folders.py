"""A folder for each label, as genre collections are kept: ``rock/song.mp3`` is rock."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from preprocess.clips.audio_files import AUDIO_SUFFIXES, find_audio_files
from preprocess.clips.datasets import Dataset
from preprocess.clips.index import ClipIndex, ClipRecord
from tagger.base.errors import ConfigError
from tagger.base.files import sha256_of_file
from tagger.base.log import warn
from tagger.base.registry import Params

_SHOWN = 3


class FoldersParams(Params):
    """Which folders below data.root are labels."""

    labels: Annotated[
        tuple[str, ...], Field(description="names of the folders; none: all that hold audio")
    ] = ()
    folder: Annotated[str, Field(description="where they lie below data.root; empty: in it")] = ""


class Folders(Dataset):
    """Audio below the folder of its label, at any depth.

    Clips that lie deeper, e.g. in ``rock/some album/``, have that folder as their album, so that
    splits by group can keep them together. Other files, such as covers, do not matter.
    """

    Params = FoldersParams
    params: FoldersParams
    # Of the files that are clips, and what these are, for messages.
    _suffixes: ClassVar[frozenset[str]] = AUDIO_SUFFIXES
    _what: ClassVar[str] = "audio"

    def _records(self, files: dict[str, list[PurePosixPath]]) -> dict[str, list[ClipRecord]]:
        """Clips by label, of files relative to data.root."""
        return {label: list(map(record_of, paths)) for label, paths in files.items()}

    def index(self, root: Path) -> ClipIndex:  # noqa: D102 (the contract documents it)
        below = PurePosixPath(self.params.folder)
        files = self._files(root / below)
        labels = tuple(files)
        if len(labels) < 2:
            found = f"only {labels[0]!r}" if labels else "none"
            raise ConfigError(
                f"{root}: folders named by label hold the {self._what}, and at least two are "
                f"needed; found {found}"
            )
        clips, columns = list[ClipRecord](), list[int]()
        for column, (label, records) in enumerate(self._records(files).items()):
            clips += [replace(one, path=(below / one.path).as_posix()) for one in records]
            columns += [column] * len(records)
            if len(records) < 2:
                raise ConfigError(
                    f"{root / label}: holds one clip, and none would be left to learn from while "
                    "it is tested; add more, or move the folder elsewhere"
                )
        copies = next(_copies(root, clips, columns), None)
        if copies is not None:
            self._tell_copies(root, *copies)
        matrix = np.zeros((len(clips), len(labels)), dtype=np.uint8)
        matrix[np.arange(len(clips)), columns] = 1
        return ClipIndex(labels, clips, matrix, str(root))

    def _tell_copies(self, root: Path, first: str, second: str) -> None:
        """Tell that the same file has two labels."""
        raise ConfigError(
            f"{root}: {first} and {second} are the same file under two labels; keep one, or give a "
            "CSV file with both labels for it"
        )

    def _files(self, root: Path) -> dict[str, list[PurePosixPath]]:
        """Files by label, relative to the root; what is left out is told."""
        if not root.is_dir():
            raise ConfigError(f"{root}: no such folder; give one that holds a folder per label")
        folders = sorted(
            path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
        )
        missing = sorted(set(self.params.labels) - {path.name for path in folders})
        if missing:
            raise ConfigError(f"{root}: has no folder {missing[0]!r}; check data.params.labels")
        if self.params.labels:
            folders = [path for path in folders if path.name in self.params.labels]
        for path in folders:
            if not path.name.isprintable():
                raise ConfigError(
                    f"{path}: the name of this folder is no text that can be a label; rename it"
                )
        found = {path.name: find_audio_files(path, suffixes=self._suffixes) for path in folders}
        empty = [name for name, files in found.items() if not files]
        if empty:
            warn(f"{root}: no {self._what} in {_some(empty)}; left out")
        n_beside = len(find_audio_files(root, suffixes=self._suffixes))
        n_beside -= sum(map(len, found.values()))
        if n_beside and not self.params.labels:
            warn(
                f"{root}: {n_beside} {self._what} files lie beside the folders and have no label; "
                "left out"
            )
        return {
            name: [PurePosixPath(path.relative_to(root).as_posix()) for path in files]
            for name, files in found.items()
            if files
        }


def record_of(path: PurePosixPath, *, clip_id: str = "", artist: str = "") -> ClipRecord:
    """Clip of a file below data.root; its id is its path unless another is given."""
    album = path.parent.as_posix() if len(path.parts) > 2 else ""
    return ClipRecord(clip_id or path.as_posix(), path.as_posix(), artist=artist, album=album)


def _copies(
    root: Path, clips: Sequence[ClipRecord], columns: Sequence[int]
) -> Iterator[tuple[str, str]]:
    """Yield the paths of two files that are the same and have two labels."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        # What cannot be asked for its size fails later, by its name.
        with contextlib.suppress(OSError):
            by_size[(root / clip.path).stat().st_size].append(row)
    for rows in by_size.values():
        if len({columns[row] for row in rows}) < 2:
            continue
        first: dict[str, int] = {}
        for row in rows:
            earlier = first.setdefault(sha256_of_file(root / clips[row].path), row)
            if columns[earlier] != columns[row]:
                yield clips[earlier].path, clips[row].path


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more


ENTRY = Folders
