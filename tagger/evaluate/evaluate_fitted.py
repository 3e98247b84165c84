"""The evaluation of a fitted run: of the scores that its folds gave, which the run keeps."""

from pathlib import Path

import numpy as np

from tagger.base.errors import ModelError
from tagger.base.files import write_json
from tagger.evaluate.evaluate import with_report
from tagger.evaluate.evaluation import Evaluation
from tagger.evaluate.protocol_names import Clips, use_of
from tagger.evaluate.report.clip_views import Taggrams
from tagger.metrics.bootstrap import N_RESAMPLES
from tagger.metrics.score_files import read_scores
from tagger.network.task import TASKS
from tagger.runs.folder import RunFolder, write_csv

# Name of the evaluation, and of its folder within a run.
FOLDS = "folds"


def evaluate_fitted(
    run: RunFolder,
    *,
    n_draws: int = N_RESAMPLES,
    seed: int = 0,
    report: Path | None = None,
    failures: dict[str, str] | None = None,
    taggrams: Taggrams | None = None,
) -> Evaluation:
    """Measure a fitted run on clips that were not used in the fit that scored them.

    Parameters
    ----------
    run : RunFolder
        The run.
    n_draws, seed : int
        Of the bootstrap; 0 draws for no intervals.
    report : Path, optional
        Folder of the report; default that of the evaluation.
    failures : dict of str to str, optional
        Clips that could not be used: path -> reason.
    taggrams : callable, optional
        Scores over time of the clip at a row, for the report; default by tagging it again.

    Raises
    ------
    ModelError
        If the run does not keep its scores.
    """
    folder = run.evaluation / FOLDS
    files = {
        "scores": folder / "scores.npz",
        "metrics": folder / "metrics.json",
        "per tag": folder / "per_tag.csv",
    }
    config = run.load_config()
    archive = read_scores(files["scores"])
    clips = Clips(archive.clip_ids, archive.paths, archive.artists)
    try:
        measured = TASKS.create(config.task.name, config.task.params).measure(
            archive.columns,
            thresholds=archive.thresholds,
            calibration=None,
            artists=clips.artists,
            n_draws=n_draws,
            seed=seed,
        )
    except ValueError as error:
        raise ModelError(f"{files['scores']}: {error}; train again") from None
    write_csv(files["per tag"], *measured.rows(archive.tags))
    notes = [
        f"{len(clips.ids)} clips, each scored by a head that was fitted to the clips of other folds"
    ]
    if archive.thresholds is not None and not np.isnan(archive.thresholds).all():
        notes.append(
            "thresholds were fitted to these very scores: what is said of decisions is a little "
            "too good"
        )
    evaluation = Evaluation(
        source=str(run.address),
        part=FOLDS,
        tags=archive.tags,
        measured=measured,
        files=files,
        scores=files["scores"],
        clips=clips,
        protocol=use_of("own", comparable=False),
        notes=tuple(notes),
        failures=failures or {},
        audio_root=config.data.root,
        model=str(run.address),
    )
    write_json(files["metrics"], evaluation.to_json())
    return with_report(evaluation, report or folder, taggrams=taggrams)
