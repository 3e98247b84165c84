"""What the names of the files of a run or bundle mean to who copies them."""

from collections.abc import Collection

# What makes the folder that it lies in valid. Without it the folder counts for nothing.
_SEALS = ("bundle.json", "progress.json")

# What makes a run valid.
RUN_DESCRIPTION = "run.json"

# What training, evaluation and export add to a run: of an earlier one none of it may stay.
RUN_RESULTS = (
    "checkpoints",
    "tensorboard",
    "evaluation",
    "bundle",
    "best.weights.h5",
    "last.weights.h5",
    "metrics.csv",
    "thresholds.json",
    "calibration.json",
    "clip_head.npz",
    "validation_scores.npz",
)


def is_result(name: str) -> bool:
    """Whether training makes it, of a run that is started anew again."""
    return name.partition("/")[0] in RUN_RESULTS


def is_seal(name: str) -> bool:
    """Whether it makes the folder that it lies in a whole."""
    return name.rpartition("/")[2] in _SEALS


def folder_of(name: str) -> str:
    """Folder of a file; empty for the run itself."""
    return name.rpartition("/")[0]


def seals_any(name: str, folders: set[str]) -> bool:
    """Whether it is the seal of one of some folders, or of one around them."""
    sealed = folder_of(name)
    return is_seal(name) and any(f"{folder}/".startswith(f"{sealed}/") for folder in folders)


def validity(name: str) -> int:
    """In which order files arrive."""
    return 2 if name == RUN_DESCRIPTION else 1 if is_seal(name) else 0


def is_below(name: str, folders: Collection[str]) -> bool:
    """Whether it lies in one of some folders."""
    return any(name.startswith(f"{folder}/") for folder in folders)
