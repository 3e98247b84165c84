"""Local copies of what lies at an address: of runs, which go both ways, and of stores, to be read.

TensorFlow, HDF5 and shards need files. A run works in a local folder that is brought up to date
before and is sent after each saved state; of a store the pickles are fetched once.
"""

import contextlib
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, cast

from tagger.base.addresses import is_remote
from tagger.base.cache import cache_folder
from tagger.base.errors import ModelError
from tagger.base.files import (
    TEMPORARY_PREFIX,
    alone,
    content_hash,
    sync_file,
    sync_folder,
    write_json,
)
from tagger.base.log import progress_bar
from tagger.cloud.run_names import (
    RUN_DESCRIPTION,
    folder_of,
    is_below,
    is_result,
    is_seal,
    seals_any,
    validity,
)

# Folders that several commands on one machine may fill at once.
_EVALUATIONS = ("evaluation",)
# How often a run is listed that somebody else writes while it is pulled.
_N_TRIES = 5
# What is copied so soon that it needs no progress bar.
_QUIET_BYTES = 32 << 20


def local_copy(kind: str, address: Path) -> Path:
    """Folder in the cache for the copy of what is at an address."""
    return cache_folder() / kind / content_hash(str(address).encode("utf-8"))[:16]


# By their names, size and CRC32C of files: "12 yZRlqg==".
_States = dict[str, str]
# The states in which a file at the address is nobody else's work; None where it may be missing.
_Known = dict[str, list[str | None]]


class RunChangedError(ModelError):
    """Somebody else has changed the run; nothing of that was overwritten."""


class Mirror:
    """A run at an address and the local folder in which it is worked on.

    Files are compared by size and CRC32C. Beside the local folder a note says in which states the
    files at the address are known: as they were listed or sent last. So only what was changed here
    is sent, and the results of an evaluation do not bring back the weights of yesterday. What is
    about to be sent is noted first: half of it may have arrived when the network goes, and must not
    be taken for somebody else's work.

    What somebody else has written since this side has last looked is never overwritten: every
    write and every removal names the generation that it replaces.

    Parameters
    ----------
    remote : Path
        The address.
    local : Path
        The folder; made if missing.
    """

    def __init__(self, remote: Path, local: Path) -> None:
        self.remote = remote
        self.local = local
        self._note = local.with_name(f"{local.name}.json")
        self._fs = cast(Any, remote).fs
        self._root = str(cast(Any, remote).path).rstrip("/")
        # Of the files at the address, as they were listed or written last.
        self._generations: dict[str, int] = {}
        # What this process has read from the note before it has removed that.
        self._known_before: _Known = {}

    def pull(self, *, leave: Collection[str] = ()) -> None:
        """Make the local folder the same as the run at the address.

        What was changed here and did not get there stays, unless somebody else has changed the run
        meanwhile: then only evaluations that another command here may be making stay. From where
        there is no run nothing is fetched.

        Parameters
        ----------
        leave : collection of str
            Folders in it that are not needed: they are not downloaded.

        Raises
        ------
        ModelError
            If the run cannot be read, or the local folder not be written.
        """
        with self._errors():
            for n_left in reversed(range(_N_TRIES)):
                try:
                    self._pull_once(leave)
                    return
                except FileNotFoundError as error:
                    # Written anew since it was listed: what belongs together is listed again.
                    if not n_left or not is_remote(str(error.filename)):
                        raise

    def _pull_once(self, leave: Collection[str]) -> None:
        """Pull the very versions that are listed now; a FileNotFoundError where one has gone."""
        theirs, ours = self._theirs(), self._ours()
        # That somebody has removed the copy is no wish to remove the run.
        known = self._read_note() if ours else None
        # Without a description it is no run, or one that has not arrived yet.
        run = theirs if RUN_DESCRIPTION in theirs else {}
        if known is not None and _is_ahead(theirs, ours, known):
            # Others may have added files, e.g. of an evaluation. Only results are ever removed.
            wanted = [
                name for name in run if name not in ours and not (name in known and is_result(name))
            ]
        else:
            # Killed from here on, nothing that is here may be taken for newer.
            self._note.unlink(missing_ok=True)
            self._known_before = known or self._known_before
            kept = _unsent_evaluations(theirs, ours, self._known_before)
            known = {}
            wanted = [name for name in run if ours.get(name) != run[name] and name not in kept]
            stale = {name for name in ours if name not in run and name not in kept}
            self._remove_here(stale.union(wanted))
        wanted = [name for name in wanted if not is_below(name, leave)]
        self._transfer("pull the run", self._download, {name: run[name] for name in wanted})
        self._make_durable(wanted)
        for name, state in theirs.items():
            # What was left at a run may not be taken for what was removed here.
            if name not in run or (self.local / name).exists() or name in known:
                _add(known, name, state)
        self._write_note(known)

    def push(self) -> None:
        """Send what has changed here since the last time.

        Killed half way, it leaves a valid run: a folder is sealed anew after all its files have
        arrived, the description of the run comes last, and what has gone here goes there then.

        Raises
        ------
        RunChangedError
            If somebody else has changed what would be replaced, since the last time or meanwhile.
        ModelError
            If the run cannot be written.
        """
        with self._errors():
            theirs, ours = self._theirs(), self._ours()
            is_new = RUN_DESCRIPTION not in theirs
            known = self._read_note()
            if known is None and is_new:
                # What lies there now is what will be replaced.
                known = {name: [state] for name, state in theirs.items()}
            if known is None or (RUN_DESCRIPTION in known and not ours):
                raise ModelError(
                    f"{self.local}: this copy of {self.remote} has been removed, or not been "
                    "fetched whole, so nothing was sent; run the command again"
                )

            def is_known(name: str) -> bool:
                return theirs.get(name) in _states_of(known, name)

            changed = [
                name
                for name, state in ours.items()
                # What only others have changed is theirs.
                if state != theirs.get(name)
                and (is_known(name) or state not in _states_of(known, name))
            ]
            # Of an earlier run whose description has gone nothing may be taken for this one's.
            gone = [
                name
                for name in theirs
                if name not in ours and is_result(name) and (is_new or is_known(name))
            ]
            touched = {folder_of(name) for name in [*changed, *gone] if not is_seal(name)}
            # Not of a state that has gone here: it is valid until newer ones have arrived.
            seals = [name for name in theirs if name in ours and seals_any(name, touched)]
            changed += [name for name in seals if name not in changed]
            for name in sorted({*changed, *gone}):
                if name in theirs and theirs[name] != ours.get(name) and not is_known(name):
                    raise _changed(f"{self.remote}/{name}")
            self._make_durable(changed)
            # Noted first: whatever of it is found there later is this side's.
            for name in changed:
                _add(known, name, ours[name])
            for name in [*gone, *seals]:
                _add(known, name, None)
            self._write_note(known)
            if is_new:
                self._remove(gone)
            self._remove(seals)
            for rank in sorted({validity(name) for name in changed}):
                states = {name: ours[name] for name in changed if validity(name) == rank}
                self._transfer("push the run", self._upload, states)
            if not is_new:
                self._remove(gone)
            same = {name for name in ours if ours[name] == theirs.get(name)}.union(changed)
            known |= {name: [ours[name]] for name in same}
            self._write_note({name: known[name] for name in known if name not in gone})

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with alone(self.local):
                yield
        except OSError as error:
            where = error.filename or self.remote
            if isinstance(error, FileExistsError) and is_remote(str(where)):
                raise _changed(str(where)) from None
            raise ModelError(
                f"{where}: the run cannot be copied ({error.strerror}); check the address, your "
                "rights, the network and the disk space"
            ) from None

    def _theirs(self) -> _States:
        found = self._fs.find(self._root, detail=True)
        entries = {name.removeprefix(f"{self._root}/"): entry for name, entry in found.items()}
        self._generations = {name: entry["generation"] for name, entry in entries.items()}
        return {name: f"{entry['size']} {entry['crc32c']}" for name, entry in entries.items()}

    def _ours(self) -> _States:
        from tagger.cloud.transfers import crc32c_of_file

        files = [path for path in self.local.rglob("*") if path.is_file()]
        names = {path.relative_to(self.local).as_posix(): path for path in files}
        return {
            name: f"{path.stat().st_size} {crc32c_of_file(path)}"
            for name, path in names.items()
            if TEMPORARY_PREFIX not in name
        }

    def _read_note(self) -> _Known | None:
        """Read in which states files at the address are known; None if nobody has noted it."""
        try:
            known = json.loads(self._note.read_text(encoding="utf-8"))["known"]
            return {name: list(states) for name, states in known.items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def _write_note(self, known: _Known) -> None:
        write_json(self._note, {"address": str(self.remote), "known": known})

    def _make_durable(self, names: list[str]) -> None:
        """Have files on the disk before the note speaks of them: a power cut may empty others."""
        from tagger.cloud.transfers import in_threads

        paths = [self.local / name for name in names]
        in_threads(sync_file, paths)
        for folder in {parent for path in paths for parent in path.parents}:
            if folder.is_relative_to(self.local.parent):
                sync_folder(folder)

    def _download(self, name: str) -> None:
        self._fs.get_file(
            f"{self._root}/{name}", str(self.local / name), generation=self._generations[name]
        )

    def _upload(self, name: str) -> None:
        self._generations[name] = self._fs.put_file(
            str(self.local / name),
            f"{self._root}/{name}",
            if_generation_match=self._generations.get(name, 0),
        )

    def _remove(self, names: list[str]) -> None:
        from tagger.cloud.transfers import in_threads

        def remove(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                generation = self._generations.pop(name)
                self._fs.rm_file(f"{self._root}/{name}", if_generation_match=generation)

        # Seals before what they seal.
        in_threads(remove, [name for name in names if is_seal(name)])
        in_threads(remove, [name for name in names if not is_seal(name)])

    def _transfer(self, title: str, work: Callable[[str], None], states: _States) -> None:
        from tagger.cloud.transfers import in_threads

        if sum(int(state.split()[0]) for state in states.values()) < _QUIET_BYTES:
            in_threads(work, states)
            return
        with progress_bar(title, len(states)) as advance:
            in_threads(work, states, advance=advance)

    def _remove_here(self, names: Collection[str]) -> None:
        # What makes others valid goes first.
        for name in sorted(names, key=validity, reverse=True):
            (self.local / name).unlink(missing_ok=True)
        for path in sorted(self.local.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _changed(address: str) -> RunChangedError:
    return RunChangedError(
        f"{address}: another machine has written it since this one last read the run, and it was "
        "not overwritten: let one machine at a time work on a run, and start this one again to "
        "take over what is there, or choose another run.root"
    )


def _states_of(known: _Known, name: str) -> list[str | None]:
    return known.get(name, [None])


def _add(known: _Known, name: str, state: str | None) -> None:
    """Note another state in which a file may be found."""
    states = _states_of(known, name)
    known[name] = states if state in states else [*states, state]


def _is_ahead(theirs: _States, ours: _States, known: _Known) -> bool:
    """Whether only this side has changed anything since the address was last looked at."""
    if RUN_DESCRIPTION not in theirs and None in _states_of(known, RUN_DESCRIPTION):
        # Where no run was there is none yet.
        return True
    # Another run may have been started there, of whose files none was known.
    return all(
        theirs.get(name) in (*_states_of(known, name), ours.get(name))
        for name in {*known, RUN_DESCRIPTION}
    )


def _unsent_evaluations(theirs: _States, ours: _States, known: _Known) -> set[str]:
    """Files that evaluations of this very run have written here, and nobody else there."""
    if theirs.get(RUN_DESCRIPTION) not in known.get(RUN_DESCRIPTION, ()):
        return set()
    return {
        name
        for name, state in ours.items()
        if is_below(name, _EVALUATIONS)
        and theirs.get(name) in _states_of(known, name)
        and theirs.get(name) != state
    }
