"""MagnaTagATune from its published address, or a mirror, to a folder of clips and tables.

The archive is published in parts. It is read across them, so that its gigabytes are on the disk
once; what has arrived and what was unpacked is noted, so that a later call does what is left.
"""

import bisect
import io
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import BaseModel, Field, ValidationError

from tagger.base.addresses import without_secrets
from tagger.base.errors import ConfigError, TaggerError
from tagger.base.files import (
    alone,
    atomic_write,
    remove_temporary_files,
    sha256_of_file,
    write_text,
)
from tagger.base.log import notice, progress_bar

ADDRESS = "https://mirg.city.ac.uk/datasets/magnatagatune/"
PARTS = ("mp3.zip.001", "mp3.zip.002", "mp3.zip.003")
TABLES = ("annotations_final.csv", "clip_info_final.csv")
CHECKSUMS = "SHA256SUMS"
MANIFEST = "fetched.json"

_SCHEMES = ("https://", "http://", "gs://")
_FOLDERS = "0123456789abcdef"
_CLIP = re.compile(rf"[{_FOLDERS}]/[^/]+\.mp3")
_CHECKSUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
# A clip of 29 s takes a tenth of a megabyte, and four where it is not compressed at all.
_MAX_CLIP_BYTES = 16 << 20
_BLOCK_BYTES = 1 << 20
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


class FetchFile(Protocol):
    """`tagger.cloud.download.fetch_file`, or what does the same."""

    def __call__(self, address: str, path: Path, *, sha256: str | None = None) -> bool:
        """Fetch a file; False where there is none."""


@dataclass(frozen=True)
class Fetched:
    """What a call has done."""

    n_clips: int
    n_unpacked: int


class _File(BaseModel):
    size: int
    sha256: str


class _Manifest(BaseModel):
    """What has arrived, and what was unpacked of it (path: size and CRC-32)."""

    files: dict[str, _File] = {}
    clips: dict[str, Annotated[str, Field(pattern=r"^\d+ [0-9a-f]{8}$")]] = {}


def fetch_magnatagatune(
    folder: Path,
    *,
    fetch_file: FetchFile,
    source: str = ADDRESS,
    checksums: str | None = None,
    keep_parts: bool = False,
) -> Fetched:
    """Fetch MagnaTagATune's clips and tables, or what is still missing of them.

    Parameters
    ----------
    folder : Path
        Where the tables and the folders ``0`` to ``f`` shall be; made if missing.
    fetch_file : callable
        What downloads a file.
    source : str
        Folder of the parts and the tables: ``https://...`` or ``gs://...``. Where a file
        ``SHA256SUMS`` lies beside them, they are verified; what is not, is said.
    checksums : str, optional
        Another list of SHA-256, as sha256sum writes it: a file, or an address as those of `source`.
    keep_parts : bool
        Leave the parts of the archive in `folder`.

    Returns
    -------
    Fetched
        How many clips there are, and how many of them this call has unpacked.

    Raises
    ------
    ConfigError
        If a file is missing, is not what it was before, or is damaged; if the archive holds what no
        clip can be; if the disk is full.
    tagger.base.errors.ModelError
        If a file cannot be had.
    """
    if not source.startswith(_SCHEMES) or "?" in source:
        raise ConfigError(
            f"--from {without_secrets(source)}: give a folder at https:// or gs://, without '?'"
        )
    try:
        with alone(folder / MANIFEST):
            fetching = _Fetching(folder, fetch_file, source.rstrip("/"), checksums)
            return fetching.run(keep_parts=keep_parts)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror}); check disk space and rights, and "
            "call again to go on"
        ) from None


class _Fetching:
    def __init__(
        self, folder: Path, fetch_file: FetchFile, source: str, checksums: str | None
    ) -> None:
        self._folder = folder
        self._fetch_file = fetch_file
        self._source = source
        self._list = checksums
        self._manifest = self._read_manifest()

    def run(self, *, keep_parts: bool) -> Fetched:
        clips_are_there = self._clips_are_there()
        n_unpacked = 0
        if not (clips_are_there and all(map(self._is_there, TABLES))):
            checksums = self._checksums()
            self._say_what_is_not_verified(checksums, with_parts=not clips_are_there)
            # The small ones first: a wrong address shows at once.
            for name in TABLES:
                self._obtain(name, checksums.get(name))
            if not clips_are_there:
                for name in PARTS:
                    self._obtain(name, checksums.get(name))
                n_unpacked = self._unpack()
        if not keep_parts:
            for name in PARTS:
                (self._folder / name).unlink(missing_ok=True)
        return Fetched(len(self._manifest.clips), n_unpacked)

    # ---- what is there ---------------------------------------------------------------------------

    def _read_manifest(self) -> _Manifest:
        path = self._folder / MANIFEST
        try:
            return _Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return _Manifest()
        except ValidationError:
            raise ConfigError(f"{path}: damaged; remove it and call again") from None

    def _write_manifest(self) -> None:
        write_text(self._folder / MANIFEST, self._manifest.model_dump_json(indent=1) + "\n")

    def _is_there(self, name: str) -> bool:
        path = self._folder / name
        return path.exists() and self._manifest.files.get(name) == _describe(path)

    def _clips_are_there(self) -> bool:
        """Whether every clip that was unpacked once is as it was."""
        clips = self._manifest.clips
        if not clips:
            return False
        with progress_bar("check clips", len(clips)) as advance:
            for name, state in clips.items():
                size, crc = state.split()
                if not _holds(self._folder / name, size=int(size), crc=int(crc, 16)):
                    notice(f"{self._folder / name}: is not as it was unpacked; fetching it again")
                    return False
                advance(1, "")
        return True

    # ---- what arrives ----------------------------------------------------------------------------

    def _checksums(self) -> dict[str, str]:
        """SHA-256 by name, handed in or fetched; empty where none are published."""
        address = self._list or f"{self._source}/{CHECKSUMS}"
        shown = without_secrets(address)
        text = self._text_of_checksums(address)
        found = {}
        for line in filter(str.strip, text.splitlines()):
            match = _CHECKSUM_LINE.fullmatch(line.rstrip())
            if match is None:
                raise ConfigError(
                    f"{shown}: {without_secrets(line[:80])!r} is no line that sha256sum writes; "
                    "hand a list in with --checksums"
                )
            found[match[2].removeprefix("./")] = match[1].lower()
        if self._list and not found.keys() & {*TABLES, *PARTS}:
            raise ConfigError(
                f"{shown}: names none of {', '.join((*TABLES, *PARTS))}; hand in a list of theirs"
            )
        return found

    def _text_of_checksums(self, address: str) -> str:
        shown = without_secrets(address)
        if not address.startswith(_SCHEMES):
            try:
                return Path(address).read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                raise ConfigError(
                    f"--checksums {shown}: cannot be read ({error.strerror}); give a file that "
                    "sha256sum has written, or its address"
                ) from None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / CHECKSUMS
            try:
                is_there = self._fetch_file(address, path)
            except TaggerError as error:
                reason = str(error).removeprefix(f"{shown}: ").partition(";")[0]
                # Going on, nothing would be verified where something might be.
                raise ConfigError(
                    f"{shown}: whether checksums are published there is not known ({reason}); try "
                    "again later, or hand a list in with --checksums"
                ) from None
            if is_there:
                return path.read_text(encoding="utf-8", errors="replace")
        if self._list:
            raise ConfigError(f"--checksums {shown}: no such file; give another")
        return ""

    def _say_what_is_not_verified(self, checksums: dict[str, str], *, with_parts: bool) -> None:
        names = [
            name for name in (*TABLES, *(PARTS if with_parts else ())) if name not in checksums
        ]
        if names:
            notice(
                f"{without_secrets(self._source)}: not verified, as no checksums are known: "
                f"{', '.join(names)}. Damage to clips shows by the archive's own CRC-32; whether "
                "all is what was published does not. A list of SHA-256 from somebody you trust can "
                "be handed in with --checksums"
            )

    def _obtain(self, name: str, sha256: str | None) -> None:
        """Have a file in the folder, and note what it is."""
        path, address = self._folder / name, f"{self._source}/{name}"
        shown = without_secrets(address)
        noted = self._manifest.files.get(name)
        if path.exists():
            found = _describe(path)
            if (sha256 or (noted.sha256 if noted else found.sha256)) == found.sha256:
                self._note(name, found)
                return
            if name in TABLES:
                # It may be somebody's work.
                raise ConfigError(
                    f"{path}: has changed since it was published; remove it to fetch it again"
                )
            notice(f"{path}: is not what was published; fetching it again")
            path.unlink()
        if not self._fetch_file(address, path, sha256=sha256):
            raise ConfigError(
                f"{shown}: no such file; give the folder that holds it with --from, or put it at "
                f"{path}"
            )
        found = _describe(path)
        if sha256 is None and noted is not None and noted != found:
            path.unlink()
            raise ConfigError(
                f"{shown}: is not what it was before (sha256 {found.sha256}, then "
                f"{noted.sha256}); if that is right, remove {self._folder / MANIFEST}"
            )
        self._note(name, found)

    def _note(self, name: str, found: _File) -> None:
        if self._manifest.files.get(name) != found:
            self._manifest.files[name] = found
            self._write_manifest()

    # ---- what is unpacked ------------------------------------------------------------------------

    def _unpack(self) -> int:
        """Unpack what is not there yet; returns the number of clips."""
        for letter in _FOLDERS:
            remove_temporary_files(self._folder / letter)
        paths = [self._folder / name for name in PARTS]
        n_unpacked = 0
        with JoinedFile(paths) as joined, io.BufferedReader(joined, _BLOCK_BYTES) as file:
            try:
                archive = zipfile.ZipFile(file)
            except (*_DAMAGE, ValueError) as error:
                raise self._damaged(PARTS, f"make no zip archive ({error})") from None
            clips = _clips(archive.infolist(), self._folder)
            if any(member.header_offset < 0 for member in archive.infolist()):
                raise self._damaged(PARTS, "make no zip archive (bytes are missing in them)")
            self._require_space(clips)
            with progress_bar("unpack clips", len(clips)) as advance:
                for member in clips:
                    path = self._folder / member.filename
                    if not _holds(path, size=member.file_size, crc=member.CRC):
                        try:
                            _extract(archive, member, path)
                        # A name that is no UTF-8, in front of the clip itself.
                        except (*_DAMAGE, UnicodeDecodeError) as error:
                            parts = joined.parts_of(member.header_offset, member.compress_size)
                            names = [PARTS[number] for number in parts]
                            raise self._damaged(names, f"{member.filename}: {error}") from None
                        n_unpacked += 1
                    advance(1, "")
        # Without the parts a power cut may take none of them any more. Singly it takes far longer.
        os.sync()
        self._manifest.clips = {
            member.filename: f"{member.file_size} {member.CRC:08x}" for member in clips
        }
        self._write_manifest()
        return n_unpacked

    def _require_space(self, clips: Sequence[zipfile.ZipInfo]) -> None:
        needed = sum(
            member.file_size for member in clips if not (self._folder / member.filename).exists()
        )
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise ConfigError(
                f"{self._folder}: the clips need {needed >> 20} MB, and {free >> 20} MB are free; "
                "make room and call again to go on"
            )

    def _damaged(self, names: Sequence[str], what: str) -> ConfigError:
        """Forget parts that are of no use, so that the next call fetches them."""
        # Headers that are damaged may point to none of them: then it is not known which.
        names = list(names) or list(PARTS)
        for name in names:
            (self._folder / name).unlink(missing_ok=True)
            self._manifest.files.pop(name, None)
        self._write_manifest()
        return ConfigError(
            f"{', '.join(str(self._folder / name) for name in names)}: {what}: truncated or "
            "damaged, and removed; call again to fetch anew, with another --from if that does "
            "not help"
        )


class JoinedFile(io.RawIOBase):
    """Files read as one, end to end.

    Parameters
    ----------
    paths : sequence of Path
        The files in their order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._starts = [0]
        for path in paths:
            self._starts.append(self._starts[-1] + path.stat().st_size)
        self._files = [path.open("rb") for path in paths]
        self._position = 0

    def readable(self) -> bool:  # noqa: D102
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:  # noqa: D102
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._starts[-1]}
        if origin[whence] + offset < 0:
            raise ValueError(f"negative position {origin[whence] + offset}")
        self._position = origin[whence] + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # noqa: D102
        if self._position >= self._starts[-1]:
            return 0
        number = bisect.bisect_right(self._starts, self._position) - 1
        file = self._files[number]
        file.seek(self._position - self._starts[number])
        n_bytes = file.readinto(memoryview(buffer)[: self._starts[number + 1] - self._position])
        self._position += n_bytes
        return n_bytes

    def parts_of(self, start: int, n_bytes: int) -> range:
        """Numbers of the files in which `n_bytes` from `start` on lie."""
        first = bisect.bisect_right(self._starts, start) - 1
        last = bisect.bisect_left(self._starts, start + n_bytes) - 1
        return range(first, min(max(first, last), len(self._files) - 1) + 1)

    def close(self) -> None:  # noqa: D102
        for file in self._files:
            file.close()
        super().close()


def _describe(path: Path) -> _File:
    return _File(size=path.stat().st_size, sha256=sha256_of_file(path))


def _holds(path: Path, *, size: int, crc: int) -> bool:
    """Whether a file has that size and CRC-32."""
    try:
        if path.is_symlink() or path.stat().st_size != size:
            return False
        return zlib.crc32(path.read_bytes()) == crc
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    # Flushed all together in the end; the CRC would show one that was lost.
    with archive.open(member) as source, atomic_write(path, durable=False) as file:
        shutil.copyfileobj(source, file, _BLOCK_BYTES)
        file.flush()
        # Unpacked again, e.g. on another disk, a clip is to a store the one that it was.
        seconds = _seconds(member)
        os.utime(file.fileno(), (seconds, seconds))


def _seconds(member: zipfile.ZipInfo) -> float:
    """Time of a member; that of the archive has no zone, and is taken for UTC everywhere."""
    try:
        return datetime(*member.date_time, tzinfo=UTC).timestamp()
    except ValueError:
        # E.g. month 0, as where no time was known.
        return 0.0


def _clips(members: Sequence[zipfile.ZipInfo], folder: Path) -> list[zipfile.ZipInfo]:
    """Members that are clips; others are left out, and what means harm refuses the archive."""
    clips: dict[str, zipfile.ZipInfo] = {}
    n_others = 0
    for member in members:
        problem = _problem(member)
        if problem is None and member.filename in clips:
            problem = "is there twice"
        if problem is not None:
            raise ConfigError(
                f"{folder / PARTS[0]}: its member {member.orig_filename!r} {problem}; nothing was "
                "unpacked: fetch the parts from another address"
            )
        if _CLIP.fullmatch(member.filename):
            clips[member.filename] = member
        elif not member.is_dir():
            n_others += 1
    if not clips:
        raise ConfigError(
            f"{folder / PARTS[0]}: holds no mp3 files in folders 0 to f; give the address of "
            "MagnaTagATune's parts"
        )
    if n_others:
        notice(f"{folder / PARTS[0]}: {n_others} members that are no clips are left out")
    return list(clips.values())


def _problem(member: zipfile.ZipInfo) -> str | None:
    """Say what is wrong with a member that no such archive has."""
    name = member.orig_filename
    if not member.filename:
        return "has no name"
    if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name):
        return "has an absolute path or one of another system"
    if ".." in name.split("/"):
        return "leads out of the folder"
    if not name.isprintable():
        return "has a name that cannot be"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.file_size > _MAX_CLIP_BYTES:
        return f"is of {member.file_size >> 20} MB, which no clip is"
    if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
        return "is encrypted, or packed in a way that is not known"
    return None
