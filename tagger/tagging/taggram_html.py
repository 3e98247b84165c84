"""Taggrams as HTML: names and scores stay text, at any width, in light and dark.

Nothing in it is a style attribute: a page may forbid these, and reports do.
"""

import base64
import html
import struct
import zlib

import numpy as np
import numpy.typing as npt

from tagger.base.text import drawable
from tagger.tagging.taggram_view import TaggramView, strength, time_marks

# The report's blue; how strong it is shows the score.
_BLUE = (0, 114, 178)
_ROW = 20

STYLE = """
.tg { display: grid; grid-template-columns: max-content minmax(0, 1fr) max-content;
  column-gap: 10px; max-width: 1100px; margin: 8px 0 14px; font-size: 13px; line-height: 20px;
  font-variant-numeric: tabular-nums; }
.tg-names { text-align: right; }
.tg-names span, .tg-scores span { display: block; height: 20px; white-space: nowrap; }
.tg-names span { max-width: 24ch; overflow: hidden; text-overflow: ellipsis; }
.tg-names .tg-on, .tg-scores .tg-on { font-weight: 650; }
.tg-names .tg-true::before { content: "\\25cf\\00a0"; color: #d55e00; }
.tg-gap { height: 36px; }
.tg-wave { height: 36px; display: block; width: 100%; fill: #8d939b; }
.tg-time { position: relative; cursor: pointer; border-left: 1px solid #8d939b;
  border-right: 1px solid #8d939b; background: #8d939b1f; }
.tg-time:focus-visible { outline: 2px solid #0067a3; outline-offset: 2px; }
.tg-cells { display: block; width: 100%; }
@media (prefers-color-scheme: dark) { .tg-cells, .tg-bar { filter: brightness(1.4); } }
.tg-axis { display: block; width: 100%; height: 20px; overflow: visible; fill: currentColor;
  stroke: currentColor; font-size: 11px; }
.tg-axis text { stroke: none; opacity: 0.75; }
.tg-head { position: absolute; top: 0; bottom: 20px; left: 0; width: 2px; background: #d55e00;
  display: none; pointer-events: none; }
.tg-scores svg { width: 70px; height: 12px; vertical-align: -1px; margin-right: 6px; }
.tg-bar { fill: #0072b2; opacity: 0.45; } .tg-limit { stroke: #d55e00; stroke-width: 2; }
.tg-frame { fill: none; stroke: #8d939b; opacity: 0.5; }
@media (max-width: 640px) { .tg { column-gap: 6px; font-size: 12px; }
  .tg-names span { max-width: 13ch; } .tg-scores svg { display: none; } }
"""

# The playhead of each taggram that has a player, and a jump to where it is clicked.
SCRIPT = """
for (const time of document.querySelectorAll(".tg-time[data-player]")) {
  const sound = document.getElementById(time.dataset.player);
  const head = time.querySelector(".tg-head");
  const seconds = Number(time.dataset.seconds);
  if (!sound) continue;
  const show = () => {
    head.style.display = "block";
    head.style.left = `${Math.min(100, (100 * sound.currentTime) / seconds)}%`;
    if (!sound.paused) requestAnimationFrame(show);
  };
  sound.addEventListener("play", show);
  sound.addEventListener("seeked", show);
  const jump = (share) => { sound.currentTime = share * seconds; sound.play(); };
  time.addEventListener("click", (event) => {
    const box = time.getBoundingClientRect();
    jump((event.clientX - box.left) / box.width);
  });
  time.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -5, ArrowRight: 5 }[event.key];
    if (step) { sound.currentTime = Math.max(0, sound.currentTime + step); show(); }
    else if (event.key === " ") { sound.paused ? sound.play() : sound.pause(); }
    else return;
    event.preventDefault();
  });
}
"""


def taggram_html(view: TaggramView, *, player: str = "") -> str:
    """Write a taggram as HTML, for pages that have `STYLE`.

    Parameters
    ----------
    view : TaggramView
        What to show.
    player : str
        Id of the element that plays the clip, for `SCRIPT`; empty for none.
    """
    applies = [
        bool(score >= limit) for score, limit in zip(view.scores, view.thresholds, strict=True)
    ]
    names = [
        f'<span class="{_classes(on, mark)}" title="{_text(tag)}">{_text(tag)}</span>'
        for tag, on, mark in zip(view.tags, applies, view.marked, strict=True)
    ]
    scores = [
        f'<span class="{_classes(on, False)}">{_bar(float(score), float(limit))}{score:.2f}</span>'
        for score, limit, on in zip(view.scores, view.thresholds, applies, strict=True)
    ]
    more = f' data-player="{_text(player)}" tabindex="0" role="slider"' if player else ""
    if player:
        more += f' aria-label="Time in {_text(view.title)}" aria-valuenow="0"'
    height = _ROW * len(view.tags)
    picture = base64.b64encode(png(_blue(view.cells))).decode("ascii")
    alt = f"Scores of {len(view.tags)} tags over {view.seconds:.0f} seconds"
    gap = _gap(view)
    return (
        f'<div class="tg"><div class="tg-names">{gap}{"".join(names)}</div>'
        f'<div class="tg-time" data-seconds="{view.seconds:.3f}"{more}>{_wave(view)}'
        f'<svg class="tg-cells" height="{height}" role="img" aria-label="{_text(alt)}">'
        f'<image href="data:image/png;base64,{picture}" width="100%" height="100%" '
        'preserveAspectRatio="none" image-rendering="pixelated"/></svg>'
        f'{_axis(view.seconds)}<i class="tg-head"></i></div>'
        f'<div class="tg-scores">{gap}{"".join(scores)}</div></div>'
    )


def _text(value: str) -> str:
    return html.escape(drawable(value).replace("\0", "\ufffd"))


def _classes(on: bool, marked: bool) -> str:
    return " ".join(name for name, there in (("tg-on", on), ("tg-true", marked)) if there)


def _gap(view: TaggramView) -> str:
    """Room beside the waveform."""
    return "" if view.loudness is None else '<div class="tg-gap"></div>'


def _wave(view: TaggramView) -> str:
    if view.loudness is None:
        return ""
    heights = 50 * np.sqrt(view.loudness)
    top = " ".join(f"{x},{50 - y:.1f}" for x, y in enumerate(heights))
    bottom = " ".join(f"{x},{50 + y:.1f}" for x, y in reversed(list(enumerate(heights))))
    box = f'viewBox="0 0 {len(heights)} 100" preserveAspectRatio="none"'
    return f'<svg class="tg-wave" {box} aria-hidden="true"><polygon points="{top} {bottom}"/></svg>'


def _axis(seconds: float) -> str:
    parts = []
    for at, text in time_marks(seconds):
        share = 100 * at / seconds
        anchor = "start" if share < 3 else "end" if share > 97 else "middle"
        parts.append(
            f'<line x1="{share:.2f}%" x2="{share:.2f}%" y1="0" y2="4"/>'
            f'<text x="{share:.2f}%" y="16" text-anchor="{anchor}">{text}</text>'
        )
    return f'<svg class="tg-axis" aria-hidden="true">{"".join(parts)}</svg>'


def _bar(score: float, limit: float) -> str:
    """Bar of a score, with a mark where the tag begins to apply."""
    mark = ""
    if np.isfinite(limit):
        place = f"{100 * limit:.1f}%"
        mark = f'<line class="tg-limit" x1="{place}" x2="{place}" y1="0" y2="12"/>'
    return (
        '<svg aria-hidden="true"><rect class="tg-frame" width="100%" height="12"/>'
        f'<rect class="tg-bar" width="{100 * score:.1f}%" height="12"/>{mark}</svg>'
    )


def _blue(cells: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Pixels [shape=(n_rows, n_columns, 4)]: nothing where there is no score."""
    pixels = np.empty((*cells.shape, 4), dtype=np.uint8)
    pixels[..., :3] = _BLUE
    pixels[..., 3] = np.round(255 * strength(np.nan_to_num(cells)))
    return pixels


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode pixels [shape=(height, width, 4)] as a PNG (ISO/IEC 15948)."""
    height, width, _ = pixels.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    # Each line begins with how it is filtered: not at all.
    lines = np.zeros((height, 1 + 4 * width), dtype=np.uint8)
    lines[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
        + chunk(b"IEND", b"")
    )
