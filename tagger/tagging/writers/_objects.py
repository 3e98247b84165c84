"""Records as JSON objects, for the formats that are made of them."""

import json
from typing import Any

from tagger.tagging.records import Record
from tagger.tagging.writers import TextWriter


class ListWriter(TextWriter):
    """One JSON list, of which each item is written as soon as its file is done."""

    _separator = "["

    def put_item(self, text: str) -> None:
        """Write an item, which is one line."""
        self.put(f"{self._separator}\n{text}")
        self._separator = ","

    def end(self) -> None:
        self.put("[]\n" if self._separator == "[" else "\n]\n")


def json_text(record: Record, encoding: str) -> str:
    """Write a record as one line of JSON.

    Parameters
    ----------
    record : Record
        The result for one file.
    encoding : str
        Of the stream; characters that it lacks are written as JSON escapes them.

    Returns
    -------
    str
        ``{"path", "seconds", "padded", "tags": [{"label", "score"}, ...]}``, where audio is missing
        its share as ``"missing"``, tags of segments also with ``"start"`` and ``"end"``; of a file
        that failed, ``{"path", "error"}``.
    """
    content: dict[str, Any]
    if record.error is not None:
        content = {"path": record.path, "error": record.error}
    else:
        tags = []
        for row in record.rows:
            tag: dict[str, Any] = {"label": row.label, "score": round(row.score, 6)}
            if row.start is not None and row.end is not None:
                tag |= {"start": round(row.start, 6), "end": round(row.end, 6)}
            tags.append(tag)
        content = {
            "path": record.path,
            "seconds": round(record.seconds, 6),
            "padded": record.padded,
            **({"missing": round(record.missing, 4)} if record.missing else {}),
            "tags": tags,
        }
    text = json.dumps(content, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(content)
    return text
