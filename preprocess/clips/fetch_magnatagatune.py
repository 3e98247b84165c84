"""MagnaTagATune from its published address, or a mirror, to a folder of clips and tables.

The archive is published in parts. They are downloaded, joined and unpacked; a later call does what
is left.
"""

import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ValidationError

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
# Named so that nobody has one of their own there.
ARCHIVE = "mp3.zip.joined"
TABLES = ("annotations_final.csv", "clip_info_final.csv")
CHECKSUMS = "SHA256SUMS"
MANIFEST = "fetched.json"

_SCHEMES = ("https://", "http://", "gs://")
_FOLDERS = "0123456789abcdef"
# Nothing else is unpacked: no other folder, and no name that another system takes for a path.
_CLIP = re.compile(rf"[{_FOLDERS}]/[^/\\:\x00-\x1f]+\.mp3")
_CHECKSUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
# A clip of 29 s takes a tenth of a megabyte, and four where it is not compressed at all.
_MAX_CLIP_BYTES = 16 << 20
_BLOCK_BYTES = 1 << 20
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What zipfile raises of an archive that is damaged.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)


class FetchFile(Protocol):
    """`tagger.cloud.download.fetch_file`, or what does the same."""

    def __call__(self, address: str, path: Path, *, sha256: str | None = None) -> bool:
        """Fetch a file; False where there is none."""


@dataclass(frozen=True)
class Fetched:
    """What a call has done."""

    n_clips: int
    n_unpacked: int


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
        If a file is missing, damaged or not what was published; if the archive holds no clips; if
        the disk is full.
    tagger.base.errors.ModelError
        If a file cannot be had.
    """
    if not source.startswith(_SCHEMES) or "?" in source:
        raise ConfigError(
            f"--from {without_secrets(source)}: give a folder at https:// or gs://, without '?'"
        )
    try:
        with alone(folder / MANIFEST):
            fetching = _Fetching(folder, fetch_file, source.rstrip("/"), checksums, keep_parts)
            return fetching.run()
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror}); check disk space and rights, and "
            "call again to go on"
        ) from None


class _Manifest(BaseModel):
    """Size and CRC-32 of the clips that were unpacked, by their paths."""

    clips: dict[str, str]


@dataclass(frozen=True)
class _Fetching:
    """A call of `fetch_magnatagatune`, whose parameters these are."""

    folder: Path
    fetch_file: FetchFile
    source: str
    checksums: str | None
    keep_parts: bool

    def run(self) -> Fetched:
        clips, n_unpacked = self._clips_that_are_there(), 0
        archive = self.folder / ARCHIVE
        if not clips or not all((self.folder / name).exists() for name in TABLES):
            remove_temporary_files(self.folder)
            # The small ones first: a wrong address shows at once.
            wanted = [*TABLES, *(() if clips or archive.exists() else PARTS)]
            checksums = self._read_checksums()
            self._say_what_is_not_verified([name for name in wanted if name not in checksums])
            for name in wanted:
                self._obtain(name, checksums.get(name))
        if not clips:
            if not archive.exists():
                self._join()
            clips, n_unpacked = self._unpack()
            archive.unlink()
        if not self.keep_parts:
            self._remove(PARTS)
        return Fetched(len(clips), n_unpacked)

    def _clips_that_are_there(self) -> dict[str, str]:
        """Clips that were unpacked once; none if any of them is not as it was."""
        try:
            content = (self.folder / MANIFEST).read_bytes()
            clips = _Manifest.model_validate_json(content).clips
        except (FileNotFoundError, ValidationError):
            return {}
        with progress_bar("check clips", len(clips)) as advance:
            for name, state in clips.items():
                if not _holds(self.folder / name, state):
                    notice(f"{self.folder / name}: is not as it was unpacked; fetching it again")
                    return {}
                advance(1, "")
        return clips

    def _read_checksums(self) -> dict[str, str]:
        """SHA-256 by name, handed in or fetched; empty where none are published."""
        address = self.checksums or f"{self.source}/{CHECKSUMS}"
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
        if self.checksums and not found.keys() & {*TABLES, *PARTS}:
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
                is_there = self.fetch_file(address, path)
            except TaggerError as error:
                reason = str(error).removeprefix(f"{shown}: ").partition(";")[0]
                # Going on, nothing would be verified where something might be.
                raise ConfigError(
                    f"{shown}: whether checksums are published there is not known ({reason}); try "
                    "again later, or hand a list in with --checksums"
                ) from None
            if is_there:
                return path.read_text(encoding="utf-8", errors="replace")
        if self.checksums:
            raise ConfigError(f"--checksums {shown}: no such file; give another")
        return ""

    def _say_what_is_not_verified(self, names: Sequence[str]) -> None:
        if names:
            notice(
                f"{without_secrets(self.source)}: not verified, as no checksums are known: "
                f"{', '.join(names)}. Damage to clips shows by the archive's own CRC-32; whether "
                "all is what was published does not. A list of SHA-256 from somebody you trust can "
                "be handed in with --checksums"
            )

    def _obtain(self, name: str, sha256: str | None) -> None:
        """Have a file in the folder; one that is there is never replaced."""
        path, address = self.folder / name, f"{self.source}/{name}"
        if path.exists():
            if sha256 in (None, sha256_of_file(path)):
                return
            raise ConfigError(
                f"{path}: is not what was published (its SHA-256 is another); remove it and call "
                "again to fetch it"
            )
        if not self.fetch_file(address, path, sha256=sha256):
            raise ConfigError(
                f"{without_secrets(address)}: no such file; give the folder that holds it with "
                f"--from, or put it at {path}"
            )

    def _join(self) -> None:
        """Make the archive of its parts, which are removed."""
        parts = [self.folder / name for name in PARTS]
        self._require_space(sum(part.stat().st_size for part in parts))
        with (
            atomic_write(self.folder / ARCHIVE) as archive,
            progress_bar("join parts", len(parts)) as advance,
        ):
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, archive, _BLOCK_BYTES)
                advance(1, "")
        if not self.keep_parts:
            self._remove(PARTS)

    def _unpack(self) -> tuple[dict[str, str], int]:
        """Unpack what is not there yet; returns all clips, and how many are new."""
        for letter in _FOLDERS:
            remove_temporary_files(self.folder / letter)
        try:
            archive = zipfile.ZipFile(self.folder / ARCHIVE)
        except _DAMAGE as error:
            raise self._damaged(str(error)) from None
        with archive:
            members = archive.infolist()
            if any(member.header_offset < 0 for member in members):
                raise self._damaged("bytes are missing")
            # By their names: none is unpacked twice.
            found = {member.filename: member for member in members if _is_clip(member)}
            if not found:
                raise self._damaged("it holds no mp3 files in folders 0 to f")
            # Folders are members too, and one may be without a name.
            n_others = sum(not member.filename.endswith("/") for member in members) - len(found)
            if n_others:
                notice(f"{self.folder / ARCHIVE}: {n_others} members are no clips; left out")
            clips = {name: _state(member.file_size, member.CRC) for name, member in found.items()}
            missing = [name for name in clips if not _holds(self.folder / name, clips[name])]
            self._require_space(sum(found[name].file_size for name in missing))
            with progress_bar("unpack clips", len(missing)) as advance:
                for name in missing:
                    try:
                        _extract(archive, found[name], self.folder / name)
                    except _DAMAGE as error:
                        raise self._damaged(f"{name}: {error}") from None
                    advance(1, "")
        # Without the archive a power cut may take no clip any more. Singly it takes far longer.
        os.sync()
        manifest = _Manifest(clips=clips).model_dump_json(indent=1)
        write_text(self.folder / MANIFEST, f"{manifest}\n")
        return clips, len(missing)

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def _require_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise ConfigError(
                f"{self.folder}: {needed >> 20} MB more are needed, and {free >> 20} MB are free; "
                "make room and call again to go on"
            )

    def _damaged(self, what: str) -> ConfigError:
        """Remove what is of no use, so that the next call fetches it."""
        self._remove([ARCHIVE, *PARTS])
        return ConfigError(
            f"{self.folder / ARCHIVE}: truncated or damaged, and removed ({what}); call again to "
            "fetch it anew, with another --from if that does not help"
        )


def _state(size: int, crc: int) -> str:
    return f"{size} {crc:08x}"


def _holds(path: Path, state: str) -> bool:
    """Whether a file has that size and CRC-32."""
    try:
        size = path.stat().st_size
        if path.is_symlink() or not state.startswith(f"{size} "):
            return False
        return _state(size, zlib.crc32(path.read_bytes())) == state
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False


def _is_clip(member: zipfile.ZipInfo) -> bool:
    """Whether it is named like a clip, of its size, and can be unpacked."""
    return (
        _CLIP.fullmatch(member.filename) is not None
        and member.file_size <= _MAX_CLIP_BYTES
        and not member.flag_bits & _ENCRYPTED
        and member.compress_type in _METHODS
    )


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
