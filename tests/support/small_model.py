"""A small trained model, made once for all tests that only need some model."""

from pathlib import Path

from small_store import make_store, small_config

_made: list[Path] = []


def small_training(tmp_path_factory) -> Path:
    """Folder of a store, and of the run of a narrow network that was trained on it."""
    if not _made:
        from tagger.train.loop import train

        folder = tmp_path_factory.mktemp("small-model")
        make_store(folder / "store", n_clips=64)
        train(small_config(folder, "stream.steps_per_epoch=6"))
        _made.append(folder)
    return _made[0]


def small_run(tmp_path_factory) -> Path:
    """The run alone, with its bundle. Who changes it changes a copy."""
    return small_training(tmp_path_factory) / "run"
