"""A small trained model, made once for all tests that only need some model."""

from pathlib import Path

from small_store import make_store, small_config

_made: list[Path] = []


def small_run(tmp_path_factory) -> Path:
    """Run of a narrow network that was trained for one epoch, with its bundle."""
    if not _made:
        from tagger.train import train

        folder = tmp_path_factory.mktemp("small-model")
        make_store(folder / "store", n_clips=32)
        train(small_config(folder, "train.epochs=1"))
        _made.append(folder / "run")
    return _made[0]
