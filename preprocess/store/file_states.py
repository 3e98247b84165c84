"""Sizes and times of change of many files, to see whether any of them has changed."""

from pathlib import Path, PurePosixPath
from typing import Any, cast

from tagger.base.addresses import is_remote
from tagger.base.errors import StoreError

State = tuple[int, int]


class FileStates:
    """Sizes and times of change of the files below a folder.

    In a bucket each would be a request. There the folders directly below it are listed instead,
    each once.

    Parameters
    ----------
    root : Path
        The folder, local or at an address.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[str, dict[str, State]] = {}

    def get(self, name: str) -> State | None:
        """Size and time of change of a file.

        Parameters
        ----------
        name : str
            Relative to the folder, with forward slashes.

        Returns
        -------
        tuple of int or None
            Bytes, and nanoseconds or, in a bucket, what else changes with the content. None if it
            is not there or, on a local disk, cannot be read.

        Raises
        ------
        StoreError
            If a bucket cannot be listed. Taken for an empty one, all in it would be made anew.
        """
        if is_remote(self._root):
            # As a listing has it, however a table writes it: "./a//b" is "a/b".
            name = str(PurePosixPath(name))
            folder = name.partition("/")[0] if "/" in name else ""
            if folder not in self._listed:
                self._listed[folder] = self._list(folder)
            return self._listed[folder].get(name)
        try:
            status = (self._root / name).stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def _list(self, folder: str) -> dict[str, State]:
        fs, root = cast(Any, self._root).fs, str(cast(Any, self._root).path).rstrip("/")
        try:
            if folder:
                entries = fs.find(f"{root}/{folder}", detail=True).values()
            else:
                entries = fs.ls(root, detail=True)
        except FileNotFoundError:
            return {}
        except OSError as error:
            where = self._root / folder if folder else self._root
            raise StoreError(
                f"{where}: cannot be listed ({error.strerror or error}); check your rights and the "
                "network, then run it again"
            ) from None
        return {
            entry["name"].removeprefix(f"{root}/"): (
                int(entry["size"]),
                int(entry.get("mtime_ns", 0)),
            )
            for entry in entries
            if entry["type"] == "file"
        }
