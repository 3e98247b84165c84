"""The state from which an interrupted training run goes on exactly."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tagger.base.errors import ModelError
from tagger.base.files import atomic_folder, json_hash, remove_temporary_files, write_json
from tagger.base.log import warn
from tagger.network.keras import tf

_PROGRESS = "progress.json"
_VARIABLES = "variables"
# What TensorFlow and JSON raise for a damaged state, by what of it is damaged.
_UNREADABLE = (
    OSError,
    ValueError,
    AssertionError,
    IndexError,
    RuntimeError,
    tf.errors.OpError,
)
# The one before the newest is kept as well, in case that one is damaged.
_N_KEPT = 2


class Checkpoints:
    """Numbered states in a folder; each is whole or absent.

    Parameters
    ----------
    folder : Path
        Where they are kept.
    **objects
        What TensorFlow tracks: network, optimizer.
    """

    def __init__(self, folder: Path, **objects: Any) -> None:
        self.folder = folder
        self.track(**objects)

    def track(self, **objects: Any) -> None:
        """Save and restore these from now on."""
        self._checkpoint = tf.train.Checkpoint(**objects)

    def save(self, step: int, progress: dict[str, Any]) -> None:
        """Save all variables and the plain values `progress` as the state after `step` steps.

        Raises
        ------
        ModelError
            If TensorFlow cannot write them, e.g. for lack of disk space.
        OSError
            If the folder cannot be written otherwise.
        """
        state = self.folder / f"{step:08d}"
        try:
            with atomic_folder(state) as folder:
                self._checkpoint.write(str(folder / _VARIABLES))
                write_json(folder / _PROGRESS, {"checksum": json_hash(progress), **progress})
        except tf.errors.OpError as error:
            reason = error.message.rpartition("; ")[2].splitlines()[0].partition(" [Op:")[0]
            raise ModelError(
                f"{state}: the state cannot be saved ({reason}); check disk space and rights, then "
                "go on with --resume from the state before it"
            ) from None
        self._remove_old()

    def restore(
        self, ready: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any] | None:
        """Restore the newest state that can be read.

        Parameters
        ----------
        ready : callable, optional
            Called with the `progress` of a state before its variables are read: they may be of
            another optimizer than is tracked.

        Returns
        -------
        dict or None
            Its `progress`; None if there is no state yet.

        Raises
        ------
        ModelError
            If there are states but none can be read.
        """
        if self.folder.exists():
            remove_temporary_files(self.folder)
            # Killed while it removed one, a process has left the rest of it.
            self._remove_old()
        states = self._numbered()
        for state in reversed(states):
            try:
                progress = _read_progress(state / _PROGRESS)
                if ready is not None:
                    ready(progress)
                status = self._checkpoint.read(str(state / _VARIABLES))
                status.assert_existing_objects_matched()
            except _UNREADABLE as error:
                reason = (str(error) or type(error).__name__).splitlines()[0][:200]
                warn(f"{state}: damaged state ({reason}); taking the one before it")
                continue
            return progress
        if states:
            raise ModelError(
                f"{self.folder}: no saved state can be read; start anew in another run.root"
            )
        return None

    def _remove_old(self) -> None:
        for old in self._numbered()[:-_N_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _numbered(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("[0-9]*") if path.is_dir())


def _read_progress(path: Path) -> dict[str, Any]:
    """Read plain values; a ValueError where they are not as they were written."""
    progress = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(progress, dict):
        raise ValueError(f"{_PROGRESS} holds no values")
    # TensorFlow's files have checksums of their own. Earlier releases wrote none here.
    checksum = progress.pop("checksum", None)
    if checksum not in (None, json_hash(progress)):
        raise ValueError(f"{_PROGRESS} differs from its checksum")
    return progress
