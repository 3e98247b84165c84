"""Fields of an audio file's own metadata, by the name that people know: each format has its own."""

# ruff: noqa: D102 (the contract documents what the formats do)

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

Field = Literal["genre", "mood", "comment", "grouping"]
FIELDS: tuple[Field, ...] = get_args(Field)
BACKUP_FIELD = "TAGGER_GENRE_BACKUP"
Padding = Callable[[Any], int] | None
# Between values where a field has but one.
JOINED = "; "
_ID3V1_BYTES = 128
# Players show one comment.
_SINGLE = ("comment", "grouping")


class Fields(ABC):
    """Fields of one kind of metadata, and a field for what they held before.

    Parameters
    ----------
    tags : mutagen tags
        All fields of a file.
    """

    def __init__(self, tags: Any) -> None:
        self.tags = tags
        # Bytes behind the fields, as far as it is known.
        self.padding: int | None = None

    @abstractmethod
    def values(self, field: Field) -> list[str]:
        """Values of a field; empty if there is none."""

    @abstractmethod
    def set_values(self, field: Field, values: list[str]) -> None:
        """Set a field, or remove it where there are no values."""

    @abstractmethod
    def backup(self) -> str | None:
        """Content of the backup field."""

    @abstractmethod
    def set_backup(self, content: str | None) -> None:
        """Set the backup field, or remove it for None."""

    def as_stored(self, field: Field, labels: list[str]) -> list[str]:
        """Labels as the field holds them: one by one where it can have several values."""
        return [JOINED.join(labels)] if labels and field in _SINGLE else labels

    def save(self, audio: Any, path: Path, padding: Padding = None) -> None:
        """Write all fields to the file.

        Parameters
        ----------
        audio : mutagen file
            What the fields are of.
        path : Path
            The file.
        padding : callable, optional
            What mutagen knows of the room behind the fields -> bytes that are left there.
        """
        audio.save(path, padding=padding)


class Id3Fields(Fields):
    """ID3v2: frames, and TXXX frames for what has none."""

    @property
    def _old(self) -> bool:
        # Files stay in the version of ID3 that they have: not every player reads 2.4.
        return bool((2,) <= self.tags.version < (2, 4))

    def _frame(self, field: Field) -> str:
        # Moods came with 2.4; before, programs agreed on a text frame of that name.
        mood = "TXXX:MOOD" if self._old else "TMOO"
        return {"genre": "TCON", "mood": mood, "comment": "COMM::eng", "grouping": "TIT1"}[field]

    def values(self, field: Field) -> list[str]:
        frame = self.tags.get(self._frame(field))
        if frame is None and field == "comment":
            # In whatever language.
            frame = next((one for one in self.tags.getall("COMM") if not one.desc), None)
        return [] if frame is None else [str(value) for value in frame.text]

    def set_values(self, field: Field, values: list[str]) -> None:
        from mutagen import id3

        name = self._frame(field)
        self.tags.delall(name)
        if field == "comment":
            for one in [one for one in self.tags.getall("COMM") if not one.desc]:
                self.tags.delall(one.HashKey)
        if not values:
            return
        utf8 = id3.Encoding.UTF8
        if name.startswith("TXXX:"):
            frame = id3.TXXX(encoding=utf8, desc=name.partition(":")[2], text=values)
        elif field == "comment":
            frame = id3.COMM(encoding=utf8, lang="eng", desc="", text=values)
        else:
            frame = getattr(id3, name)(encoding=utf8, text=values)
        self.tags.add(frame)

    def backup(self) -> str | None:
        frame = self.tags.get(f"TXXX:{BACKUP_FIELD}")
        return None if frame is None else str(frame.text[0]) if frame.text else ""

    def set_backup(self, content: str | None) -> None:
        from mutagen import id3

        self.tags.delall(f"TXXX:{BACKUP_FIELD}")
        if content is not None:
            text = [content]
            self.tags.add(id3.TXXX(encoding=id3.Encoding.UTF8, desc=BACKUP_FIELD, text=text))

    def as_stored(self, field: Field, labels: list[str]) -> list[str]:
        from mutagen import id3

        # Before 2.4 a field has one value, and players show no more.
        values = super().as_stored(field, labels)
        if self._old and values:
            values = [JOINED.join(values)]
        if field != "genre":
            return values
        # Numbers are those of a list of genres: "17" would be shown as "Rock".
        return [
            value if id3.TCON(text=[value]).genres == [value] else f"tag {value}"
            for value in values
        ]

    def save(self, audio: Any, path: Path, padding: Padding = None) -> None:
        from mutagen.id3 import ID3

        with path.open("r+b") as file:
            file.seek(-min(_ID3V1_BYTES, path.stat().st_size), os.SEEK_END)
            id3v1 = file.read()
            if type(self.tags) is ID3 and id3v1.startswith(b"TAG"):
                # It holds less, and shorter, than what it would be made of: it stays as it is.
                self._save(audio, path, padding)
                file.seek(-_ID3V1_BYTES, os.SEEK_END)
                file.write(id3v1)
            else:
                self._save(audio, path, padding)

    def _save(self, audio: Any, path: Path, padding: Padding) -> None:
        if not self.tags:
            # As it was before the first tag came into the file.
            self._delete(path)
        elif self._old:
            self.tags.update_to_v23()
            # No separator: other fields with several values stay as they are.
            audio.save(path, v2_version=3, v23_sep=None, padding=padding)
        else:
            audio.save(path, padding=padding)

    def _delete(self, path: Path) -> None:
        from mutagen.id3 import ID3

        if type(self.tags) is ID3:
            self.tags.delete(path, delete_v1=False)
        else:
            self.tags.delete(path)


class VorbisFields(Fields):
    """Vorbis comments: fields by their names."""

    def _set(self, name: str, values: list[str]) -> None:
        # In its place and in the spelling that it has, so that undoing leaves no trace.
        entries = list(list.__iter__(self.tags))
        same = [at for at, (key, _) in enumerate(entries) if key.upper() == name]
        spelling = entries[same[0]][0] if same else name
        others = [entry for at, entry in enumerate(entries) if at not in same]
        place = same[0] if same else len(others)
        others[place:place] = [(spelling, value) for value in values]
        self.tags[:] = others

    def values(self, field: Field) -> list[str]:
        return list(self.tags.get(field.upper(), []))

    def set_values(self, field: Field, values: list[str]) -> None:
        self._set(field.upper(), values)

    def backup(self) -> str | None:
        values = self.tags.get(BACKUP_FIELD)
        return values[0] if values else None

    def set_backup(self, content: str | None) -> None:
        self._set(BACKUP_FIELD, [] if content is None else [content])


class Mp4Fields(Fields):
    """Atoms of iTunes, and free-form ones for what has none."""

    _FREE = "----:com.apple.iTunes:"
    _ATOMS = {  # noqa: RUF012
        "genre": "\xa9gen",
        "mood": f"{_FREE}MOOD",
        "comment": "\xa9cmt",
        "grouping": "\xa9grp",
    }

    def _set(self, name: str, values: list[str]) -> None:
        from mutagen.mp4 import MP4FreeForm

        if not values:
            self.tags.pop(name, None)
        elif name.startswith(self._FREE):
            self.tags[name] = [MP4FreeForm(value.encode()) for value in values]
        else:
            self.tags[name] = values

    def _get(self, name: str) -> list[str]:
        values = self.tags.get(name, [])
        if name.startswith(self._FREE):
            return [bytes(value).decode("utf-8", "replace") for value in values]
        return list(values)

    def values(self, field: Field) -> list[str]:
        return self._get(self._ATOMS[field])

    def set_values(self, field: Field, values: list[str]) -> None:
        self._set(self._ATOMS[field], values)

    def backup(self) -> str | None:
        values = self._get(f"{self._FREE}{BACKUP_FIELD}")
        return values[0] if values else None

    def set_backup(self, content: str | None) -> None:
        self._set(f"{self._FREE}{BACKUP_FIELD}", [] if content is None else [content])
