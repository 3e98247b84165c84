"""Tags in the audio file's own metadata, where players show them; undoable.

They go into the genre or another field. What stood there before is kept in a field of its own, so
that it can be put back.
"""

import contextlib
import filecmp
import os
import shutil
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tagger.base.errors import AudioError
from tagger.base.files import TEMPORARY_PREFIX, sync_folder
from tagger.tagging.byte_delta import apply_delta, delta_between
from tagger.tagging.encoded_audio import encoded_audio_digest
from tagger.tagging.tag_backup import Backup
from tagger.tagging.tag_fields import (
    FIELDS,
    Field,
    Fields,
    Id3Fields,
    Mp4Fields,
    VorbisFields,
)

# Containers of chunks: magic, byte order of lengths, the chunk that holds the audio.
_CHUNKED: dict[bytes, tuple[Literal["little", "big"], bytes]] = {
    b"RIFF": ("little", b"data"),
    b"FORM": ("big", b"SSND"),
}

# What mutagen lets through for damaged files beside its own errors.
_DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    # For a chunk as long as its header says.
    MemoryError,
    struct.error,
)

_LONGEST_SUFFIX = 16

_REMEDY_FORMAT = "convert it to mp3, flac, ogg, opus, m4a, wav or aiff"


@dataclass(frozen=True)
class Writing:
    """How tags are written.

    Parameters
    ----------
    field : {"genre", "mood", "comment", "grouping"}
        Where to.
    append : bool
        Behind what stands there, in place of it.
    only_if_empty : bool
        Leave files alone whose field is filled.
    touch : bool
        Give changed files the time of now, by which players notice that they have changed.
    """

    field: Field = "genre"
    append: bool = False
    only_if_empty: bool = False
    touch: bool = False


@dataclass(frozen=True)
class Change:
    """What a file's field holds, and what it would.

    Parameters
    ----------
    old, new : list of str
        Values of the field now, and then.
    """

    old: list[str]
    new: list[str]


def write_tags(path: Path, labels: Sequence[str], writing: Writing | None = None) -> Change:
    """Write labels into a field of a file.

    Parameters
    ----------
    path : Path
        mp3, wav, aiff (ID3), flac, ogg, opus (Vorbis comments) or m4a. It is replaced by a changed
        copy: it is whole at any time, and its audio stays as it is.
    labels : sequence of str
        The tags. Without any, what stood there before is put back.
    writing : Writing, optional
        Where to and how; default in place of the genre.

    Returns
    -------
    Change
        What the field held and holds.

    Raises
    ------
    AudioError
        If the file is missing, read-only, damaged, or its format has no such field. The message
        names the file and the remedy.
    """
    how, cleaned = writing or Writing(), [_one_line(label) for label in labels]
    found: list[Change] = []

    def change(fields: Fields) -> bool:
        planned, backup = _planned(path, fields, cleaned, how)
        found[:] = [planned]
        if planned.new == planned.old:
            return False
        if planned.new == backup.values[how.field]:
            backup.values.pop(how.field)
        if backup.values:
            if backup.padding is None:
                backup = replace(backup, padding=fields.padding)
            backup.note(fields)
            fields.padding = None
        else:
            backup.restore(fields)
        fields.set_values(how.field, planned.new)
        return True

    _edit(Path(path), change, touch=how.touch)
    return found[0]


def planned_change(path: Path, labels: Sequence[str], writing: Writing | None = None) -> Change:
    """Say what `write_tags` would do; nothing is written.

    Raises
    ------
    AudioError
        If the file is missing or damaged, or its format has no such field.
    """
    cleaned = [_one_line(label) for label in labels]
    if not path.is_file():
        raise AudioError(f"{path}: no such file; check the path")
    return _planned(path, _open(path, path)[1], cleaned, writing or Writing())[0]


def _planned(path: Path, fields: Fields, labels: list[str], how: Writing) -> tuple[Change, Backup]:
    """Change of a field, and what the file was before tags were written into it."""
    present = fields.values(how.field)
    before = Backup.of(fields, path)
    original = before.values.setdefault(how.field, present)
    if not labels or (how.only_if_empty and original):
        return Change(present, original), before
    if how.append:
        known = {value.casefold() for value in original}
        labels = [*original, *(label for label in labels if label.casefold() not in known)]
    return Change(present, fields.as_stored(how.field, labels)), before


def undo_tags(path: Path) -> bool:
    """Put back what a file's fields held before `write_tags`.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bool
        False if there is nothing to undo; the file is then left as it is.

    Raises
    ------
    AudioError
        See `write_tags`.
    """

    def change(fields: Fields) -> bool:
        if fields.backup() is None:
            return False
        Backup.of(fields, path).restore(fields)
        return True

    return _edit(Path(path), change)


def _one_line(label: str) -> str:
    """Write a label without control characters: a NUL would end it."""
    return "".join(character if character.isprintable() else " " for character in label).strip()


def _open(path: Path, name: Path) -> tuple[Any, Fields]:
    """Read the metadata of `path`; messages call it `name`."""
    import mutagen
    from mutagen._vorbis import VComment
    from mutagen.id3 import ID3
    from mutagen.mp3 import MP3
    from mutagen.mp4 import MP4Tags

    kinds: dict[type[Any], type[Fields]] = {
        ID3: Id3Fields,
        VComment: VorbisFields,
        MP4Tags: Mp4Fields,
    }
    with _one_message(name, "read"):
        audio: Any = mutagen.File(path)
        if isinstance(audio, MP3):
            # Without what an ID3v1 tag says: it would be copied into the new tag.
            audio = MP3(path, load_v1=False)
        if audio is not None and audio.tags is None:
            with contextlib.suppress(mutagen.MutagenError, NotImplementedError):
                audio.add_tags()
    tags = None if audio is None else audio.tags
    for kind, fields in kinds.items():
        if isinstance(tags, kind):
            return audio, fields(tags)
    raise AudioError(f"{name}: its format has no genre field; {_REMEDY_FORMAT}")


@contextlib.contextmanager
def _one_message(name: Path, verb: str) -> Iterator[None]:
    """Turn what mutagen raises for a file into one line."""
    import mutagen

    try:
        yield
    except (mutagen.MutagenError, *_DAMAGE) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise AudioError(
            f"{name}: its metadata cannot be {verb} ({reason}); copy or download the file again, "
            f"or {_REMEDY_FORMAT}"
        ) from None


def _edit(path: Path, change: Callable[[Fields], bool], *, touch: bool = False) -> bool:
    """Apply `change` to a copy of the file that then takes its place; False if it changes nothing.

    A link stays a link: the file that it leads to is changed.
    """
    try:
        real = path.resolve(strict=True)
        status = real.stat()
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{path}: is no audio file; give one")
        # The superuser may write anything: the wish that nobody does is respected all the same.
        if not status.st_mode & 0o222 or not os.access(real, os.W_OK):
            raise AudioError(
                f"{path}: is read-only, no tags were written into it; change its permissions"
            )
        if not change(_open(real, path)[1]):
            return False
        if not _lengths_are_true(real):
            raise _damaged(path)
        before = _audio_of(real, path)
        temporary = _copy(real)
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file; check the path") from None
    except (OSError, RuntimeError) as error:
        raise _unwritable(path, error) from None
    try:
        audio, fields = _open(temporary, path)
        with _one_message(path, "written"):
            expected = _change_copy(audio, fields, temporary, change=change, real=real, name=path)
        written = _open(temporary, path)[1]
        if [written.values(field) for field in FIELDS] != expected:
            raise _damaged(path)
        if _audio_of(temporary, path) != before:
            raise AudioError(
                f"{path}: its audio would not survive, no tags were written into it; make a new "
                f"file with 'ffmpeg -i {path.name} -c copy NEW{path.suffix}' and tag that"
            )
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if touch:
            os.utime(temporary)
        else:
            os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        temporary.replace(real)
        sync_folder(real.parent)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _change_copy(
    audio: Any,
    fields: Fields,
    copy: Path,
    *,
    change: Callable[[Fields], bool],
    real: Path,
    name: Path,
) -> list[list[str]]:
    """Change the fields of a copy of a file; return what they should hold then."""
    is_first = fields.backup() is None
    if is_first:
        fields.padding = _padding(audio, fields, copy)
    delta = None if is_first else Backup.of(fields, name).delta
    change(fields)
    expected = [fields.values(field) for field in FIELDS]
    _save(audio, fields, copy)
    if fields.backup() is None:
        if delta is not None:
            _apply(delta, copy)
    elif is_first:
        _note_delta(audio, fields, copy, real=real, name=name)
    return expected


def _save(audio: Any, fields: Fields, path: Path) -> None:
    left = fields.padding
    fields.save(audio, path, None if left is None else lambda _: left)


def _note_delta(audio: Any, fields: Fields, copy: Path, *, real: Path, name: Path) -> None:
    """Note what would not be as it was when fields and room alone came back."""
    trial = _copy(copy)
    try:
        trial_audio, undone = _open(trial, name)
        Backup.of(undone, name).restore(undone)
        _save(trial_audio, undone, trial)
        if filecmp.cmp(trial, real, shallow=False):
            return
        delta = delta_between(trial, real)
    finally:
        trial.unlink(missing_ok=True)
    if delta is not None:
        replace(Backup.of(fields, name), delta=delta).note(fields)
        _save(audio, fields, copy)


def _apply(delta: str, copy: Path) -> None:
    made = _copy(copy)
    try:
        # Not where another program has changed the file since.
        if apply_delta(copy, delta, made):
            made.replace(copy)
    finally:
        made.unlink(missing_ok=True)


def _padding(audio: Any, fields: Fields, path: Path) -> int | None:
    """Bytes behind the fields of a file, which is written as it is to find out."""
    found: list[int] = []

    def as_it_is(info: Any) -> int:
        found.append(info.padding)
        return max(0, int(info.padding))

    if isinstance(fields, Id3Fields) and not fields.tags:
        return None
    fields.save(audio, path, as_it_is)
    return max(0, found[0]) if found else None


def _audio_of(path: Path, name: Path) -> str:
    try:
        return encoded_audio_digest(path)
    except ValueError:
        raise _damaged(name) from None


def _lengths_are_true(path: Path) -> bool:
    """Tell whether the header of a file of chunks says where its audio ends.

    Programs that write into a pipe do not know, and new chunks would be put into the audio.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(4)
        if magic not in _CHUNKED:
            return True
        byte_order, audio_chunk = _CHUNKED[magic]
        end = 8 + int.from_bytes(file.read(4), byte_order)
        position = 12
        while position + 8 <= size:
            file.seek(position)
            chunk = file.read(8)
            length = int.from_bytes(chunk[4:], byte_order)
            if chunk[:4] == audio_chunk:
                # Chunks of odd length are padded, which not every program counts.
                return length > 0 and position + 8 + length <= end + 1 <= size + 2
            position += 8 + length + (length & 1)
    return False


def _damaged(path: Path) -> AudioError:
    return AudioError(
        f"{path}: its header is damaged, no tags were written into it; export it again, e.g. with "
        "ffmpeg -i"
    )


def _copy(path: Path) -> Path:
    """Copy a file with its owner, permissions and attributes to a temporary one beside it."""
    # The suffix stays: formats are also known by it.
    suffix = path.suffix if len(path.suffix) < _LONGEST_SUFFIX else ""
    descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=suffix, dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        shutil.copyfile(path, temporary)
        shutil.copystat(path, temporary)
        status = path.stat()
        # Only the superuser may give files away; others own what they may write, or get a copy.
        with contextlib.suppress(PermissionError):
            os.chown(temporary, status.st_uid, status.st_gid)
            # Changing the owner takes special bits away.
            temporary.chmod(stat.S_IMODE(status.st_mode))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _unwritable(path: Path, error: OSError | RuntimeError) -> AudioError:
    reason = getattr(error, "strerror", None) or str(error)
    return AudioError(
        f"{path}: tags cannot be written ({reason}); check the permissions of its folder and the "
        "disk space"
    )
