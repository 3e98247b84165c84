"""Parts of a report, which HTML and Markdown write each in their way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Heading:
    """Title of what follows, within a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text; an alarm is shown in red."""

    text: str
    alarm: bool = False


@dataclass(frozen=True)
class Verdict:
    """What a hurried reader takes away."""

    text: str


@dataclass(frozen=True)
class Listing:
    """Short texts, one a line."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Text to be shown as it is."""

    text: str


@dataclass(frozen=True)
class Number:
    """A cell that sorts by its value.

    Parameters
    ----------
    value : float
        NaN sorts last.
    text : str
        As it is shown.
    note : str
        Shown smaller behind it, e.g. an interval.
    """

    value: float
    text: str
    note: str = ""


Cell: TypeAlias = str | Number


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Parameters
    ----------
    header : sequence of str
        Titles of the columns.
    rows : sequence of sequence of Cell
        Each as long as the header.
    sortable : bool
        Readers can sort it, and scroll in it if it is long.
    strong : int
        So many first rows are what the report is about.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False
    strong: int = 0


@dataclass(frozen=True)
class Picture:
    """A figure that is drawn when it is needed.

    Parameters
    ----------
    name : str
        Stem of its file.
    draw : callable
        Draws it.
    alt : str
        What there is to see, for who cannot see it.
    """

    name: str
    draw: Callable[[], Any]
    alt: str


@dataclass(frozen=True)
class Player:
    """Sound.

    Parameters
    ----------
    name : str
        Stem of its file.
    content : bytes
        An audio file.
    suffix : str
        Of the file, e.g. ``".mp3"``.
    label : str
        What there is to hear.
    """

    name: str
    content: bytes
    suffix: str
    label: str


@dataclass(frozen=True)
class Taggram:
    """Scores of a clip over time.

    Parameters
    ----------
    html : str
        As `tagger.tagging.taggram_html` writes it: all text in it is escaped.
    rows : sequence of (str, str, str)
        Tag, score of the clip, and a line of blocks that stand for its scores over time.
    """

    html: str
    rows: Sequence[tuple[str, str, str]]


Block: TypeAlias = (
    Heading | Paragraph | Listing | Code | Table | Picture | Player | Taggram | Verdict
)


@dataclass(frozen=True)
class Section:
    """A part of a report with a title.

    Parameters
    ----------
    title : str
        Also names its anchor.
    blocks : sequence of Block
        What it shows.
    folded : bool
        Readers open it if they want to.
    """

    title: str
    blocks: Sequence[Block]
    folded: bool = False


@dataclass(frozen=True)
class Report:
    """A title and sections."""

    title: str
    sections: Sequence[Section]
