"""What a file was before tags were written into it: noted within it, so that it comes back."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tagger.base.errors import AudioError
from tagger.tagging.tag_fields import BACKUP_FIELD, FIELDS, Field, Fields

_PADDING, _DELTA = "padding", "delta"
_MOST_PADDING = 1 << 24


@dataclass(frozen=True)
class Backup:
    """What a file was.

    Parameters
    ----------
    values : dict of str to list of str
        What fields held.
    padding : int, optional
        Bytes of room behind the fields.
    delta : str, optional
        What differs still once fields and room are as they were: other programs write the same
        fields in another order or encoding. See `tagger.tagging.byte_delta`.
    """

    values: dict[Field, list[str]] = field(default_factory=dict)
    padding: int | None = None
    delta: str | None = None

    @classmethod
    def of(cls, fields: Fields, path: Path) -> "Backup":
        """Read the backup of a file, which is called `path`.

        Raises
        ------
        AudioError
            If another program has changed what was noted.
        """
        try:
            kept: Any = json.loads(fields.backup() or "{}")
        except ValueError:
            kept = None
        # Of earlier releases: the genre alone.
        kept = {"genre": kept} if isinstance(kept, list) else kept
        if not isinstance(kept, dict):
            raise _changed(path)
        padding, delta = kept.pop(_PADDING, None), kept.pop(_DELTA, None)
        if not all(
            name in FIELDS
            and isinstance(values, list)
            and all(isinstance(value, str) for value in values)
            for name, values in kept.items()
        ):
            raise _changed(path)
        if not isinstance(padding, int) or not 0 <= padding <= _MOST_PADDING:
            padding = None
        return cls(kept, padding, delta if isinstance(delta, str) else None)

    def note(self, fields: Fields) -> None:
        """Write it into the file's fields."""
        noted: dict[str, Any] = {str(name): values for name, values in self.values.items()}
        for name, value in ((_PADDING, self.padding), (_DELTA, self.delta)):
            if value is not None:
                noted[name] = value
        fields.set_backup(json.dumps(noted))

    def restore(self, fields: Fields) -> None:
        """Make fields what they were."""
        for name, values in self.values.items():
            fields.set_values(name, values)
        fields.set_backup(None)
        fields.padding = self.padding


def _changed(path: Path) -> AudioError:
    return AudioError(
        f"{path}: its field {BACKUP_FIELD} was changed by another program and cannot be put "
        "back; set its fields with a tag editor, and remove that field"
    )
