"""The models of the package musicnn 0.1.0 (Pons & Serra 2019), fetched from the package index.

The package pins a NumPy of its time and cannot be installed beside a present TensorFlow. Only its
wheel is fetched; of it only the checkpoints are read, never its code.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tagger.base.cache import cache_folder
from tagger.base.errors import ModelError
from tagger.base.files import remove_temporary_files, sha256_of_file, temporary_folder
from tagger.bundle.models import RegisteredModel
from tagger.bundle.models._source import file_from
from tagger.bundle.models._template import read_template
from tagger.bundle.models._thresholds import MSD_THRESHOLD, magnatagatune_thresholds
from tagger.bundle.read import Bundle
from tagger.untrusted.tensor_bundle import DATA_SUFFIX, INDEX_SUFFIX, read_tensor_bundle

if TYPE_CHECKING:
    from tagger.config import Config

REQUIREMENT = "musicnn==0.1.0"
WHEEL = "musicnn-0.1.0-py3-none-any.whl"
WHEEL_SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
_SUFFIXES = (INDEX_SUFFIX, DATA_SUFFIX)
_PREFIX = "model.ckpt"
_DOWNLOAD_SECONDS = 900
_STDERR = 2

# Names of the outputs, in the order of the published networks.
_MTT = (
    "guitar;classical;slow;techno;strings;drums;electronic;rock;fast;piano;ambient;beat;"
    "violin;vocal;synth;female;indian;opera;male;singing;vocals;no vocals;harpsichord;loud;"
    "quiet;flute;woman;male vocal;no vocal;pop;soft;sitar;solo;man;classic;choir;voice;"
    "new age;dance;male voice;female vocal;beats;harp;cello;no voice;weird;country;metal;"
    "female voice;choral"
)
_MSD = (
    "rock;pop;alternative;indie;electronic;female vocalists;dance;00s;alternative rock;jazz;"
    "beautiful;metal;chillout;male vocalists;classic rock;soul;indie rock;Mellow;electronica;"
    "80s;folk;90s;chill;instrumental;punk;oldies;blues;hard rock;ambient;acoustic;"
    "experimental;female vocalist;guitar;Hip-Hop;70s;party;country;easy listening;sexy;"
    "catchy;funk;electro;heavy metal;Progressive rock;60s;rnb;indie pop;sad;House;happy"
)
MTT_TAGS, MSD_TAGS = tuple(_MTT.split(";")), tuple(_MSD.split(";"))

# Layers of our networks in the order in which TensorFlow 1 numbered theirs.
_FRONT = ("timbral74", "timbral77", "temporal128", "temporal64", "temporal32")
_MIDDLE = ("middle1", "middle2", "middle3")
_VGG_CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")
_NORMALISATIONS = {
    "musicnn": [f"{name}_bn" for name in ("input", *_FRONT, *_MIDDLE, "block1", "block2")],
    "vgg": [f"{name}_bn" for name in ("input", *_VGG_CONVOLUTIONS)],
}
_CONVOLUTIONS: dict[str, tuple[str, ...]] = {"musicnn": (*_FRONT, *_MIDDLE), "vgg": ()}
_DENSE = {"musicnn": ["block1_dense", "block2_dense"], "vgg": ["block1_dense"]}
_SETTINGS = {
    "musicnn": ["model.backbone.name=musicnn", "model.head.params.units=200"],
    "vgg": [
        "model.backbone.name=vgg",
        "model.head.params.n_blocks=1",
        "model.head.params.batch_norm=false",
    ],
}


def checkpoint_layers(backbone: str) -> dict[str, str]:
    """Name of each layer in the published checkpoints, by its name here."""
    numbered = {
        "batch_normalization": _NORMALISATIONS[backbone],
        "conv2d": _CONVOLUTIONS[backbone],
        "dense": _DENSE[backbone],
    }
    layers = {
        ours: kind if number == 0 else f"{kind}_{number}"
        for kind, names in numbered.items()
        for number, ours in enumerate(names)
    }
    if backbone == "vgg":
        layers |= {name: f"{number}CNN" for number, name in enumerate(_VGG_CONVOLUTIONS, start=1)}
    return layers


def published_weights(
    tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], backbone: str
) -> dict[str, Any]:
    """Tensor of each weight of our network.

    Parameters
    ----------
    tensors : mapping of str to np.ndarray
        A published checkpoint.
    shapes : mapping of str to tuple of int
        Shapes of our weights by name, e.g. ``{"timbral74/kernel": (7, 38, 1, 204)}``.
    backbone : str
        ``"musicnn"`` or ``"vgg"``.

    Returns
    -------
    dict of str to np.ndarray
        In our shapes. Theirs may have a further axis of length one: a convolution over time is
        one over images there.

    Raises
    ------
    ModelError
        If one is missing or has another size.
    """
    layers = checkpoint_layers(backbone)
    found = {}
    for name, shape in shapes.items():
        layer, _, kind = name.partition("/")
        tensor = tensors.get(f"{layers.get(layer)}/{kind}")
        theirs = None if tensor is None else tuple(size for size in tensor.shape if size != 1)
        if tensor is None or theirs != tuple(size for size in shape if size != 1):
            raise ModelError(
                f"{WHEEL}: no tensor of shape {shape} for {name}; it is not the published package"
            )
        found[name] = tensor.reshape(shape)
    return found


def cached_wheel() -> Path:
    """Give the wheel in the cache; fetch it if it is not there, as four models are in it."""
    folder = cache_folder() / "musicnn"
    wheel = folder / WHEEL
    if wheel.exists() and sha256_of_file(wheel) == WHEEL_SHA256:
        return wheel
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporary_files(folder)
        with temporary_folder(folder) as temporary:
            fetch_wheel(temporary).replace(wheel)
    except OSError as error:
        raise ModelError(
            f"{folder}: cannot be written ({error.strerror}); check disk space and rights, or set "
            "TAGGER_CACHE to another folder"
        ) from None
    return wheel


def fetch_wheel(folder: Path) -> Path:
    """Download the package's wheel with pip, without installing it, and check it.

    Index, proxy and certificate settings are those of the user's pip.

    Parameters
    ----------
    folder : Path
        Where to.

    Returns
    -------
    Path
        The wheel.

    Raises
    ------
    ModelError
        If it cannot be had or has another checksum.
    """
    command = [sys.executable, "-m", "pip", "download", REQUIREMENT]
    # Only this one wheel: no dependencies, nothing that would be built, whatever Python this is.
    command += ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check"]
    command += ["--dest", str(folder)]
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"{REQUIREMENT}: is fetched with pip, which {sys.executable} does not have; "
            f"install it with: {sys.executable} -m ensurepip"
        )
    by_hand = f"give --from a folder or address that holds {WHEEL}"
    try:
        # pip's own progress bar goes to stderr: results alone go to stdout. By its number, as in a
        # notebook sys.stderr is no file.
        done = subprocess.run(  # noqa: S603 (the same words each time)
            command, stdout=_STDERR, timeout=_DOWNLOAD_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(
            f"{REQUIREMENT}: pip download failed ({error}); try again, or {by_hand}"
        ) from None
    wheel = folder / WHEEL
    if done.returncode != 0 or not wheel.exists():
        raise ModelError(
            f"{REQUIREMENT}: pip download failed (see above); check your package index and "
            f"network, or {by_hand}"
        )
    found = sha256_of_file(wheel)
    if found != WHEEL_SHA256:
        raise ModelError(
            f"{REQUIREMENT}: the index gave a wheel with sha256 {found} instead of {WHEEL_SHA256}; "
            "it is not the published one, so it is not used: check your package index"
        )
    return wheel


def extract_checkpoint(wheel: Path, name: str, folder: Path) -> Path:
    """Copy one model's checkpoint out of the wheel.

    Parameters
    ----------
    wheel : Path
        The package.
    name : str
        Folder within it, e.g. ``"MTT_musicnn"``.
    folder : Path
        Where to.

    Returns
    -------
    Path
        Prefix of the checkpoint. In the wheel its files have no name before the suffix.
    """
    with zipfile.ZipFile(wheel) as archive:
        for suffix in _SUFFIXES:
            target = folder / (_PREFIX + suffix)
            with archive.open(f"musicnn/{name}/{suffix}") as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file)
    return folder / _PREFIX


@dataclass(frozen=True)
class MusicnnModel(RegisteredModel):
    """One of the package's models.

    Parameters
    ----------
    checkpoint : str
        Folder within the package.
    backbone : str
        ``"musicnn"`` or ``"vgg"``.
    """

    checkpoint: str = ""
    backbone: str = ""

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the scores."""
        return MTT_TAGS if self._is_mtt else MSD_TAGS

    @property
    def _is_mtt(self) -> bool:
        return self.checkpoint.startswith("MTT")

    def thresholds(self) -> list[float | None]:
        """Score from which each tag applies."""
        if self._is_mtt:
            return magnatagatune_thresholds(self.tags)
        return [MSD_THRESHOLD] * len(self.tags)

    @property
    def about_thresholds(self) -> str:
        """Where the thresholds come from."""
        if self._is_mtt:
            return "highest F1 of each tag, by a published musicnn on 4,332 clips of MagnaTagATune"
        return (
            f"{MSD_THRESHOLD:g} for all tags, half of the F1 that the published PR-AUC promises; "
            "none could be fitted"
        )

    def config(self) -> "Config":
        """Config of the network and its front end.

        The graph that ``MSD_vgg`` was trained as, which lies beside its weights, has other pools
        than the package's own code builds for it; with those its weights make little sense.
        """
        from tagger.config import load_config

        settings = ["front_end.name=musicnn", f"data.tags={list(self.tags)}"]
        if self._separate_pools:
            settings.append("model.backbone.params.separate_pools=true")
        return load_config(None, [*_SETTINGS[self.backbone], *settings])

    @property
    def network(self) -> str:
        """Name of the template of its network."""
        return f"{self.backbone}_separate_pools" if self._separate_pools else self.backbone

    @property
    def _separate_pools(self) -> bool:
        return self.checkpoint == "MSD_vgg"

    def pull(self, root: Path, *, source: str = "") -> Bundle:  # noqa: D102
        from tagger.base.log import notice
        from tagger.bundle.write import Source, write_converted_bundle

        template = read_template(self.network)
        wheel = file_from(source, WHEEL, sha256=WHEEL_SHA256) if source else cached_wheel()
        weights = published_tensors(self, template.shapes, wheel)
        notice(f"{self.name}: converting and checking")
        about = Source(
            name=self.name,
            config=self.config(),
            tags=self.tags,
            thresholds=self.thresholds(),
            metrics={"published by the authors": self.published},
            card={**self.card(), "Thresholds": self.about_thresholds},
        )
        return write_converted_bundle(
            root,
            template.filled(weights),
            weights,
            source=about,
            outputs=template.outputs,
            answers=template.answers[self.name],
        )


def published_tensors(
    model: MusicnnModel, shapes: Mapping[str, tuple[int, ...]], wheel: Path
) -> dict[str, npt.NDArray[np.floating]]:
    """Weights of a published model, by our names.

    Parameters
    ----------
    model : MusicnnModel
        Which one.
    shapes : mapping of str to tuple of int
        Of our weights.
    wheel : Path
        The package.

    Raises
    ------
    ModelError
        If the wheel does not hold them.
    """
    with tempfile.TemporaryDirectory() as temporary:
        prefix = extract_checkpoint(wheel, model.checkpoint, Path(temporary))
        try:
            tensors = read_tensor_bundle(prefix)
        except ValueError as error:
            raise ModelError(f"{wheel}: {model.checkpoint}: {error}; fetch it again") from None
    return published_weights(tensors, shapes, model.backbone)


_SOURCE = f"Python package {REQUIREMENT}, Jordi Pons and Xavier Serra, 2019"
_RIGHTS = "Copyright (c) Music Technology Group, Universitat Pompeu Fabra 2019"


def _entry(
    name: str,
    summary: str,
    good_for: str,
    *,
    checkpoint: str,
    backbone: str,
    roc_auc: float,
    pr_auc: float,
) -> MusicnnModel:
    return MusicnnModel(
        name=name,
        summary=summary,
        n_tags=50,
        good_for=good_for,
        megabytes=6.5 if backbone == "musicnn" else 5.0,
        source=_SOURCE,
        licence="ISC",
        rights=_RIGHTS,
        published={"roc_auc_macro": roc_auc, "pr_auc_macro": pr_auc},
        checkpoint=checkpoint,
        backbone=backbone,
    )


# The figures are those of the files experiment.result within the package.
ENTRIES = (
    _entry(
        "musicnn-mtt",
        "MusiCNN trained on MagnaTagATune",
        "instruments, voices, tempo, styles",
        checkpoint="MTT_musicnn",
        backbone="musicnn",
        roc_auc=0.9067,
        pr_auc=0.3831,
    ),
    _entry(
        "vgg-mtt",
        "VGG trained on MagnaTagATune",
        "like musicnn-mtt, another network",
        checkpoint="MTT_vgg",
        backbone="vgg",
        roc_auc=0.9030,
        pr_auc=0.3823,
    ),
    _entry(
        "musicnn-msd",
        "MusiCNN trained on the Million Song Dataset",
        "genres, decades, moods of songs",
        checkpoint="MSD_musicnn",
        backbone="musicnn",
        roc_auc=0.8802,
        pr_auc=0.2891,
    ),
    _entry(
        "vgg-msd",
        "VGG trained on the Million Song Dataset",
        "like musicnn-msd, another network",
        checkpoint="MSD_vgg",
        backbone="vgg",
        roc_auc=0.8768,
        pr_auc=0.2819,
    ),
)
