"""Local copies of what lies at an address: of runs, which go both ways, and of stores, to be read.

TensorFlow, HDF5 and shards need files. A run works in a local folder that is brought up to date
before and is sent after each saved state; of a store the pickles are fetched once.
"""

import contextlib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
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
from tagger.base.log import progress_bar, warn
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


@dataclass(frozen=True)
class _State:
    """What tells versions of a file apart."""

    size: int
    crc32c: str


_States = dict[str, _State]
# Inode and time of the last write of files here: what is written anew gets others.
_Places = dict[str, tuple[int, int]]


class RunChangedError(ModelError):
    """Somebody else has changed the run; nothing of that was overwritten."""


# Which states a push that failed may have left of a file; None where it was to be removed.
_Sent = dict[str, list[_State | None]]


@dataclass(frozen=True)
class _Note:
    """What is known of the last time.

    Attributes
    ----------
    same : dict
        Files as they were when both sides were last the same.
    seen : dict
        What else lay at the address when it was last looked at, e.g. of a run without a
        description: it may be replaced.
    sent : dict
        States that pushes which failed may have left: what was given up may still arrive later.
    places : dict
        Of `same`, where each file lay on this disk when both sides were last the same.
    """

    same: _States
    seen: _States
    sent: _Sent = field(default_factory=dict)
    places: _Places = field(default_factory=dict)

    def knows(self, name: str, state: _State | None) -> bool:
        """Whether a file at the address is as it was when it was last looked at, or has gone."""
        return state in (None, self.same.get(name), self.seen.get(name))


class Mirror:
    """A run at an address and the local folder in which it is worked on.

    Either side may have changed since they were last the same, which is noted beside the local
    folder: only what was changed here is sent, so that the results of an evaluation do not bring
    back the weights of yesterday. What is about to be sent is noted as well: half of it may have
    arrived when the network goes, and must not be taken for somebody else's work.

    What somebody else has written since this side has last looked is never overwritten: every
    write and every removal names the generation that it replaces.

    Nor is it overwritten with what a disk has damaged: after a power cut a file may be empty, or
    have bits flipped any day. Commands write whole files under new inodes (and what grows in place
    gets a new time), so what differs from the note, but is the inode of that time with its time, is
    damaged, as are an empty file and a description of the run that has changed or gone. While the
    good one is at the address the damaged one is not sent, and is fetched again by the next `pull`.
    What a note speaks of is on the disk before the note is.

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
        # The one that this process has found, though it has removed it since.
        self._last_note: _Note | None = None
        # Of the files here, as they were when they were last looked at.
        self._places: _Places = {}

    def pull(self, *, leave: Collection[str] = ()) -> None:
        """Make the local folder the same as the run at the address.

        What was changed here and did not get there stays, unless somebody else has changed the run
        meanwhile: then only evaluations that another command here may be making stay. What is
        damaged here is fetched again. From where there is no run nothing is fetched.

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
        note = self._noted(theirs)
        if note is not None and note.same and not ours:
            # Somebody has removed the copy; that is no wish to remove the run.
            note = None
        noted = None if note is None else note.same
        seen = theirs
        ahead = noted is not None and _is_ahead(theirs, ours, noted)
        if RUN_DESCRIPTION not in theirs:
            # No run, or one that has not arrived yet: all that is wanted of it is here.
            theirs = {name: theirs[name] for name in theirs if ahead and name in ours}
        if note is not None and noted is not None and ahead:
            # Others may have added files, e.g. of an evaluation.
            wanted = [name for name in theirs if name not in ours and name not in noted]
            damaged = self._damaged(theirs, ours, note)
            wanted += damaged
            for name in damaged:
                if not is_below(name, leave):
                    warn(f"{self.local / name}: damaged on this disk; fetched again")
            stale: list[str] = []
            same = noted | _common(theirs, ours)
        else:
            # Killed from here on, nothing that is here may be taken for newer.
            self._note.unlink(missing_ok=True)
            if note is not None:
                self._last_note = note
            kept = self._unsent_evaluations(theirs, ours)
            wanted = [n for n in theirs if ours.get(n) != theirs[n] and n not in kept]
            stale = [name for name in ours if name not in theirs and name not in kept]
            stale += [n for n in wanted if n in ours]
            same = {name: state for name, state in theirs.items() if name not in wanted}
        wanted = [name for name in wanted if not is_below(name, leave)]
        # What makes others valid goes first.
        for name in sorted(stale, key=validity)[::-1]:
            (self.local / name).unlink(missing_ok=True)
        self._remove_empty_folders()
        self._transfer("pull the run", self._download, wanted, states=theirs)
        self._make_durable(wanted)
        for name in wanted:
            ours[name], self._places[name] = theirs[name], _place(self.local / name)
        same |= {name: theirs[name] for name in wanted}
        self._write_note(_Note(same, seen, places=self._placed(same, ours, note)))

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
            # Where nothing is known, what lies there now is what will be replaced.
            note = self._noted(theirs) or _Note({}, theirs)
            noted = note.same
            if RUN_DESCRIPTION in noted and not ours:
                raise ModelError(
                    f"{self.local}: this copy of {self.remote} has been removed, so nothing was "
                    "sent; run the command again"
                )
            damaged = self._damaged(theirs, ours, note)
            for name in damaged:
                warn(f"{self.local / name}: damaged on this disk; not sent")
            changed = [
                name
                for name, state in ours.items()
                if state not in (noted.get(name), theirs.get(name)) and name not in damaged
            ]
            gone = [name for name in noted if name not in ours and theirs.get(name) == noted[name]]
            gone = [name for name in gone if name not in damaged]
            is_new = RUN_DESCRIPTION not in theirs
            if is_new:
                # Of an earlier run whose description has gone nothing may be taken for this one's.
                gone += [n for n in theirs if n not in ours and n not in gone and is_result(n)]
            touched = {folder_of(name) for name in [*changed, *gone] if not is_seal(name)}
            # Not of a state that has gone here: it is valid until newer ones have arrived.
            seals = [name for name in theirs if name in ours and seals_any(name, touched)]
            changed += [name for name in seals if name not in changed]
            sent: _Sent = {name: [ours[name]] for name in changed}
            for name in [*gone, *seals]:
                sent.setdefault(name, []).append(None)
            for name in sorted(sent):
                if theirs.get(name) != ours.get(name) and not note.knows(name, theirs.get(name)):
                    raise _changed(f"{self.remote}/{name}")
            for name, states in note.sent.items():
                sent[name] = states + [new for new in sent.get(name, []) if new not in states]
            self._make_durable(changed)
            # Noted first: whatever of it is found there later is this side's.
            self._write_note(_Note(noted, note.seen, sent, note.places))
            if is_new:
                self._remove(gone)
                gone = []
            self._remove(seals)
            for rank in sorted({validity(name) for name in changed}):
                names = [name for name in changed if validity(name) == rank]
                self._transfer("push the run", self._upload, names, states=ours)
            self._remove(gone)
            same = {name: state for name, state in noted.items() if name in ours}
            same |= _common(theirs, ours)
            same |= {name: ours[name] for name in changed}
            self._write_note(_Note(same, note.seen, places=self._placed(same, ours, note)))

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
        return {name: _State(entry["size"], entry["crc32c"]) for name, entry in entries.items()}

    def _ours(self) -> _States:
        from tagger.cloud.transfers import crc32c_of_file

        files = [path for path in self.local.rglob("*") if path.is_file()]
        names = {path.relative_to(self.local).as_posix(): path for path in files}
        names = {name: path for name, path in names.items() if TEMPORARY_PREFIX not in name}
        # Asked before they are read: what is written meanwhile is then of another place.
        self._places = {name: _place(path) for name, path in names.items()}
        return {
            name: _State(path.stat().st_size, crc32c_of_file(path)) for name, path in names.items()
        }

    def _damaged(self, theirs: _States, ours: _States, note: _Note) -> list[str]:
        """List what the disk has damaged, and is whole at the address; see `Mirror`."""

        def is_damaged(name: str, good: _State) -> bool:
            found = ours.get(name)
            if found is None:
                # Results may be removed, but what a run is made of never is.
                return not is_result(name)
            if found == good:
                return False
            if name == RUN_DESCRIPTION or found.size == 0:
                return True
            return note.places.get(name) == self._places[name]

        return [
            name
            for name, state in note.same.items()
            if theirs.get(name) == state and is_damaged(name, state)
        ]

    def _unsent_evaluations(self, theirs: _States, ours: _States) -> _States:
        """States of what evaluations of this very run have written here, and nobody else there."""
        note = self._last_note
        if note is None:
            return {}
        noted = note.same
        if theirs.get(RUN_DESCRIPTION) != noted.get(RUN_DESCRIPTION):
            return {}
        damaged = self._damaged(theirs, ours, note)
        return {
            name: state
            for name, state in ours.items()
            if is_below(name, _EVALUATIONS)
            and theirs.get(name) == noted.get(name) != state
            and name not in damaged
        }

    def _placed(self, same: _States, ours: _States, note: _Note | None) -> _Places:
        """Places of what is the same on both sides; of what is not here, those of before."""
        before = {} if note is None else note.places
        places = {
            name: self._places[name] if ours.get(name) == state else before.get(name)
            for name, state in same.items()
        }
        return {name: place for name, place in places.items() if place is not None}

    def _make_durable(self, names: list[str]) -> None:
        from tagger.cloud.transfers import in_threads

        paths = [self.local / name for name in names]
        in_threads(sync_file, paths)
        folders = {parent for path in paths for parent in path.parents}
        for folder in folders:
            if folder.is_relative_to(self.local.parent):
                sync_folder(folder)

    def _noted(self, theirs: _States) -> _Note | None:
        """Read what is known of the last time; None if nobody knows.

        What a push that failed is found to have sent counts as the same.
        """
        try:
            content = json.loads(self._note.read_text(encoding="utf-8"))
            noted = {name: _State(*state) for name, state in content["files"].items()}
            seen = {name: _State(*state) for name, state in content.get("seen", {}).items()}
            sent = {
                name: [state and _State(*state) for state in states]
                for name, states in content.get("sent", {}).items()
            }
            # Earlier releases noted none.
            places = {name: (at[0], at[1]) for name, at in content.get("places", {}).items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
        for name, states in sent.items():
            found = theirs.get(name)
            if found not in states:
                continue
            places.pop(name, None)
            if found is None:
                noted.pop(name, None)
            else:
                noted[name] = found
        return _Note(noted, seen, sent, places)

    def _write_note(self, note: _Note) -> None:
        files = {name: [state.size, state.crc32c] for name, state in note.same.items()}
        seen = {
            name: [state.size, state.crc32c]
            for name, state in note.seen.items()
            if note.same.get(name) != state
        }
        sent = {
            name: [state and [state.size, state.crc32c] for state in states]
            for name, states in note.sent.items()
        }
        content = {"files": files, "seen": seen, "sent": sent, "places": note.places}
        write_json(self._note, {"address": str(self.remote), **content})

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

    def _transfer(
        self, title: str, work: Callable[[str], None], names: list[str], *, states: _States
    ) -> None:
        from tagger.cloud.transfers import in_threads

        if sum(states[name].size for name in names) < _QUIET_BYTES:
            in_threads(work, names)
            return
        with progress_bar(title, len(names)) as advance:
            in_threads(work, names, advance=advance)

    def _remove_empty_folders(self) -> None:
        for path in sorted(self.local.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _changed(address: str) -> RunChangedError:
    return RunChangedError(
        f"{address}: another machine has written it since this one last read the run, and it was "
        "not overwritten: let one machine at a time work on a run, and start this one again to "
        "take over what is there, or choose another run.root"
    )


def _is_ahead(theirs: _States, ours: _States, noted: _States) -> bool:
    """Whether only this side has changed anything since both were the same."""
    # Another run may have been started there, of whose files none was known.
    names = {*noted, *(name for name in theirs if name == RUN_DESCRIPTION)}
    return all(
        theirs.get(name) in (noted.get(name), ours.get(name))
        # What a push that was killed has unsealed.
        or (name not in theirs and is_seal(name))
        for name in names
    )


def _place(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _common(theirs: _States, ours: _States) -> _States:
    return {name: state for name, state in ours.items() if theirs.get(name) == state}
