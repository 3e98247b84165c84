"""A variant of a study whose network is trained: a run in each fold of the split."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.clips.datasets import DATASETS
from preprocess.clips.splits import SPLITS
from preprocess.engines.run import preprocess
from preprocess.store.store import Store
from tagger.base.errors import ConfigError, TaggerError
from tagger.base.files import json_hash, one_at_a_time, write_json
from tagger.base.log import warn
from tagger.bundle.light_model import LightModel
from tagger.bundle.read import Bundle
from tagger.config import Config, with_overrides
from tagger.metrics.columns import ArrayColumns
from tagger.metrics.score_files import write_scores
from tagger.runs.folder import RunFolder, read_history
from tagger.study.kept import RESULT, SCHEMA_VERSION, SCORES, digest
from tagger.study.votes import training_scores
from tagger.tagging.tagger import Tagger

# Clips that are scored again to see how long one takes.
_TIMED_CLIPS = 20


def train_variant(config: Config, folder: Path, stores: Path) -> str | None:
    """Train a network in each fold of a split, and keep what it says of the test clips.

    A run that was stopped goes on. What it says of the validation clips is kept as well: votes
    that learn their weights learn them there.

    Parameters
    ----------
    config : Config
        Of the variant.
    folder : Path
        Of the variant.
    stores : Path
        Where windows are kept; variants of one front end share them.

    Returns
    -------
    str or None
        Why it cannot be trained; None where it was.
    """
    try:
        _train_variant(config, folder, stores)
    except TaggerError as error:
        return str(error)
    return None


def _train_variant(config: Config, folder: Path, stores: Path) -> None:
    from tagger.train.loop import train

    root = _store_of(config, stores)
    folds: list[_Fold] = []
    for fold in range(SPLITS.create(config.data.split, config.data.split_params).n_folds):
        run = folder / f"fold_{fold}"
        settings = {"store.root": str(root), "run.root": str(run), "data.split_fold": fold}
        own = with_overrides(config, settings)
        if not train(own, resume=True).finished:
            raise ConfigError(f"{run}: was stopped; run the study again to go on")
        folds.append(_Fold.of(own, run))
        folds[-1].keep(training_scores(folder, fold), "validation")
    _keep(folder / SCORES, folds, "test")
    config.save(folder / "config.yaml")
    first = folds[0]
    # Comes last and makes it count.
    write_json(
        folder / RESULT,
        {
            "schema_version": SCHEMA_VERSION,
            "config_hash": digest(config),
            "n_train": int((first.parts == "train").sum()),
            "n_folds": len(folds),
            "n_tested": [len(fold.rows("test")) for fold in folds],
            "fit_seconds": float(np.mean([fold.seconds for fold in folds])),
            "ms_per_clip": first.ms_per_clip(),
            "bytes": (first.bundle.root / first.bundle.export("litert").file).stat().st_size,
            "found": first.describe(),
        },
    )


def _store_of(config: Config, stores: Path) -> Path:
    """Store of a config's clips, made where it is not there yet."""
    front_end, data = config.make_front_end(), config.data
    what = [front_end.spec(), data.name, data.params, str(data.root), config.store.dtype]
    root = stores / json_hash(what)
    # Variants that are trained at once share it.
    with one_at_a_time(stores / "lock"):
        index = DATASETS.create(data.name, data.params).index(data.root)
        made = preprocess(
            index,
            front_end,
            audio_root=data.root,
            store_root=root,
            dtype=config.store.dtype,
            n_workers=config.store.workers,
            most_missing=data.most_missing,
        )
    if made.failures:
        some = next(iter(made.failures.values()))
        warn(f"{len(made.failures)} of {len(index)} clips cannot be used, e.g. {some}")
    return root


@dataclass(frozen=True)
class _Fold:
    """A network that was trained in one fold."""

    config: Config
    store: Store
    tagger: Tagger
    bundle: Bundle
    parts: npt.NDArray[np.str_]
    labels: npt.NDArray[np.uint8]
    history: list[dict[str, float]]
    n_parameters: int

    @classmethod
    def of(cls, config: Config, run: Path) -> "_Fold":
        from tagger.train.data import prepare_data

        data, kept = prepare_data(config), RunFolder(run)
        bundle = Bundle(kept.bundle)
        return cls(
            config,
            data.store,
            Tagger(LightModel(bundle)),
            bundle,
            data.parts,
            data.labels,
            read_history(kept),
            _n_parameters(kept.best_weights),
        )

    @property
    def seconds(self) -> float:
        return sum(row["seconds"] for row in self.history)

    def rows(self, part: str) -> npt.NDArray[np.intp]:
        return np.flatnonzero(self.parts == part)

    def scores(self, part: str) -> npt.NDArray[np.float32]:
        clips = (self.store.read(int(row)) for row in self.rows(part))
        return np.stack([self.tagger.predict_windows(clip).scores for clip in clips])

    def keep(self, path: Path, part: str) -> None:
        if len(self.rows(part)):
            _keep(path, [self], part)

    def ms_per_clip(self) -> float:
        """Milliseconds from the windows of a clip to its scores, one clip at a time."""
        windows = [self.store.read(int(row)) for row in self.rows("test")[:_TIMED_CLIPS]]
        self.tagger.predict_windows(windows[0])
        begun = time.perf_counter()
        for one in windows:
            self.tagger.predict_windows(one)
        return 1000 * (time.perf_counter() - begun) / len(windows)

    def describe(self) -> str:
        best = max(self.history, key=lambda row: row[f"validation_{self.config.train.monitor}"])
        each = self.seconds / len(self.history)
        return (
            f"{self.n_parameters:,d} parameters, best epoch {best['epoch']:.0f} of "
            f"{len(self.history)}, {each:.1f} s an epoch"
        )


def _keep(path: Path, folds: list[_Fold], part: str) -> None:
    scored = [(fold, fold.rows(part), fold.scores(part)) for fold in folds]
    records = [fold.store.index.clips[int(row)] for fold, rows, _ in scored for row in rows]
    write_scores(
        path,
        ArrayColumns(
            np.concatenate([fold.labels[rows] for fold, rows, _ in scored]),
            np.concatenate([scores for _, _, scores in scored]),
        ),
        tags=folds[0].tagger.tags,
        clip_ids=[record.id for record in records],
        paths=[record.path for record in records],
        artists=[record.artist for record in records],
        task=folds[0].config.task.name,
    )


def _n_parameters(weights: Path) -> int:
    import h5py

    sizes: list[int] = []

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            sizes.append(int(np.prod(item.shape)))

    with h5py.File(weights, "r") as file:
        file.visititems(visit)
    return sum(sizes)
