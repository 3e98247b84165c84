"""Reports that people look at: one HTML file, and the same as Markdown with files beside it."""

import io
from pathlib import Path

from tagger.base.blocks import Picture, Player, Report
from tagger.base.files import write_bytes, write_text

HTML, MARKDOWN, FILES = "report.html", "report.md", "report"
# Half as many pixels again as a page has, for screens that have them.
_DPI = 150


def write_report(report: Report, folder: Path) -> dict[str, Path]:
    """Write a report of an evaluation.

    Parameters
    ----------
    report : Report
        What to show.
    folder : Path
        Gets ``report.html``, ``report.md`` and, for the latter, the folder ``report``.

    Returns
    -------
    dict of str to Path
        What was written, by kind.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib, of the extra ``plots``, is not installed.
    """
    from tagger.evaluate.report.html import html_report
    from tagger.evaluate.report.markdown import markdown_report

    pictures = {picture.name: _png(picture.draw()) for picture in _pictures(report)}
    files = {"report": folder / HTML, "report as Markdown": folder / MARKDOWN}
    for name, content in pictures.items():
        write_bytes(folder / FILES / f"{name}.png", content)
    for block in (block for section in report.sections for block in section.blocks):
        if isinstance(block, Player):
            write_bytes(folder / FILES / f"{block.name}{block.suffix}", block.content)
    write_text(files["report as Markdown"], markdown_report(report, FILES))
    write_text(files["report"], html_report(report, pictures))
    return files


def _pictures(report: Report) -> list[Picture]:
    return [
        block
        for section in report.sections
        for block in section.blocks
        if isinstance(block, Picture)
    ]


def _png(figure: object) -> bytes:
    from tagger.tagging.taggram import write_png

    content = io.BytesIO()
    write_png(figure, content, dpi=_DPI)
    return content.getvalue()
