"""What `tagger evaluate` found, as the contents of a report."""

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tagger.base.blocks import Report
from tagger.base.errors import ModelError, TaggerError
from tagger.base.extras import install_command
from tagger.base.log import warn
from tagger.base.version import VERSION
from tagger.bundle.read import CONFIG, MODEL_CARD, Bundle
from tagger.evaluate.report.clip_views import ClipViews, Taggrams
from tagger.evaluate.report.contents import Frame
from tagger.evaluate.report.sections import framed
from tagger.metrics.columns import Columns
from tagger.tagging.prediction import Prediction

if TYPE_CHECKING:
    from preprocess.store.store import Store
    from tagger.evaluate.evaluation import Evaluation
    from tagger.runs.folder import RunFolder
    from tagger.tagging.tagger import Tagger

_FAILURES_SHOWN = 20


def report_evaluation(
    evaluation: "Evaluation",
    folder: Path,
    *,
    run: "RunFolder | None" = None,
    taggrams: Taggrams | None = None,
    verdict: str = "",
) -> dict[str, Path]:
    """Write the report of an evaluation.

    Parameters
    ----------
    evaluation : Evaluation
        What was found.
    folder : Path
        See `tagger.evaluate.report.write_report`.
    run : RunFolder, optional
        What was evaluated, for its config, versions and model card.
    taggrams : callable, optional
        Scores over time of the clip at a row; see `taggrams_of_store`. Of a bundle the audio is
        tagged again by default.
    verdict : str
        How good it is, in a sentence.

    Returns
    -------
    dict of str to Path
        What was written, by kind; nothing, after a warning, where matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        warn(f"no report, as matplotlib is not installed; {install_command('plots')} brings it")
        return {}
    from tagger.evaluate.report import write_report

    report = _report_of(
        evaluation, evaluation.columns(), run=run, taggrams=taggrams, verdict=verdict
    )
    return write_report(report, folder)


def _bundle_of(evaluation: "Evaluation") -> "Bundle | None":
    from tagger.bundle.find import find_bundle

    if evaluation.model is None:
        return None
    try:
        return find_bundle(evaluation.model)
    except TaggerError:
        # It has gone since it was measured.
        return None


def _tagged(bundle: "Bundle", audio: Callable[[int], Path | None]) -> Callable[[int], Prediction]:
    """Scores over time by tagging the clips again, from the first that is asked for."""
    from tagger.bundle.light_model import LightModel
    from tagger.tagging.tagger import Tagger

    tagger: list[Tagger] = []

    def taggram(row: int) -> Prediction:
        path = audio(row)
        if path is None:
            raise ModelError("its file is not at hand")
        if not tagger:
            tagger.append(Tagger(LightModel(bundle)))
        return tagger[0].predict(path)

    return taggram


def taggrams_of_store(
    tagger: "Tagger", store: "Store", *, rows: Sequence[int], paths: Sequence[str]
) -> Taggrams:
    """Scores over time of clips of a store, when they are asked for.

    Parameters
    ----------
    tagger : Tagger
        What scores; windows go by its calibration as clips do.
    store : Store
        Where the windows are.
    rows : sequence of int
        Clips in the store, in the order of the evaluation.
    paths : sequence of str
        Their files.
    """
    return lambda place: tagger.predict_windows(store.read(rows[place]), path=paths[place])


def _report_of(
    evaluation: "Evaluation",
    columns: Columns,
    *,
    run: "RunFolder | None",
    taggrams: Taggrams | None,
    verdict: str,
) -> Report:
    from tagger.runs.folder import versions

    described = {} if run is None else run.require()
    audio = audio_of(evaluation)
    card = config = ""
    if run is not None:
        card, config = _text_of(run.bundle / MODEL_CARD), _text_of(run.config)
    elif bundle := _bundle_of(evaluation):
        card, config = _text_of(bundle.root / MODEL_CARD), _text_of(bundle.root / CONFIG)
        if taggrams is None and audio is not None:
            taggrams = _tagged(bundle, audio)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    about = f"{_model_of(evaluation, run)}, evaluated on {today} with tagger {VERSION}."
    leaked = evaluation.leakage
    frame = Frame(
        title=f"{_name_of(evaluation.source)}: {_PARTS[evaluation.part]}",
        verdict=verdict,
        about=about,
        history=evaluation.history,
        monitor="loss" if run is None else run.load_config().train.monitor,
        leakage=[] if leaked is None else _sentences(leaked.lines(_side(evaluation))),
        notes=_notes(evaluation),
        card=card,
        versions=described.get("versions") or versions(),
        config=config,
    )
    clips = ClipViews(columns, taggrams, audio)
    return framed(frame, evaluation.measured.sections(evaluation, clips))


def _model_of(evaluation: "Evaluation", run: "RunFolder | None") -> str:
    """Name and version of the model, as far as they are known."""
    bundle = None
    if run is not None and Bundle.is_at(run.bundle):
        bundle = Bundle(run.bundle)
    elif run is None:
        bundle = _bundle_of(evaluation)
    if bundle is None:
        return f"Scores of {_name_of(evaluation.source)}"
    made = str(bundle.description.created)[:10]
    return f"Model {bundle.name}, version {bundle.version}, made on {made}"


_PARTS = {
    "test": "test clips",
    "validation": "validation clips",
    "train": "training clips",
    "all": "all clips",
    "folds": "clips in folds",
}


def _name_of(source: str) -> str:
    parts = PurePosixPath(source).parts
    # The folder of a run's bundle says nothing without the run's.
    return "/".join(parts[-2:] if parts[-1:] == ("bundle",) else parts[-1:])


def _side(evaluation: "Evaluation") -> str:
    return "test" if evaluation.part == "all" else evaluation.part


def _sentences(lines: Sequence[str]) -> list[str]:
    return [f"{line[:1].upper()}{line[1:]}." for line in lines]


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _notes(evaluation: "Evaluation") -> list[str]:
    failures = [f"{path} could not be read: {why}" for path, why in evaluation.failures.items()]
    more = len(failures) - _FAILURES_SHOWN
    last = [f"{more} more clips could not be read."] if more > 0 else []
    return [*evaluation.notes, *failures[:_FAILURES_SHOWN], *last]


def audio_of(evaluation: "Evaluation") -> Callable[[int], Path | None] | None:
    """Audio file of the clip at a row, where the files are known; nothing outside the data."""
    root, paths = evaluation.audio_root, evaluation.clips.paths
    if root is None or not paths:
        return None

    def audio(row: int) -> Path | None:
        # An archive may name any file: nothing outside the data goes into a report.
        path = PurePosixPath(paths[row])
        return None if path.is_absolute() or ".." in path.parts else root / path

    return audio
