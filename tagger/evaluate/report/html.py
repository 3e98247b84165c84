"""A report as one HTML file that asks for nothing else: pictures, sound and sorting are in it."""

import base64
import hashlib
import html
import re
from collections.abc import Iterator, Mapping

from tagger.base.blocks import (
    Block,
    Cell,
    Code,
    Heading,
    Listing,
    Number,
    Paragraph,
    Picture,
    Player,
    Report,
    Table,
    Taggram,
    Verdict,
)
from tagger.base.text import drawable
from tagger.evaluate.report.excerpts import MEDIA_TYPES
from tagger.tagging.taggram_html import SCRIPT, STYLE

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c1e21; --quiet: #5c6269;
  --line: #dfe2e6; --strong: #eef4f9; --link: #0067a3; --alarm: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e6e8eb;
  --quiet: #a3a9b1; --line: #33373d; --strong: #202a33; --link: #6cbcf0;
  --alarm: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 24px 40px 80px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
  "Liberation Sans", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 26px; line-height: 1.25; margin: 8px 0 12px; }
h2 { font-size: 20px; margin: 44px 0 8px; padding-top: 12px; border-top: 1px solid var(--line); }
h3 { font-size: 16px; margin: 24px 0 4px; }
p, ul { max-width: 90ch; margin: 6px 0 10px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 20px; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
.scroll { overflow: auto; margin: 10px 0 16px; max-width: 100%; }
.long { max-height: 85vh; border: 1px solid var(--line); border-radius: 4px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
.long table { width: 100%; }
th, td { padding: 4px 12px; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; overflow-wrap: normal; }
td { overflow-wrap: break-word; max-width: 60ch; }
td:first-child { min-width: 9ch; }
.long thead th { position: sticky; top: 0; background: var(--paper); z-index: 1;
  box-shadow: 0 1px 0 var(--line); padding: 4px 7px; }
.long td { padding: 3px 7px; }
.long td:first-child { min-width: 16ch; }
.n { text-align: right; }
td.n { white-space: nowrap; }
.n small { display: block; }
.long .n small { display: inline; margin-left: 6px; }
tr.strong td { background: var(--strong); font-weight: 600; }
tr.strong small { font-weight: 400; }
.verdict { font-size: 19px; line-height: 1.35; padding: 10px 14px; border-left: 4px solid
  var(--link); background: var(--strong); max-width: none; }
.alarm { color: var(--alarm); font-weight: 600; }
small { color: var(--quiet); font-size: 12px; }
th button { all: unset; cursor: pointer; font: inherit; }
th button:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
th button::after { content: "\\00a0\\2195"; color: var(--quiet); font-weight: 400; }
th[aria-sort=ascending] button::after { content: "\\00a0\\2191"; color: var(--link); }
th[aria-sort=descending] button::after { content: "\\00a0\\2193"; color: var(--link); }
img { display: block; max-width: 100%; height: auto; margin: 8px 0 12px; }
/* Light and dark change places, and the hues stay. */
@media (prefers-color-scheme: dark) { img { filter: invert(0.91) hue-rotate(180deg); } }
figure { margin: 8px 0; }
figcaption { color: var(--quiet); font-size: 13px; }
audio { width: 420px; max-width: 100%; display: block; margin: 4px 0; }
pre { overflow: auto; padding: 12px; border: 1px solid var(--line); border-radius: 4px;
  font-size: 13px; max-height: 60vh; }
details { margin: 30px 0; border-top: 1px solid var(--line); padding-top: 12px; }
summary { cursor: pointer; font-size: 20px; font-weight: 600; }
summary::marker { color: var(--quiet); }
@media print { .long, pre { max-height: none; } nav { display: none; } }
/* Smaller than this, pictures are moved about rather than shrunk until nobody can read them. */
@media (max-width: 700px) { body { padding: 12px 14px 40px; }
  .picture { overflow-x: auto; } img { max-width: none; width: 900px; } }
"""

# Numbers sort by their value, the highest first at the first click; what has none stays last.
_SCRIPT = """
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  table.querySelectorAll("th").forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const value = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
      };
      const rows = [...body.rows];
      const numeric = rows.some((row) => typeof value(row) === "number");
      const sorted = head.getAttribute("aria-sort");
      const up = sorted ? sorted === "descending" : !numeric;
      rows.sort((first, second) => {
        const a = value(first), b = value(second);
        if (!numeric) return (up ? 1 : -1) * a.localeCompare(b);
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        return up ? a - b : b - a;
      });
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}
"""


# What pages and their taggrams need.
_STYLES, _SCRIPTS = _STYLE + STYLE, _SCRIPT + SCRIPT


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _policy() -> str:
    # No request, and no script or style but ours, whatever names may hold.
    return (
        f"default-src 'none'; img-src data:; media-src data:; style-src {_hash(_STYLES)}; "
        f"script-src {_hash(_SCRIPTS)}; base-uri 'none'; form-action 'none'"
    )


def _text(value: str) -> str:
    return html.escape(drawable(value).replace("\0", "\ufffd"))


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _data(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def html_report(report: Report, pictures: Mapping[str, bytes]) -> str:
    """Write a report as HTML.

    Parameters
    ----------
    report : Report
        Any text in it is shown as text.
    pictures : dict of str to bytes
        PNG of each picture, by its name.

    Returns
    -------
    str
        A whole file, UTF-8.
    """
    links = "".join(
        f'<a href="#{_anchor(section.title)}">{_text(section.title)}</a>\n'
        for section in report.sections
    )
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(report.title)}</title>",
        f"<style>{_STYLES}</style>",
        "</head>",
        "<body>",
        f"<h1>{_text(report.title)}</h1>",
        f"<nav>{links}</nav>",
    ]
    for section in report.sections:
        blocks = [line for block in section.blocks for line in _block(block, pictures)]
        anchor = _anchor(section.title)
        if section.folded:
            summary = f"<summary>{_text(section.title)}</summary>"
            parts += [f'<details id="{anchor}">', summary, *blocks, "</details>"]
        else:
            parts += [f'<section id="{anchor}">', f"<h2>{_text(section.title)}</h2>"]
            parts += [*blocks, "</section>"]
    parts += [f"<script>{_SCRIPTS}</script>", "</body>", "</html>"]
    return "\n".join(parts) + "\n"


def _block(block: Block, pictures: Mapping[str, bytes]) -> Iterator[str]:
    match block:
        case Heading(text):
            yield f"<h3>{_text(text)}</h3>"
        case Paragraph(text, alarm):
            yield f"<p{' class=alarm' if alarm else ''}>{_text(text)}</p>"
        case Verdict(text):
            yield f'<p class="verdict">{_text(text)}</p>'
        case Listing(items):
            yield "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in items) + "</ul>"
        case Code(text):
            yield f"<pre>{_text(text)}</pre>"
        case Table():
            yield from _table(block)
        case Picture(name, _, alt):
            source = _data(pictures[name], "image/png")
            yield f'<div class="picture"><img src="{source}" alt="{_text(alt)}"></div>'
        case Taggram(written):
            yield written
        case Player(name, content, suffix, label):
            source = _data(content, MEDIA_TYPES[suffix])
            yield (
                f"<figure><figcaption>{_text(label)}</figcaption>"
                f'<audio id="{_anchor(name)}" controls preload="metadata" src="{source}"></audio>'
                "</figure>"
            )


def _table(table: Table) -> Iterator[str]:
    numeric = [
        any(isinstance(row[column], Number) for row in table.rows)
        for column in range(len(table.header))
    ]
    yield f'<div class="scroll{" long" if table.sortable else ""}">'
    yield f"<table{' data-sortable' if table.sortable else ''}>"
    heads = []
    for title, number in zip(table.header, numeric, strict=True):
        inner = f'<button type="button">{_text(title)}</button>' if table.sortable else _text(title)
        heads.append(f'<th scope="col"{_NUMERIC if number else ""}>{inner}</th>')
    yield f"<thead><tr>{''.join(heads)}</tr></thead>"
    yield "<tbody>"
    for place, row in enumerate(table.rows):
        strong = ' class="strong"' if place < table.strong else ""
        yield f"<tr{strong}>{''.join(map(_cell, row))}</tr>"
    yield "</tbody></table></div>"


_NUMERIC = ' class="n"'


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return f"<td>{_text(cell)}</td>"
    note = f"<small>{_text(cell.note)}</small>" if cell.note else ""
    value = repr(float(cell.value)).replace("inf", "Infinity").replace("nan", "NaN")
    return f'<td{_NUMERIC} data-value="{value}">{_text(cell.text)}{note}</td>'
