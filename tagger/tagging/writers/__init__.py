"""Writers: records -> files. One module and class per output format, found by name."""

import contextlib
import errno
import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar, TextIO

from tagger.base.errors import AudioError, ConfigError
from tagger.base.registry import Registry
from tagger.tagging.records import Record, Row, SegmentMode

if TYPE_CHECKING:
    from tagger.tagging.inputs import Input
    from tagger.tagging.prediction import Prediction


# What is wrong with one output, and not with where they go: a folder of that name, or a name that
# the file system does not take.
_OF_A_NAME = (
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EILSEQ,
)


@dataclass(frozen=True)
class Header:
    """What an output says of its origin.

    Parameters
    ----------
    model : str
        Name of the model.
    model_version : str
        Version or content hash of the model.
    tagger_version : str
        Version of this program.
    time : str
        Start of the run, ISO 8601 in UTC.
    segments : {"none", "windows", "merged"}
        What the rows of the records are tags of.
    """

    model: str
    model_version: str
    tagger_version: str
    time: str
    segments: SegmentMode = "none"

    def items(self) -> dict[str, str]:
        """Names and values, each on one line, as formats with metadata write them."""
        values = {
            "model": self.model,
            "version": self.model_version,
            "tagger": self.tagger_version,
            "time": self.time,
            "segments": self.segments,
        }
        return {name: " ".join(value.split()) for name, value in values.items()}


class Writer(ABC):
    """Contract of an output format.

    A subclass sits in a module of its own in this package, bound to the name ``ENTRY``. It derives
    from `TextWriter`, `BinaryWriter` or `FileWriter`, which say where the output goes.

    Parameters
    ----------
    header : Header
        Origin of the records.
    """

    suffix: ClassVar[str]
    """Of the files of this format, with its dot."""
    binary: ClassVar[bool] = False
    """The output is no text, so none for a terminal."""
    per_file: ClassVar[bool] = False
    """There is one output for each input, in a folder."""
    needs_prediction: ClassVar[bool] = False
    """A record alone does not hold what this format shows."""
    default_segments: ClassVar[SegmentMode] = "none"
    """Segments that this format shows where the user does not say."""

    def __init__(self, header: Header) -> None:
        self.header = header

    # Most formats have nothing to say before the first or after the last file.
    def begin(self) -> None:  # noqa: B027
        """Write what comes before the first file."""

    @abstractmethod
    def write(self, record: Record, prediction: "Prediction | None" = None) -> None:
        """Write one file's result.

        Parameters
        ----------
        record : Record
            What is shown; of a file that failed, its error.
        prediction : Prediction, optional
            All scores. Formats that do not need them ignore them.
        """

    def end(self) -> None:  # noqa: B027
        """Write what comes after the last file."""

    def abandon(self) -> None:  # noqa: B027
        """Let go of what is held: the output is thrown away, `end` is not called."""


class TextWriter(Writer):
    """All results as text in one stream.

    Parameters
    ----------
    stream : TextIO
        Where the text goes.
    header : Header
        Origin of the records.
    """

    def __init__(self, stream: TextIO, header: Header) -> None:
        super().__init__(header)
        self.stream = stream
        # A StringIO has none.
        self.encoding = stream.encoding or "utf-8"

    def put(self, text: str) -> None:
        """Write `text` at once; what the stream's encoding lacks is escaped."""
        self.stream.write(encodable(text, self.encoding))
        self.stream.flush()


class BinaryWriter(Writer):
    """All results as bytes in one file.

    Parameters
    ----------
    file : BinaryIO
        Where the bytes go.
    header : Header
        Origin of the records.
    """

    binary = True

    def __init__(self, file: BinaryIO, header: Header) -> None:
        super().__init__(header)
        self.file = file


class FileWriter(Writer):
    """A file for each input that was tagged; inputs that failed have none.

    Parameters
    ----------
    folder : Path
        Where the files go.
    header : Header
        Origin of the records.
    names : mapping of str to Path
        Of each input's path, the name of its file, relative to `folder`.
    """

    per_file = True

    def __init__(self, folder: Path, header: Header, *, names: Mapping[str, Path]) -> None:
        super().__init__(header)
        self.folder = folder
        self.names = names

    def path_of(self, path: str) -> Path:
        """Output of the input `path`."""
        return self.folder / self.names[path]

    @abstractmethod
    def write_file(self, path: Path, record: Record, prediction: "Prediction | None") -> None:
        """Write the result of an input that was tagged to `path`, atomically."""

    def write(  # noqa: D102 (the contract documents it)
        self, record: Record, prediction: "Prediction | None" = None
    ) -> None:
        if record.error is not None:
            return
        if self.needs_prediction and prediction is None:
            raise ValueError(f"{record.path}: this format needs the prediction")
        path = self.path_of(record.path)
        try:
            self.write_file(path, record, prediction)
        except OSError as error:
            if error.errno in _OF_A_NAME:
                # It stops no other.
                raise AudioError(str(_unwritable(path, error))) from None
            raise _unwritable(path, error) from None


WRITERS: Registry[Writer] = Registry("tagger.tagging.writers", "output format")


@contextlib.contextmanager
def open_writer(
    name: str, output: Path | None, header: Header, *, inputs: "Sequence[Input]" = ()
) -> Iterator[Writer]:
    """Open an output and write what comes before the first and after the last file.

    Parameters
    ----------
    name : str
        The format.
    output : Path, optional
        A file, which is whole or absent, or the folder of a format that writes a file for each
        input. None for standard output.
    header : Header
        Origin of the records.
    inputs : sequence of Input
        What will be tagged: the files in a folder are named after them.

    Yields
    ------
    Writer
        Begun; ended when the block ends well.

    Raises
    ------
    ConfigError
        If there is no such format, or `output` does not fit it or cannot be written.
    """
    from tagger.base.files import atomic_write
    from tagger.tagging.writers._names import output_names

    refuse_output(name, output)
    entry = WRITERS.get(name)
    with contextlib.ExitStack() as stack:
        writer: Writer
        try:
            if issubclass(entry, FileWriter):
                assert output is not None
                output.mkdir(parents=True, exist_ok=True)
                writer = entry(output, header, names=output_names(inputs, entry.suffix))
            elif issubclass(entry, BinaryWriter):
                assert output is not None
                writer = entry(stack.enter_context(atomic_write(output)), header)
            elif issubclass(entry, TextWriter):
                if output is None:
                    stream: TextIO = sys.stdout
                else:
                    file = stack.enter_context(atomic_write(output))
                    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
                    # The file is synced and closed by who opened it.
                    stack.callback(text.detach)
                    stream = text
                writer = entry(stream, header)
            else:
                raise TypeError(f"{entry.__name__} must derive from Text-, Binary- or FileWriter")
        except OSError as error:
            raise _unwritable(output or Path("-"), error) from None
        try:
            writer.begin()
            yield writer
            writer.end()
        except BaseException:
            writer.abandon()
            raise


def refuse_output(name: str, output: Path | None) -> None:
    """Refuse an output that does not fit the format `name`.

    Raises
    ------
    ConfigError
        If there is no such format, or `output` is of another kind than it writes.
    """
    entry = WRITERS.get(name)
    if output is None and entry.per_file:
        raise ConfigError(f"--format {name} writes a file for each input; give --output FOLDER")
    if output is None and entry.binary:
        raise ConfigError(f"--format {name} is no text; give --output FILE{entry.suffix}")
    if output is not None and not entry.per_file and output.is_dir():
        raise ConfigError(f"--output {output} is a folder; --format {name} writes one file")


def _unwritable(path: Path, error: OSError) -> ConfigError:
    reason = error.strerror or str(error)
    return ConfigError(f"{path}: cannot be written ({reason}); check --output and the disk space")


def encodable(text: str, encoding: str = "utf-8") -> str:
    """Escape what `encoding` lacks, such as the bytes of a file name that is no Unicode."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def span(record: Record, row: Row) -> tuple[float, float]:
    """Start and end of a row in seconds: those of the file for a tag of the whole file."""
    start = 0.0 if row.start is None else row.start
    return start, record.seconds if row.end is None else row.end
