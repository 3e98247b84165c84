"""What the user names -> files: folders, patterns, lists of names, and audio on standard input."""

import codecs
import contextlib
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from preprocess.clips.audio_files import AUDIO_SUFFIXES, find_audio_files
from tagger.base.addresses import is_remote
from tagger.base.errors import AudioError, ConfigError, TaggerError
from tagger.cloud.locations import file_or_object

STDIN = Path("-")
"""Audio on standard input."""

_BLOCK_BYTES = 1 << 20
# PowerShell writes lists so.
_UTF_16_MARKS = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(frozen=True)
class Input:
    """A file to tag.

    Parameters
    ----------
    path : Path
        The file, named as the user would name it.
    base : Path, optional
        Folder that was given and that it was found below, or the part of a pattern before its
        first wildcard; None for a file that was given itself.
    """

    path: Path
    base: Path | None = None


def expand_inputs(names: Iterable[str | Path]) -> list[Input]:
    """Files that the user means.

    Parameters
    ----------
    names : iterable of str or Path
        Files, folders (searched at any depth, by suffix), both also at addresses, and patterns
        such as ``"music/**/*.mp3"`` where no file has that name.

    Returns
    -------
    list of Input
        In the order given, each file once. What does not exist, a folder without audio and a
        pattern that matches nothing stay in the list: as the one bad input that each is, it fails
        later by its name and stops no other.
    """
    seen = set()
    inputs = []
    for name in names:
        for item in _expand(name):
            key = _identity(item.path)
            if key not in seen:
                seen.add(key)
                inputs.append(item)
    return inputs


def _expand(name: str | Path) -> Iterator[Input]:
    path = file_or_object(name)
    if _is_folder(path):
        found = _audio_below(path)
        yield from (Input(file, path) for file in found)
        if not found:
            yield Input(path)
    elif is_remote(path):
        yield Input(path)
    elif glob.has_magic(str(name)) and not os.path.lexists(name):
        base = _fixed_part(str(name))
        found = _matches(str(name))
        yield from (Input(file, base) for file in found)
        if not found:
            yield Input(path)
    else:
        yield Input(path)


def _matches(pattern: str) -> list[Path]:
    """Files that a pattern means: the audio among its matches and below them, if there is any."""
    hits: list[Path] = []
    # A name with a NUL is no pattern; it fails later, by its name.
    with contextlib.suppress(ValueError):
        # Path.glob takes no absolute patterns.
        hits = [Path(hit) for hit in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    files = []
    for hit in hits:
        if _is_folder(hit):
            files += _audio_below(hit)
        else:
            files.append(hit)
    # "music/*" also matches the covers; "*.snd" asks for files whose suffix is none of audio.
    return [file for file in files if file.suffix.lower() in AUDIO_SUFFIXES] or files


def _fixed_part(pattern: str) -> Path:
    """Folder that all matches of a pattern lie below."""
    fixed = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _audio_below(folder: Path) -> list[Path]:
    # A folder that may not be read is one bad input, like one without audio.
    with contextlib.suppress(OSError):
        return find_audio_files(folder)
    return []


def _is_folder(path: Path) -> bool:
    # Names that are too long or lie in a folder without rights raise; they fail later, by name.
    with contextlib.suppress(OSError):
        return path.is_dir()
    return False


def _identity(path: Path) -> str:
    if is_remote(path):
        return str(path)
    with contextlib.suppress(OSError, ValueError):
        return os.path.realpath(path)
    return str(path)


def read_list(stream: BinaryIO, name: str = "the list", *, null: bool = False) -> list[str]:
    r"""Read names of files.

    Parameters
    ----------
    stream : BinaryIO
        One name per line, as UTF-8 (or whatever bytes names have here), or as UTF-16 with a byte
        order mark, which PowerShell writes.
    name : str
        What messages call the list.
    null : bool
        Names end in a NUL (``find -print0``), and may then hold newlines.

    Returns
    -------
    list of str
        The names, without blank ones. Bytes that are no text are kept as `os.fsdecode` keeps them.

    Raises
    ------
    ConfigError
        If the content is no list of names: one name torn into pieces may be a whole disk.
    """
    text = _decoded(stream.read(), name)
    if null:
        return [item for item in text.split("\0") if item]
    if "\0" in text:
        raise ConfigError(
            f"{name}: holds NUL characters and is no list with a name per line; save it as UTF-8, "
            "or give -0 if its names end in NUL, as those of 'find -print0' do"
        )
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


def _decoded(content: bytes, name: str) -> str:
    """Text of a list; bytes that are no text are kept as `os.fsdecode` keeps them."""
    for mark, encoding in _UTF_16_MARKS:
        if content.startswith(mark):
            try:
                return content.removeprefix(mark).decode(encoding)
            except UnicodeError as error:
                raise ConfigError(
                    f"{name}: is damaged UTF-16 ({error}); save the list as UTF-8"
                ) from None
    return os.fsdecode(content.removeprefix(codecs.BOM_UTF8))


def refuse_wide_writes(named: Iterable[str], listed: Iterable[str]) -> None:
    """Refuse to write into files of which nobody can have thought; asked before any is sought.

    Parameters
    ----------
    named : iterable of str
        Files, folders and patterns of the command line.
    listed : iterable of str
        Those of a list.

    Raises
    ------
    ConfigError
        If a folder is a disk, a mount point, or a home folder or above one; or if a list names a
        folder or a pattern, and not files alone.
    """
    for name in named:
        folder = _searched(name)
        wide = folder and _wide(folder)
        if wide:
            raise ConfigError(
                f"{name}: is {wide}; name the folder whose files are to be changed, or give --yes "
                "to change all below it"
            )
    for name in listed:
        if _searched(name):
            raise ConfigError(
                f"{name}: is a folder or pattern within the list; list the files that are to be "
                "changed, or give --yes to change all that it means"
            )


def refuse_writes_outside(inputs: Iterable[Input]) -> None:
    """Refuse to write into a file that a link leads to, outside the folder that was named.

    Raises
    ------
    ConfigError
        If a file that was found below a folder lies elsewhere.
    """
    for item in inputs:
        if item.base is None or is_remote(item.path):
            continue
        with contextlib.suppress(OSError):
            real = item.path.resolve()
            if item.path.exists() and not real.is_relative_to(item.base.resolve()):
                raise ConfigError(
                    f"{item.path}: is a link to {real}, outside of {item.base}; name that file "
                    "itself, or give --yes to change it"
                )


def _searched(name: str) -> Path | None:
    """Folder in which a name has files sought; None for the name of a file."""
    path = file_or_object(name)
    if _is_folder(path):
        return path
    if not is_remote(path) and glob.has_magic(name) and not os.path.lexists(name):
        return _fixed_part(name)
    return None


def _wide(folder: Path) -> str | None:
    """Say why a folder holds more than anybody may mean; None if it does not."""
    if is_remote(folder):
        return None
    real = folder.resolve()
    if real == Path(real.anchor):
        return "a whole disk"
    if real.is_mount():
        return "the root of a file system"
    with contextlib.suppress(RuntimeError):
        if Path.home().resolve().is_relative_to(real):
            return "a home folder, or above one"
    return None


def spool_stdin(stream: BinaryIO, folder: Path) -> Path:
    """Copy audio that comes through a pipe into a file, in blocks.

    Parameters
    ----------
    stream : BinaryIO
        Standard input. Decoders want to seek, which a pipe cannot.
    folder : Path
        Where the file is made; who made the folder removes it.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    AudioError
        If nothing comes, or there is no room for it.
    """
    path: Path | None = None
    try:
        block = stream.read(_BLOCK_BYTES)
        if not block:
            raise AudioError(
                "-: standard input is empty; send an audio file into it, e.g. with '< song.mp3'"
            )
        # By this name warnings speak of it.
        path = folder / "standard input"
        with path.open("xb") as file:
            file.write(block)
            shutil.copyfileobj(stream, file, _BLOCK_BYTES)
    except BaseException as error:
        if path is not None:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise AudioError(
                f"-: standard input cannot be copied to {folder} ({error.strerror}); "
                "free disk space, or set TMPDIR to a folder with more"
            ) from None
        raise
    return path


class Spool:
    """Where the audio of inputs is read from; use `open_spool`.

    Parameters
    ----------
    copy : Path, optional
        Copy of standard input, if that is an input.
    error : AudioError, optional
        Why there is no such copy.
    """

    def __init__(self, copy: Path | None = None, error: AudioError | None = None) -> None:
        self._copy = copy
        self._error = error

    def path_of(self, item: Input) -> Path:
        """File that holds the audio of an input."""
        if item.path != STDIN:
            return item.path
        # Without a copy it fails by its own name when its turn comes, like a missing file: below
        # what is no folder, there is none.
        return self._copy or Path(os.devnull) / STDIN

    def named(self, item: Input, error: TaggerError) -> TaggerError:
        """Error of an input, which speaks of ``-`` and not of the copy."""
        if item.path != STDIN:
            return error
        if self._error is not None:
            return self._error
        return type(error)(str(error).replace(str(self.path_of(item)), str(STDIN)))


@contextlib.contextmanager
def open_spool(inputs: Iterable[Input]) -> Iterator[Spool]:
    """Copy standard input into a file where it is one of the inputs, as decoders want to seek.

    Parameters
    ----------
    inputs : iterable of Input
        What will be read.

    Yields
    ------
    Spool
        Where to read them. The copy is removed in the end.
    """
    if all(item.path != STDIN for item in inputs):
        yield Spool()
        return
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tagger-"))
            spool = Spool(spool_stdin(sys.stdin.buffer, Path(folder)))
        except AudioError as error:
            spool = Spool(error=error)
        except OSError as error:
            reason = error.strerror or str(error)
            spool = Spool(
                error=AudioError(
                    f"-: there is no folder to copy standard input to ({reason}); set TMPDIR to "
                    "one with write permission and free space"
                )
            )
        yield spool
