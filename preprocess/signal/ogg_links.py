"""Links of a chained Ogg file: streams that follow one another (RFC 3533, section 4)."""

from typing import BinaryIO

from preprocess.signal.byte_ranges import FileBytes, Range

_PAGE_HEADER = 27
_LARGEST_PAGE = _PAGE_HEADER + 255 + 255 * 255
_BEGINS = 2


def ogg_links(file: BinaryIO, size: int) -> list[list[Range]]:
    """Find where each link of an Ogg file lies.

    Parameters
    ----------
    file : BinaryIO
        The file.
    size : int
        Its length in bytes.

    Returns
    -------
    list of list of Range
        One for each link; a single one of a file that is not chained.
    """
    starts, data = [0], FileBytes(file)
    position, in_headers = 0, True
    while True:
        header = data[position : position + _PAGE_HEADER]
        if header[:4] != b"OggS" or len(header) < _PAGE_HEADER:
            break
        begins = bool(header[5] & _BEGINS)
        # Streams that run beside one another all begin before any goes on.
        if begins and not in_headers:
            starts.append(position)
        in_headers = begins
        body = position + _PAGE_HEADER + header[-1]
        position = body + sum(data[position + _PAGE_HEADER : body])
    return [[Range(a, b)] for a, b in zip(starts, [*starts[1:], size], strict=True)]


def missing_of_last_page(file: BinaryIO, size: int) -> float:
    """Tell an Ogg file that ends inside a page; how many pages are missing, it does not say.

    Parameters
    ----------
    file : BinaryIO
        The file.
    size : int
        Its length in bytes.

    Returns
    -------
    float
        Share of the file that the rest of that page would be.
    """
    file.seek(max(0, size - _LARGEST_PAGE))
    tail = file.read()
    start = tail.rfind(b"OggS")
    if start < 0:
        return 0.0
    page = tail[start:]
    n_segments = page[_PAGE_HEADER - 1] if len(page) >= _PAGE_HEADER else 255
    segments = page[_PAGE_HEADER : _PAGE_HEADER + n_segments]
    length = _PAGE_HEADER + n_segments + sum(segments)
    return max(0.0, (length - len(page)) / size)
