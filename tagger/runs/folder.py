"""The run folder: everything that a training run leaves behind, and how to find it again."""

import contextlib
import csv
import io
import json
import platform
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.clips.index import ClipIndex
from preprocess.clips.splits import Parts
from preprocess.clips.vocabulary import Vocabulary
from preprocess.signal.features import FrontEnd
from tagger.base.addresses import is_remote
from tagger.base.errors import ModelError
from tagger.base.files import (
    TEMPORARY_PREFIX,
    remove_temporary_files,
    sha256_of_file,
    write_json,
    write_text,
)
from tagger.base.log import warn
from tagger.base.suggest import did_you_mean
from tagger.base.version import VERSION
from tagger.cloud.locations import location
from tagger.cloud.mirror import Mirror, RunChangedError, local_copy
from tagger.cloud.run_names import RUN_RESULTS
from tagger.config import Config, load_config
from tagger.metrics.calibration import Calibration
from tagger.scoring.clip_heads import ClipHead, load_clip_head

FORMAT_VERSION = 1
# Kind of a run whose network is that of another model.
FITTED = "fitted"
# What reading JSON that somebody has damaged raises, or made: nested too deep, numbers too large.
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError)
_PACKAGES = ("tensorflow", "tf-keras", "numpy", "pescador", "autopool", "soundfile")


class RunFolder:
    """Names of the files of a run; see `at` for one that may be at an address.

    Parameters
    ----------
    root : Path
        The folder, which is local.
    mirror : Mirror, optional
        The run at an address that it is a copy of.

    Attributes
    ----------
    address : Path
        What its user calls it: the folder, or the address that it is a copy of.
    """

    def __init__(self, root: Path, *, mirror: Mirror | None = None) -> None:
        self.root = Path(root)
        self.address = self.root if mirror is None else mirror.remote
        self._mirror = mirror
        self.description = self.root / "run.json"
        self.config = self.root / "config.yaml"
        self.vocabulary = self.root / "vocabulary.json"
        self.split = self.root / "split.csv"
        self.metrics = self.root / "metrics.csv"
        self.tensorboard = self.root / "tensorboard"
        self.best_weights = self.root / "best.weights.h5"
        self.last_weights = self.root / "last.weights.h5"
        self.thresholds = self.root / "thresholds.json"
        self.calibration = self.root / "calibration.json"
        self.clip_head = self.root / "clip_head.npz"
        self.validation_scores = self.root / "validation_scores.npz"
        self.bundle = self.root / "bundle"
        self.checkpoints = self.root / "checkpoints"
        self.evaluation = self.root / "evaluation"

    @classmethod
    def at(cls, root: str | Path) -> "RunFolder":
        """Run in a local folder, or at an address: then it is worked on in a copy in the cache.

        `pull` comes before the first look at it, `push` after each change that is to last.

        Raises
        ------
        ConfigError
            If it is an address that cannot be.
        MissingExtraError
            If the extra ``cloud`` is not installed and an address is given.
        """
        place = location(root)
        if not is_remote(place):
            return cls(place)
        local = local_copy("runs", place)
        return cls(local, mirror=Mirror(place, local))

    def pull(self, *, leave: Collection[str] = ()) -> None:
        """Bring the copy of a run at an address up to date.

        What killed commands have left in the folder, local or a copy, is removed.

        Parameters
        ----------
        leave : collection of str
            Folders in it that are not needed.

        Raises
        ------
        ModelError
            If it cannot be had.
        """
        for folder in {path.parent for path in self.root.rglob(f"{TEMPORARY_PREFIX}*")}:
            remove_temporary_files(folder)
        if self._mirror is not None:
            self._mirror.pull(leave=leave)

    def push(self, *, patient: bool = False) -> None:
        """Send what has changed to the run's address; nothing is done for a local one.

        Parameters
        ----------
        patient : bool
            What cannot be sent now is warned of, and sent the next time: hours of training must
            not be lost with the network.

        Raises
        ------
        tagger.cloud.mirror.RunChangedError
            If somebody else has changed the run meanwhile: waiting helps nothing.
        ModelError
            If it cannot be sent.
        """
        if self._mirror is None:
            return
        try:
            self._mirror.push()
        except ModelError as error:
            if not patient or isinstance(error, RunChangedError):
                raise
            warn(f"{error}; it is kept in {self.root} and will be sent later")

    def warn_of_vm(self) -> None:
        """Warn where a VM holds the lease of the run: what is changed now would end its training.

        Where the bucket does not tell, nothing is said.
        """
        if self._mirror is None:
            return
        lease = location(f"{str(self.address).rstrip('/')}.vm/lease.json")
        with contextlib.suppress(OSError):
            if lease.exists():
                warn(
                    f"{self.address}: a VM works on this run ({lease}); if it still trains, it "
                    "will end with an error when it meets what is changed now: wait for its end"
                )

    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.description.exists()

    def require(self) -> dict[str, Any]:
        """Check that a run of this format is here.

        Returns
        -------
        dict
            Its description (``run.json``).

        Raises
        ------
        ModelError
            If there is none, it is damaged or of another format version.
        """
        try:
            content = json.loads(self.description.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            hint = did_you_mean(self.address.name, self._beside())
            raise ModelError(
                f"{self.address}: no training run here{hint}; give the folder that 'tagger train' "
                "wrote"
            ) from None
        except _UNREADABLE as error:
            remedy = "delete the folder and train again"
            if self._mirror is not None:
                remedy = f"restore it (if only the copy in {self.root} is damaged, delete that)"
            raise ModelError(
                f"{self.address / self.description.name}: damaged ({error}); {remedy}, or choose "
                "another run.root"
            ) from None
        version = content.get("format_version") if isinstance(content, dict) else None
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{self.address}: run of format version {version}, but this release reads "
                f"{FORMAT_VERSION}; use the release that wrote it, or train again"
            )
        return dict(content)

    def _beside(self) -> list[str]:
        """List the runs in the same folder."""
        if self._mirror is not None:
            return []
        return [str(path.parent) for path in self.address.parent.glob(f"*/{self.description.name}")]

    @property
    def is_fitted(self) -> bool:
        """Whether a clip head was fitted here, and no network trained."""
        return self.require().get("kind") == FITTED

    def start(
        self,
        config: Config,
        vocabulary: Vocabulary,
        *,
        index: ClipIndex,
        parts: Parts,
        description: dict[str, Any],
    ) -> None:
        """Write what is known before the first step; the description comes last.

        Of an earlier run whose description is gone nothing may stay: its states would be taken for
        this run's.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        for result in (self.root / name for name in RUN_RESULTS):
            if result.is_dir():
                shutil.rmtree(result, ignore_errors=True)
            else:
                result.unlink(missing_ok=True)
        config.save(self.config)
        write_json(self.vocabulary, {"tags": vocabulary.tags, "members": vocabulary.members})
        rows = [
            [clip.id, clip.path, str(part)] for clip, part in zip(index.clips, parts, strict=True)
        ]
        write_csv(self.split, ["clip_id", "path", "part"], rows)
        write_json(
            self.description,
            {
                "format_version": FORMAT_VERSION,
                "versions": versions(),
                "front_end_hash": config.make_front_end().spec_hash(),
                **description,
            },
        )

    def load_config(self, overrides: list[str] | None = None) -> Config:
        """Effective config of the run.

        Raises
        ------
        ModelError
            If the file is missing.
        """
        if not self.config.exists():
            raise ModelError(f"{self.config}: missing; copy the whole run folder, or train again")
        return load_config(self.config, overrides)

    def require_front_end(self, front_end: FrontEnd) -> None:
        """Refuse the run if it was trained on windows that this release no longer makes.

        Raises
        ------
        ModelError
            If the front end has changed since.
        """
        if self.require().get("front_end_hash") != front_end.spec_hash():
            raise ModelError(
                f"{self.address}: trained with another version of the front end "
                f"{front_end.name!r}; use the release that wrote it, or train again"
            )

    def load_vocabulary(self) -> Vocabulary:
        """Tags of the run.

        Raises
        ------
        ModelError
            If the file is missing or damaged.
        """
        try:
            content = json.loads(self.vocabulary.read_text(encoding="utf-8"))
            members = tuple(tuple(names) for names in content["members"])
            return Vocabulary(tuple(content["tags"]), members)
        except _UNREADABLE as error:
            raise ModelError(
                f"{self.vocabulary}: missing or damaged ({error}); train again"
            ) from None

    def load_thresholds(self) -> list[float | None] | None:
        """Score from which each tag applies, fitted on the validation clips; None if not fitted.

        Raises
        ------
        ModelError
            If the file is damaged.
        """
        if not self.thresholds.exists():
            return None
        try:
            content = json.loads(self.thresholds.read_text(encoding="utf-8"))["thresholds"]
            return None if content is None else [None if x is None else float(x) for x in content]
        except _UNREADABLE as error:
            raise ModelError(
                f"{self.thresholds}: damaged ({error}); delete it or train again"
            ) from None

    def load_calibration(self, *, n_tags: int) -> Calibration | None:
        """Read the maps of clip scores, fitted on the validation clips; None if there are none.

        Raises
        ------
        ModelError
            If the file is damaged.
        """
        if not self.calibration.exists():
            return None
        try:
            content = json.loads(self.calibration.read_text(encoding="utf-8"))
            return Calibration.from_json(content, n_tags=n_tags)
        except _UNREADABLE as error:
            raise ModelError(
                f"{self.calibration}: damaged ({error}); delete it or train again"
            ) from None

    def load_clip_head(self, *, sizes: Mapping[str, int], n_tags: int) -> ClipHead | None:
        """Read the clip head that was fitted; None if there is none for the best weights.

        Parameters
        ----------
        sizes : mapping of str to int
            Length of each output of the network.
        n_tags : int
            Tags that it has.

        Raises
        ------
        ModelError
            If the file is damaged, or there are no weights.
        """
        if not self.clip_head.exists():
            return None
        head = load_clip_head(self.clip_head, sizes=sizes, n_tags=n_tags)
        try:
            best = sha256_of_file(self.best_weights)
        except OSError as error:
            raise ModelError(
                f"{self.best_weights}: missing ({error.strerror}); copy the whole run folder"
            ) from None
        # A run that has learned on since has none until it ends again.
        return head if head.backbone == best else None

    def load_split(self) -> dict[str, str]:
        """Part of every clip that the store had when the run was started, by clip id.

        Raises
        ------
        ModelError
            If the file is missing or damaged.
        """
        try:
            with self.split.open(encoding="utf-8", newline="") as file:
                part_of = {row["clip_id"]: row["part"] for row in csv.DictReader(file)}
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise ModelError(f"{self.split}: missing or damaged ({error}); train again") from None
        if not part_of:
            raise ModelError(f"{self.split}: damaged (it holds no clips); train again")
        return part_of

    def load_parts(self, index: ClipIndex) -> Parts:
        """Part of every clip of `index` as it was in training; clips added since have none."""
        part_of = self.load_split()
        return np.array([part_of.get(clip.id, "") for clip in index.clips], dtype="<U10")


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a CSV file atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def versions() -> dict[str, str]:
    """Versions of Python, of this package, its commit, and of what decides the numbers."""
    found = {"python": platform.python_version(), "tagger": VERSION, "commit": git_commit()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            # Installed under another name, e.g. tensorflow-cpu.
            found[package] = "unknown"
    return found


def git_commit() -> str:
    """Commit that this code was checked out at; marked if it has changed since."""

    def git(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 (with words from below alone)
            ["git", *arguments],  # noqa: S607 (whichever git the user has)
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout.strip()

    try:
        # Installed inside somebody else's repository, this file is not one of its own.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def read_history(run: RunFolder) -> list[dict[str, float]]:
    """Rows of a run's metrics per epoch; empty before the first epoch has ended.

    Raises
    ------
    ModelError
        If the file is damaged.
    """
    import csv

    if not run.metrics.exists():
        return []
    try:
        with run.metrics.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [{key: float(value) for key, value in row.items()} for row in rows]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ModelError(f"{run.metrics}: damaged ({error}); delete it or train again") from None
