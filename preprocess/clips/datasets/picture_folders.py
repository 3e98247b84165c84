"""A folder of pictures for each label: ``rock/rock.00007.png`` shows the spectrogram of a clip."""

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import ClassVar

from preprocess.clips.audio_files import PICTURE_SUFFIXES
from preprocess.clips.datasets.folders import Folders, record_of
from preprocess.clips.gtzan_clips import GENRES, artist_of
from preprocess.clips.index import ClipRecord
from tagger.base.log import warn


class PictureFolders(Folders):
    """Pictures below the folder of their label, at any depth, for front ends such as `mel_picture`.

    A clip is named by its file, without folder and suffix where no other has that name. Clips that
    are named as in GTZAN have their artists as far as they are known.
    """

    _suffixes: ClassVar[frozenset[str]] = PICTURE_SUFFIXES
    _what: ClassVar[str] = "pictures"

    def _records(self, files: dict[str, list[PurePosixPath]]) -> dict[str, list[ClipRecord]]:
        times = Counter(path.stem for paths in files.values() for path in paths)
        return {
            label: [
                record_of(
                    path,
                    clip_id=path.stem if times[path.stem] == 1 else "",
                    artist=artist_of(path.name) if label in GENRES else "",
                )
                for path in paths
            ]
            for label, paths in files.items()
        }

    def _tell_copies(self, root: Path, first: str, second: str) -> None:
        # GTZAN holds clips twice, and those of its pictures that go around do.
        warn(
            f"{root}: {first} and {second}, perhaps among others, are the same picture under two "
            "labels; both are kept, so that figures suffer"
        )


ENTRY = PictureFolders
