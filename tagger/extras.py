"""Extras of the installation: which one brings a package that is missing."""

from tagger.errors import TaggerError

# Package that is imported -> extra of pyproject.toml; a test keeps the two together.
EXTRAS = {
    "apache_beam": "beam",
    "autopool": "train",
    "fsspec": "cloud",
    "google_crc32c": "cloud",
    "h5py": "train",
    "librosa": "train",
    "matplotlib": "plots",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "optuna": "search",
    "pandas": "train",
    "pescador": "train",
    "pyarrow": "parquet",
    "scipy": "train",
    "tensorboard": "train",
    "tensorflow": "train",
    "tf2onnx": "onnx",
    "tf_keras": "train",
    "upath": "cloud",
    "google": "cloud",
}


class MissingExtraError(TaggerError):
    """A package that comes with an extra is not installed."""


def explain(error: ModuleNotFoundError) -> MissingExtraError | None:
    """Say what to install, if `error` is about a package that an extra brings.

    Parameters
    ----------
    error : ModuleNotFoundError
        As Python raised it.

    Returns
    -------
    MissingExtraError or None
        One line with the remedy; None if no extra brings the package.
    """
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        return None
    return MissingExtraError(
        f"this needs {error.name}, which is not installed; install it with: "
        f"pip install 'tagger[{extra}]'"
    )
