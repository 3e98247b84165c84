"""A prediction as a notebook shows it: taggram, scores and a player."""

import base64
import html
from pathlib import Path
from typing import TYPE_CHECKING

from tagger.base.text import drawable
from tagger.tagging.taggram_html import SCRIPT, STYLE, taggram_html
from tagger.tagging.taggram_view import taggram_view

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction

# A notebook keeps what it shows: larger files are left where they are.
_LARGEST_FILE = 8_000_000
_TYPES = {
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".wav": "audio/wav",
}


def prediction_html(prediction: "Prediction") -> str:
    """Write a prediction as HTML that needs nothing else.

    Parameters
    ----------
    prediction : Prediction
        What to show. The file is played if it is there and not large.
    """
    view = taggram_view(prediction)
    # Another one in the same notebook has a player of its own.
    name = f"tagger-{abs(hash(prediction)):x}"
    player = _player(Path(prediction.path), name)
    title = html.escape(drawable(view.title)) or "waveform"
    return (
        f"<style>{STYLE}</style><b>{title}</b> ({prediction.seconds:.1f} s){player}"
        f"{taggram_html(view, player=name if player else '')}<script>{SCRIPT}</script>"
    )


def _player(path: Path, name: str) -> str:
    kind = _TYPES.get(path.suffix.lower())
    try:
        if kind is None or path.stat().st_size > _LARGEST_FILE:
            return ""
        content = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return ""
    return f'<br><audio id="{name}" controls src="data:{kind};base64,{content}"></audio>'
