"""``tagger preprocess --check``: what is wrong with a data set, and what will happen to it."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from preprocess.clips.audio_files import MOST_MISSING, where_it_may_be
from preprocess.clips.index import ClipIndex, ClipRecord
from preprocess.engines.run import front_end_of
from preprocess.engines.workers import WorkerDied, default_workers, map_in_processes
from preprocess.signal.audio import load_audio
from preprocess.signal.features import FrontEnd
from preprocess.signal.windows import holds_windows, windows_of_file, windows_of_waveform
from tagger.base.errors import AudioError
from tagger.base.files import sha256_of_file
from tagger.base.log import progress_bar

# In the order in which they are shown, with what preprocessing does about each.
CONSEQUENCES = {
    "missing": "left out of the store",
    "empty": "left out of the store",
    "unreadable": "left out of the store",
    "too short": "padded with zeros to one patch",
    "duplicate": "kept; the same audio may end up in two parts of a split",
    "unlabelled": "kept, and trains as a clip without any tag",
}
FATAL = frozenset({"missing", "empty", "unreadable"})


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one clip.

    Parameters
    ----------
    kind : str
        A key of `CONSEQUENCES`.
    path : str
        The clip's path.
    detail : str
        What exactly.
    """

    kind: str
    path: str
    detail: str

    @property
    def consequence(self) -> str:
        """What preprocessing will do about it."""
        return CONSEQUENCES[self.kind]


@dataclass(frozen=True)
class _Inspection:
    findings: tuple[Finding, ...]
    audio_hash: str = ""


def _inspect(
    record: ClipRecord,
    *,
    audio_root: Path,
    spec: dict[str, Any],
    most_missing: float,
    share_file: bool,
) -> _Inspection:
    path = audio_root / record.path
    front_end = front_end_of(spec)
    try:
        if not path.exists():
            detail = f"no file {path}{where_it_may_be(path)}"
            return _Inspection((Finding("missing", record.path, detail),))
        if path.is_file() and path.stat().st_size == 0:
            return _Inspection((Finding("empty", record.path, "0 bytes"),))
        if holds_windows(path, front_end):
            windows_of_file(path, front_end, clip=record.id)
            return _Inspection((), "" if share_file else sha256_of_file(path))
        waveform = load_audio(path, target_rate=front_end.sample_rate, most_missing=most_missing)
        audio_hash = sha256_of_file(path)
    except (AudioError, OSError) as error:
        return _Inspection((Finding("unreadable", record.path, str(error)),))
    seconds = len(waveform) / front_end.sample_rate
    # The front end itself says what it pads: the last frame of a window may reach beyond it.
    if (
        seconds < 2 * (front_end.window_seconds or 0)
        and windows_of_waveform(waveform, front_end)[1]
    ):
        short = Finding("too short", record.path, f"{seconds:.3f} s do not fill a patch")
        return _Inspection((short,), audio_hash)
    return _Inspection((), audio_hash)


def check(
    index: ClipIndex,
    front_end: FrontEnd,
    *,
    audio_root: Path,
    n_workers: int | None = None,
    most_missing: float = MOST_MISSING,
) -> list[Finding]:
    """Decode every clip and list what is wrong.

    Parameters
    ----------
    index : ClipIndex
        The clips.
    front_end : FrontEnd
        Decides what is too short.
    audio_root : Path
        Folder that clip paths are relative to.
    n_workers : int, optional
        Processes; default one per processor.
    most_missing : float
        Share of a clip's audio that may be missing or damaged, from 0 to 1.

    Returns
    -------
    list of Finding
        Grouped by kind in the order of `CONSEQUENCES`, within a kind in the index's order.
    """
    work = partial(
        _inspect,
        audio_root=audio_root,
        spec=front_end.spec(),
        most_missing=most_missing,
        # A file of many clips is the same for all of them: nothing is copied there.
        share_file=index.segments,
    )
    inspections: dict[str, _Inspection] = {}
    with progress_bar("check", len(index)) as advance:
        workers = n_workers or default_workers()
        for record, outcome in map_in_processes(work, index.clips, n_workers=workers):
            if isinstance(outcome, WorkerDied):
                detail = "its worker process died, perhaps for lack of memory"
                outcome = _Inspection((Finding("unreadable", record.path, detail),))
            inspections[record.id] = outcome
            advance(1, "")
    findings: list[Finding] = []
    first_with: dict[str, str] = {}
    for record, label in zip(index.clips, index.labels, strict=True):
        inspection = inspections[record.id]
        findings += inspection.findings
        if inspection.audio_hash:
            first = first_with.setdefault(inspection.audio_hash, record.path)
            if first != record.path:
                findings.append(Finding("duplicate", record.path, f"same file as {first}"))
        if not label.any():
            findings.append(Finding("unlabelled", record.path, "carries no tag"))
    order = list(CONSEQUENCES)
    return sorted(findings, key=lambda finding: order.index(finding.kind))
