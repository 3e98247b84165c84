"""Tags in the audio file's own metadata, where players show them; undoable.

They go into the genre field. What stood there before is kept in a field of its own, so that it can
be put back.
"""

import contextlib
import json
import os
import shutil
import stat
import struct
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from tagger.base.errors import AudioError
from tagger.base.files import TEMPORARY_PREFIX, sync_folder
from tagger.tagging.encoded_audio import encoded_audio_digest

BACKUP_FIELD = "TAGGER_GENRE_BACKUP"

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

_REMEDY_FORMAT = "convert it to mp3, flac, ogg, opus, m4a, wav or aiff"


def write_tags(path: Path, labels: Sequence[str]) -> None:
    """Write labels into a file's genre field.

    Parameters
    ----------
    path : Path
        mp3, wav, aiff (ID3), flac, ogg, opus (Vorbis comments) or m4a. It is replaced by a changed
        copy: it is whole at any time, and its audio stays as it is.
    labels : sequence of str
        The tags. Without any, a genre of before is put back as by `undo_tags`.

    Raises
    ------
    AudioError
        If the file is missing, read-only, damaged, or its format has no such field. The message
        names the file and the remedy.
    """
    cleaned = [_one_line(label) for label in labels]
    if not cleaned:
        undo_tags(path)
        return

    def change(fields: _Fields) -> bool:
        present = fields.genre()
        if fields.backup() is not None:
            # Written before: what stands there now is no genre of the user's.
            if present == fields.as_stored(cleaned):
                return False
        else:
            fields.set_backup(json.dumps(present))
        fields.set_genre(fields.as_stored(cleaned))
        return True

    _edit(Path(path), change)


def undo_tags(path: Path) -> bool:
    """Put back the genre that a file had before `write_tags`.

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

    def change(fields: _Fields) -> bool:
        backup = fields.backup()
        if backup is None:
            return False
        try:
            genre = json.loads(backup)
        except ValueError:
            genre = None
        if not isinstance(genre, list) or not all(isinstance(value, str) for value in genre):
            raise AudioError(
                f"{path}: its field {BACKUP_FIELD} was changed by another program and cannot be "
                "put back; set the genre with a tag editor, and remove that field"
            )
        fields.set_genre(genre)
        fields.set_backup(None)
        return True

    return _edit(Path(path), change)


def _one_line(label: str) -> str:
    """Write a label without control characters: a NUL would end it."""
    return "".join(character if character.isprintable() else " " for character in label).strip()


class _Fields(ABC):
    """The genre field and the backup field of one kind of metadata.

    Parameters
    ----------
    tags : mutagen tags
        All fields of a file.
    """

    def __init__(self, tags: Any) -> None:
        self.tags = tags

    @abstractmethod
    def genre(self) -> list[str]:
        """Values of the genre field; empty if there is none."""

    @abstractmethod
    def set_genre(self, values: list[str]) -> None:
        """Set the genre field, or remove it where there are no values."""

    @abstractmethod
    def backup(self) -> str | None:
        """Content of the backup field."""

    @abstractmethod
    def set_backup(self, content: str | None) -> None:
        """Set the backup field, or remove it for None."""

    def as_stored(self, labels: list[str]) -> list[str]:
        """Labels as the genre field holds them."""
        return labels

    def save(self, audio: Any, path: Path) -> None:
        """Write all fields to the file."""
        audio.save(path)


class _Id3Fields(_Fields):
    """ID3v2: TCON and a TXXX frame."""

    @property
    def _old(self) -> bool:
        # Files stay in the version of ID3 that they have: not every player reads 2.4.
        return bool((2,) <= self.tags.version < (2, 4))

    def genre(self) -> list[str]:
        frame = self.tags.get("TCON")
        return [] if frame is None else [str(value) for value in frame.text]

    def set_genre(self, values: list[str]) -> None:
        from mutagen import id3

        self.tags.delall("TCON")
        if values:
            self.tags.add(id3.TCON(encoding=id3.Encoding.UTF8, text=values))

    def backup(self) -> str | None:
        frame = self.tags.get(f"TXXX:{BACKUP_FIELD}")
        return None if frame is None else str(frame.text[0]) if frame.text else ""

    def set_backup(self, content: str | None) -> None:
        from mutagen import id3

        self.tags.delall(f"TXXX:{BACKUP_FIELD}")
        if content is not None:
            text = [content]
            self.tags.add(id3.TXXX(encoding=id3.Encoding.UTF8, desc=BACKUP_FIELD, text=text))

    def as_stored(self, labels: list[str]) -> list[str]:
        from mutagen import id3

        # Before 2.4 a field has one value, and players show no more.
        values = ["; ".join(labels)] if self._old else labels
        # Numbers are those of a list of genres: "17" would be shown as "Rock".
        return [
            value if id3.TCON(text=[value]).genres == [value] else f"tag {value}"
            for value in values
        ]

    def save(self, audio: Any, path: Path) -> None:
        if self._old:
            self.tags.update_to_v23()
            # No separator: other fields with several values stay as they are.
            audio.save(path, v2_version=3, v23_sep=None)
        else:
            audio.save(path)


class _VorbisFields(_Fields):
    """Vorbis comments: GENRE and a field of its own."""

    def _set(self, name: str, values: list[str]) -> None:
        if values:
            self.tags[name] = values
        elif name in self.tags:
            del self.tags[name]

    def genre(self) -> list[str]:
        return list(self.tags.get("GENRE", []))

    def set_genre(self, values: list[str]) -> None:
        self._set("GENRE", values)

    def backup(self) -> str | None:
        values = self.tags.get(BACKUP_FIELD)
        return values[0] if values else None

    def set_backup(self, content: str | None) -> None:
        self._set(BACKUP_FIELD, [] if content is None else [content])


class _Mp4Fields(_Fields):
    """Atoms of iTunes: ©gen and a free-form one."""

    _GENRE = "\xa9gen"
    _BACKUP = f"----:com.apple.iTunes:{BACKUP_FIELD}"

    def _set(self, name: str, values: list[Any]) -> None:
        if values:
            self.tags[name] = values
        else:
            self.tags.pop(name, None)

    def genre(self) -> list[str]:
        return list(self.tags.get(self._GENRE, []))

    def set_genre(self, values: list[str]) -> None:
        self._set(self._GENRE, values)

    def backup(self) -> str | None:
        values = self.tags.get(self._BACKUP)
        return bytes(values[0]).decode("utf-8", "replace") if values else None

    def set_backup(self, content: str | None) -> None:
        from mutagen.mp4 import MP4FreeForm

        self._set(self._BACKUP, [] if content is None else [MP4FreeForm(content.encode())])


def _open(path: Path, name: Path) -> tuple[Any, _Fields]:
    """Read the metadata of `path`; messages call it `name`."""
    import mutagen
    from mutagen._vorbis import VComment
    from mutagen.id3 import ID3
    from mutagen.mp4 import MP4Tags

    kinds: dict[type[Any], type[_Fields]] = {
        ID3: _Id3Fields,
        VComment: _VorbisFields,
        MP4Tags: _Mp4Fields,
    }
    with _one_message(name, "read"):
        audio: Any = mutagen.File(path)
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


def _edit(path: Path, change: Callable[[_Fields], bool]) -> bool:
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
        change(fields)
        expected = fields.genre()
        with _one_message(path, "written"):
            fields.save(audio, temporary)
        if _open(temporary, path)[1].genre() != expected:
            raise _damaged(path)
        if _audio_of(temporary, path) != before:
            raise AudioError(
                f"{path}: its audio would not survive, no tags were written into it; make a new "
                f"file with 'ffmpeg -i {path.name} -c copy NEW{path.suffix}' and tag that"
            )
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(real)
        sync_folder(real.parent)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)
    return True


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
    descriptor, name = tempfile.mkstemp(
        prefix=TEMPORARY_PREFIX, suffix=path.suffix, dir=path.parent
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        shutil.copyfile(path, temporary)
        shutil.copystat(path, temporary)
        # The content will be another, which programs tell by this.
        os.utime(temporary)
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
