"""From scores to decisions: calibration and thresholds, fitted on the validation clips of a run."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ModelError
from tagger.base.files import atomic_write, write_json
from tagger.config import CalibrationConfig
from tagger.metrics.decisions import Decisions
from tagger.network.task import TASKS, Task
from tagger.runs.folder import RunFolder


def fit_decisions(
    task: Task,
    config: CalibrationConfig,
    *,
    labels: npt.NDArray[np.uint8],
    scores: npt.NDArray[np.float32],
) -> Decisions:
    """Fit calibration and thresholds.

    Parameters
    ----------
    task : Task
        Says whether its outputs are decisions of their own.
    config : CalibrationConfig
        What is wanted.
    labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        1 where a validation clip carries a tag.
    scores : np.ndarray [shape=(n_clips, n_tags), dtype=float32]
        What the network says of it.
    """
    precision = config.precision if config.thresholds == "precision" else None
    return task.decisions(labels, scores, method=config.method, precision=precision)


def save_decisions(
    run: RunFolder,
    task: Task,
    config: CalibrationConfig,
    *,
    labels: npt.NDArray[np.uint8],
    scores: npt.NDArray[np.float32],
) -> Decisions:
    """Fit calibration and thresholds of a run's best weights, and keep them in the run.

    What they were fitted to is kept as well, so that others can be fitted without scoring again.

    Parameters
    ----------
    run : RunFolder
        The run.
    task, config, labels, scores
        As of `fit_decisions`.
    """
    decisions = fit_decisions(task, config, labels=labels, scores=scores)
    with atomic_write(run.validation_scores) as file:
        np.savez_compressed(file, gt=labels, est=scores)
    write_decisions(run, decisions)
    return decisions


def write_decisions(run: RunFolder, decisions: Decisions) -> None:
    """Keep calibration and thresholds in a run."""
    if decisions.calibration is None:
        run.calibration.unlink(missing_ok=True)
    else:
        write_json(run.calibration, decisions.calibration.to_json())
    write_json(run.thresholds, {"thresholds": decisions.thresholds})


def refit_decisions(root: Path, *, overrides: list[str] | None = None) -> list[str]:
    """Fit calibration and thresholds of a trained run anew; the verb ``calibrate``.

    What is wanted is kept in the run's config, so that the next call wants the same unless told
    otherwise.

    Parameters
    ----------
    root : Path
        The run folder, local or at an address.
    overrides : list of str, optional
        Of what the run's config says, e.g. ``["calibration.method=isotonic"]``.

    Returns
    -------
    list of str
        What was fitted and made, a line each.

    Raises
    ------
    ModelError
        If there is no such run, it was fitted, or its validation scores are not kept.
    """
    from tagger.bundle.export import export_run
    from tagger.metrics.score_files import read_scores

    run = RunFolder.at(root)
    run.pull(leave=("checkpoints", "tensorboard"))
    if run.is_fitted:
        raise ModelError(
            f"{run.address}: was fitted to what a pretrained model says, with its thresholds; fit "
            "it again (tagger train MUSIC), with --set calibration.method=isotonic or so, which "
            "takes seconds as all clips are known"
        )
    run.warn_of_vm()
    trained = run.load_config(overrides)
    config = trained.calibration
    n_tags = len(run.load_vocabulary())
    path = run.validation_scores
    if not path.exists():
        path = run.evaluation / "validation" / "scores.npz"
        # Those of an evaluation are calibrated where the run is.
        if not path.exists() or run.calibration.exists():
            raise ModelError(
                f"{run.address}: keeps no scores of its validation clips; make them with: "
                f"tagger evaluate {run.address} --part validation"
            )
    columns = read_scores(path).columns
    if columns.shape[1] != n_tags:
        raise ModelError(f"{path}: holds other tags than the run; evaluate it again")
    labels, scores = columns.labels.astype(np.uint8), columns.scores.astype(np.float32)
    task = TASKS.create(trained.task.name, trained.task.params)
    decisions = save_decisions(run, task, config, labels=labels, scores=scores)
    trained.save(run.config)
    fitted = sum(value is not None for value in decisions.thresholds or [])
    wanted = "highest F1"
    if config.thresholds == "precision":
        wanted = f"precision {config.precision:g}"
    lines = [
        f"{run.address}: calibration {config.method}, {fitted} of {n_tags} thresholds for "
        f"{wanted}, fitted on {len(labels)} validation clips"
    ]
    lines += export_run(run)
    run.push()
    return lines
