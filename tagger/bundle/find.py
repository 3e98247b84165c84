"""Find a model by a name, a run, a bundle's folder or an address, and describe it."""

import os
from pathlib import Path

from tagger.base.errors import ModelError
from tagger.base.files import sha256_of_file
from tagger.base.suggest import did_you_mean
from tagger.bundle.models import (
    DEFAULT_MODEL,
    GS_PREFIX,
    pull,
    pulled_bundle,
    registered_models,
)
from tagger.bundle.read import DESCRIPTION, WEIGHTS, Bundle

_RUNS = Path("runs")
# Journal of a search, which lies above the runs of its trials.
_SEARCH = "optuna.jsonl"
_RUN_DESCRIPTION, _RUN_WEIGHTS, _RUN_BUNDLE = "run.json", "best.weights.h5", "bundle"


def default_model() -> str:
    """Name what is used by default: ``$TAGGER_MODEL``, else musicnn."""
    return os.environ.get("TAGGER_MODEL") or DEFAULT_MODEL


def newest_run(folder: Path = _RUNS) -> Path | None:
    """Run below `folder` that can be used and whose weights are the newest; None without any."""
    runs = []
    for run in _runs_below(folder):
        # One that was fitted has no weights of its own.
        made = [run / _RUN_WEIGHTS, run / _RUN_BUNDLE / DESCRIPTION]
        times = [path.stat().st_mtime for path in made if path.exists()]
        if times and Bundle.is_at(run / _RUN_BUNDLE):
            runs.append((times[0], run))
    return max(runs)[1] if runs else None


def _runs_below(folder: Path) -> list[Path]:
    """Find runs below a folder; not the trials of a search: who wants one of these names it."""
    runs = sorted(path.parent for path in folder.rglob(_RUN_DESCRIPTION))
    return [run for run in runs if not any((above / _SEARCH).exists() for above in run.parents)]


def known_models() -> list[str]:
    """Names that models can be found by: the registered ones, and runs here."""
    return [*registered_models(), *(str(run) for run in _runs_below(_RUNS))]


def is_model_folder(path: Path) -> bool:
    """Whether a folder is that of a training run or of a bundle."""
    return (path / _RUN_DESCRIPTION).exists() or Bundle.is_at(path)


def find_bundle(model: str | Path) -> Bundle:
    """Bundle of a model, however it is named.

    Parameters
    ----------
    model : str or Path
        Folder of a bundle or of a training run, ``gs://`` URI of a bundle, or registered name.

    Returns
    -------
    Bundle

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged.
    """
    name = str(model)
    if name.startswith(GS_PREFIX):
        from tagger.bundle.fetch import fetch_bundle

        return fetch_bundle(name)
    path = Path(model)
    if (path / _RUN_DESCRIPTION).exists():
        return _bundle_of_run(path)
    if path.exists():
        return Bundle(path.parent if path.name == DESCRIPTION else path)
    if name in registered_models():
        if not Bundle.is_at(pulled_bundle(name)):
            from tagger.base.log import notice

            notice(f"{name}: not here yet; pulling it into {pulled_bundle(name)}")
        return pull(name)
    raise ModelError(
        f"{name}: no such folder, and no registered model ({', '.join(registered_models())})"
        f"{did_you_mean(name, known_models())}; give the folder of a training run or of a bundle, "
        "or one of these names"
    )


def _bundle_of_run(run: Path) -> Bundle:
    bundle, weights = run / _RUN_BUNDLE, run / _RUN_WEIGHTS
    if not Bundle.is_at(bundle):
        if not weights.exists():
            raise ModelError(f"{run}: has no weights yet; let an epoch of its training end")
        raise ModelError(f"{run}: has no exported model yet; make it with: tagger export {run}")
    found = Bundle(bundle)
    # Times alone do not tell: a copied run has others.
    if (
        weights.exists()
        and weights.stat().st_mtime > (bundle / DESCRIPTION).stat().st_mtime
        and sha256_of_file(weights) != found.checksums.get(WEIGHTS)
    ):
        from tagger.base.log import warn

        warn(f"{run}: has newer weights than its exported model; renew it: tagger export {run}")
    return found


def describe_model(model: str) -> list[str]:
    """Lines about a model; of a registered one that is not here yet, what is known of it.

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged.
    """
    entry = registered_models().get(model)
    if entry is not None and not Bundle.is_at(pulled_bundle(model)):
        return [
            f"{entry.name}: {entry.summary}",
            f"good for: {entry.good_for}",
            f"tags ({entry.n_tags}): {', '.join(entry.tags)}" if entry.tags else "tags: none",
            *(f"published {name}: {value:.4f}" for name, value in entry.published.items()),
            f"source: {entry.source}",
            f"licence: {entry.licence}, {entry.rights}",
            f"size: {entry.megabytes:g} MB",
            f"not here yet; fetch it with: tagger models pull {entry.name}",
        ]
    return describe_bundle(find_bundle(model))


def describe_bundle(bundle: Bundle) -> list[str]:
    """Lines about a bundle.

    Raises
    ------
    ModelError
        If a file of it is damaged.
    """
    bundle.verify()
    tags = bundle.tags()
    fitted = sum(value is not None for value in bundle.thresholds())
    return [
        f"{bundle.name}: version {bundle.version}, made by tagger {bundle.tagger_version}",
        f"folder: {bundle.root}",
        *(f"{title.lower()}: {text}" for title, text in bundle.card.items()),
        f"front end: {bundle.front_end['name']}",
        f"tags ({len(tags)}, {fitted} with a threshold of their own): {', '.join(tags)}",
        "embeddings: "
        + ", ".join(f"{name} ({bundle.outputs[name]})" for name in bundle.embeddings),
        *(f"export {export.describe()}" for export in bundle.exports),
    ]
