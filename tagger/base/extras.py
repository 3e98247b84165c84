"""Extras of the installation: which one brings a package that is missing."""

import contextlib
import importlib.metadata
import json
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tagger.base.errors import TaggerError

# On the package index `tagger` is somebody else's project, whose setup an install would run.
DISTRIBUTION = "musictagger"

# Package that is imported -> extra of pyproject.toml; a test keeps the two together.
EXTRAS = {
    "PIL": "plots",
    "apache_beam": "beam",
    "autopool": "train",
    "av": "m4a",
    "fastapi": "serve",
    "fsspec": "cloud",
    "google_crc32c": "cloud",
    "h5py": "train",
    "librosa": "librosa",
    "matplotlib": "plots",
    "onnx": "onnx",
    "onnxmltools": "learn",
    "onnxruntime": "classifiers",
    "openvino": "bfloat16",
    "optuna": "search",
    "pandas": "train",
    "pescador": "train",
    "prometheus_client": "serve",
    "pyarrow": "parquet",
    "scipy": "train",
    "skl2onnx": "learn",
    "sklearn": "learn",
    "sounddevice": "listen",
    "starlette": "serve",
    "tensorboard": "train",
    "tensorflow": "train",
    "tf2onnx": "onnx",
    "tf_keras": "train",
    "upath": "cloud",
    "uvicorn": "serve",
    "websockets": "serve",
    "xgboost": "learn",
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
        f"{install_command(extra)}"
    )


def install_command(extra: str) -> str:
    """Command that adds an extra to this very installation.

    Parameters
    ----------
    extra : str
        One of pyproject.toml.

    Returns
    -------
    str
        A pip command: from where the package was installed (a folder, an archive, a repository),
        which its ``direct_url.json`` tells (PEP 610), else from the package index by its name.
    """
    text = None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        text = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    folder = Path(__file__).resolve().parents[2]
    if not text and (folder / "pyproject.toml").exists():
        # Run from its folder, installed or not.
        text = json.dumps({"url": folder.as_uri(), "dir_info": {"editable": True}})
    wanted, option = f"{DISTRIBUTION}[{extra}]", ""
    if text:
        origin = json.loads(text)
        address = str(origin["url"])
        if address.startswith("file:") and "vcs_info" not in origin:
            wanted = f"{unquote(urlsplit(address).path)}[{extra}]"
            option = "-e " if origin.get("dir_info", {}).get("editable") else ""
        elif "vcs_info" in origin:
            version = origin["vcs_info"]
            wanted += f" @ {version['vcs']}+{address}@{version['commit_id']}"
        else:
            wanted += f" @ {address}"
    return f"pip install {option}{shlex.quote(wanted)}"
