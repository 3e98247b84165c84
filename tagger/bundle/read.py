"""Model bundles: one folder with everything that prediction needs, and no code.

``bundle.json`` describes it and holds the checksum of every other file: ``weights.h5`` (or
``weights.npz``), exported models, ``config.yaml``, ``vocabulary.json``, ``thresholds.json``,
``metrics.json``, ``MODEL_CARD.md``, ``essentia.json`` and, where there are such,
``clip_head.npz`` and ``calibration.json``.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from preprocess.clips.vocabulary import Vocabulary
from tagger.base.errors import ModelError
from tagger.base.files import json_hash, sha256_of_file, write_json
from tagger.base.registry import describe_validation_error
from tagger.metrics.calibration import Calibration
from tagger.scoring.clip_heads import ClipHead, load_clip_head, pooling_head
from tagger.scoring.scorer import SCORES

if TYPE_CHECKING:
    from preprocess.signal.features import FrontEnd

SCHEMA_VERSION = 1
DESCRIPTION = "bundle.json"
# As Keras trained them, or as NumPy put them together.
WEIGHTS, WEIGHT_ARRAYS = "weights.h5", "weights.npz"
CONFIG = "config.yaml"
VOCABULARY = "vocabulary.json"
THRESHOLDS = "thresholds.json"
CALIBRATION = "calibration.json"
CLIP_HEAD = "clip_head.npz"
METRICS = "metrics.json"
MODEL_CARD = "MODEL_CARD.md"
# The same in the form of the files beside Essentia's models, for programs.
ESSENTIA = "essentia.json"
# What a model is: these files and the front end decide its version, its exports do not.
_IDENTITY = (WEIGHTS, WEIGHT_ARRAYS, CONFIG, VOCABULARY, CALIBRATION, CLIP_HEAD)
_MAX_REASON = 200

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


def _inside(name: str) -> str:
    """Refuse a name that leads out of the bundle, or that a system takes for something else."""
    if not _SAFE_NAME.fullmatch(name) or name == DESCRIPTION:
        raise ValueError(f"{name!r} is no name of a file within a bundle")
    return name


def _front_end_spec(spec: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(spec.get("name"), str) or not isinstance(spec.get("params"), dict):
        raise ValueError("no front end with a name and params")
    return spec


_FileName = Annotated[str, AfterValidator(_inside)]
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
Aggregate = Literal["mean", "max", "autopool"]
# What comes from a file: nothing is converted, so that no wrong type comes through.
_STRICT = ConfigDict(strict=True)


@checked_dataclass(frozen=True, config=_STRICT)
class Export:
    """An exported model of a bundle, and how far its answers are from those of Keras.

    Parameters
    ----------
    file : str
        Name within the bundle; of a folder for ``savedmodel``.
    format : str
        ``"litert"``, ``"onnx"`` or ``"savedmodel"``.
    quantize : str
        ``"none"``, ``"dynamic"`` or ``"float16"``.
    max_difference : float
        Largest difference of a score (of an embedding's value where there are no scores).
    limit : float
        Largest difference that was allowed.
    n_windows : int
        Windows that both were asked about.
    clips : str
        Where the windows came from.
    """

    file: _FileName
    format: str
    quantize: str
    max_difference: _Finite
    limit: _Finite
    n_windows: int
    clips: str

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.file}: {self.format}, quantize {self.quantize}, largest difference from Keras "
            f"{self.max_difference:.1e} (limit {self.limit:g}) on {self.n_windows} windows "
            f"({self.clips})"
        )


@checked_dataclass(frozen=True, config=_STRICT)
class Description:
    """What `seal` writes into ``bundle.json`` besides exports and checksums.

    Parameters
    ----------
    name : str
        Of the model, for people.
    created : str
        Time, as ISO 8601.
    tagger_version : str
        Release that made it.
    front_end : dict
        Its name, version and parameters.
    front_end_hash : str
        Digest of these.
    input_shapes : dict of str to list of int
        Of one window.
    outputs : dict of str to int
        Length of each output.
    aggregate : str
        How clip scores are made of those of windows.
    alpha : list of float or None
        Learned weights of AutoPool over time.
    card : dict of str to str
        Lines of the model card: title -> text.
    decides_one : bool
        The tags exclude one another: a prediction is one of them.
    n_tags : int, optional
        Tags of its clip head, where these are others than those of the network.
    """

    name: str
    created: str
    tagger_version: str
    front_end: Annotated[dict[str, Any], AfterValidator(_front_end_spec)]
    front_end_hash: str
    input_shapes: dict[str, list[int]]
    outputs: dict[str, Annotated[int, Field(ge=1)]]
    aggregate: Aggregate
    alpha: list[_Finite] | None
    card: dict[str, str]
    decides_one: bool = False
    n_tags: Annotated[int, Field(ge=1)] | None = None


@checked_dataclass(frozen=True, config=_STRICT, kw_only=True)
class _Content(Description):
    """All of ``bundle.json``."""

    schema_version: int
    version: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    exports: list[Export]
    files: dict[_FileName, _Sha256]


_CONTENT = TypeAdapter(_Content)
_TAGS = TypeAdapter(list[str], config=_STRICT)
_METRICS = TypeAdapter(dict[str, dict[str, _Finite]], config=_STRICT)
_THRESHOLDS = TypeAdapter(list[_Finite | None] | None, config=_STRICT)


class Bundle:
    """A bundle on disk.

    Parameters
    ----------
    root : Path
        Its folder.

    Raises
    ------
    ModelError
        If there is no bundle, it is damaged or of another schema version.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        plain = self._read_json(DESCRIPTION)
        version = plain.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise ModelError(
                f"{self.root}: bundle of schema version {version!r:.20}, but this release reads "
                f"{SCHEMA_VERSION}; export or pull the model again with this release"
            )
        content: _Content = self._checked(_CONTENT, plain, DESCRIPTION)
        # What every bundle was made with; `seal` takes it for the next version of this one.
        self.description = Description(
            **{name: getattr(content, name) for name in Description.__dataclass_fields__}
        )
        self.name, self.version = content.name, content.version
        self.tagger_version = content.tagger_version
        self.front_end, self.front_end_hash = content.front_end, content.front_end_hash
        self.outputs = content.outputs
        self.aggregate, self.alpha = content.aggregate, content.alpha
        self.exports, self.checksums = tuple(content.exports), content.files
        self.card = content.card
        if json_hash(self.front_end) != self.front_end_hash:
            raise self._damaged(DESCRIPTION, "front_end: another one than its hash says")
        n_alpha = None if self.alpha is None else len(self.alpha)
        if n_alpha != (self.outputs.get(SCORES, 0) if self.aggregate == "autopool" else None):
            raise self._damaged(DESCRIPTION, "alpha: it does not fit the scores")

    @staticmethod
    def is_at(root: Path) -> bool:
        """Whether a bundle is in the folder `root`."""
        return (root / DESCRIPTION).is_file()

    @property
    def n_tags(self) -> int:
        """How many tags it has."""
        own = self.description.n_tags
        return self.outputs.get(SCORES, 0) if own is None else own

    @property
    def embeddings(self) -> list[str]:
        """Names of the embeddings that it gives."""
        return [name for name in self.outputs if name != SCORES]

    def tags(self) -> tuple[str, ...]:
        """Names of the scores, in order; none for a model of embeddings alone."""
        tags = self._checked(_TAGS, self._read_json(VOCABULARY).get("tags"), VOCABULARY)
        if len(tags) != self.n_tags:
            raise self._damaged(VOCABULARY, "it does not fit the scores")
        return tuple(tags)

    def vocabulary(self) -> Vocabulary:
        """Tags, and the label columns that each of them stands for."""
        tags = self.tags()
        members = self._read_json(VOCABULARY).get("members")
        try:
            if not isinstance(members, list) or len(members) != len(tags) or not all(members):
                raise ValueError("it does not fit the tags")
            return Vocabulary(tags, tuple(tuple(map(str, names)) for names in members))
        except (TypeError, ValueError) as error:
            raise self._damaged(VOCABULARY, str(error)) from None

    def thresholds(self) -> list[float | None]:
        """Score from which each tag applies; None where none could be fitted."""
        n_tags = self.n_tags
        plain = self._read_json(THRESHOLDS).get("thresholds")
        values: list[float | None] | None = self._checked(_THRESHOLDS, plain, THRESHOLDS)
        if values is None:
            return [None] * n_tags
        if len(values) != n_tags:
            raise self._damaged(THRESHOLDS, "it does not fit the scores")
        return values

    def calibration(self) -> Calibration | None:
        """Read the maps that clip scores go through; None if there are none."""
        if CALIBRATION not in self.checksums:
            return None
        plain = self._read_json(CALIBRATION)
        try:
            return Calibration.from_json(plain, n_tags=self.n_tags)
        except ValueError as error:
            raise self._damaged(CALIBRATION, str(error)) from None

    def clip_head(self) -> ClipHead:
        """Read what makes clip scores of what the network says of windows."""
        if CLIP_HEAD not in self.checksums:
            alpha = None if self.alpha is None else np.array(self.alpha, dtype=np.float32)
            return pooling_head(self.aggregate, alpha)
        return load_clip_head(self.verified(CLIP_HEAD), sizes=self.outputs, n_tags=self.n_tags)

    def metrics(self) -> dict[str, dict[str, float]]:
        """Figures by where they come from: title -> name -> value."""
        found: dict[str, dict[str, float]] = self._checked(
            _METRICS, self._read_json(METRICS), METRICS
        )
        return found

    def export(self, format_: str, quantize: str = "none") -> Export:
        """Find the exported model of a format.

        Raises
        ------
        ModelError
            If there is none.
        """
        for export in self.exports:
            if (export.format, export.quantize) == (format_, quantize):
                return export
        raise ModelError(
            f"{self.root}: holds no {format_} model with quantize {quantize}; make it with: "
            f"tagger export {self.root} --format {format_} --quantize {quantize}"
        )

    def require_front_end(self, front_end: "FrontEnd") -> None:
        """Refuse the model if this release no longer makes the windows that it was trained on.

        Raises
        ------
        ModelError
            If the front end has changed since.
        """
        if self.front_end_hash != front_end.spec_hash():
            raise ModelError(
                f"{self.root}: made with another version of the front end {front_end.name!r}; "
                f"use tagger {self.tagger_version}, or export or pull the model again"
            )

    def verified(self, name: str) -> Path:
        """Path of a file whose checksum is right.

        Raises
        ------
        ModelError
            If it is missing or has changed.
        """
        path = self.root / name
        try:
            found = sha256_of_file(path)
        except OSError as error:
            raise self._damaged(name, str(error.strerror)) from None
        if found != self.checksums.get(name):
            raise self._damaged(name, "another checksum than in bundle.json")
        return path

    def weights(self) -> Path:
        """File of the network's weights.

        Raises
        ------
        ModelError
            If it is missing or has changed.
        """
        return self.verified(WEIGHT_ARRAYS if WEIGHT_ARRAYS in self.checksums else WEIGHTS)

    def verify(self) -> None:
        """Check every file.

        Raises
        ------
        ModelError
            Naming the first that is missing or has changed.
        """
        for name in self.checksums:
            self.verified(name)

    def _read_json(self, name: str) -> dict[str, Any]:
        """Content of a file; its checksum is right unless it is the one that holds them."""
        path = self.root / name if name == DESCRIPTION else self.verified(name)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise ModelError(
                f"{self.root}: no model bundle here; give the folder of one, or of a training run"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise self._damaged(name, str(error)) from None
        if not isinstance(content, dict):
            raise self._damaged(name, "it holds no object")
        return content

    def _checked(self, adapter: TypeAdapter[Any], value: Any, name: str) -> Any:
        try:
            # As JSON: there strictness takes an object for a dataclass.
            return adapter.validate_json(json.dumps(value))
        except ValidationError as error:
            raise self._damaged(name, describe_validation_error(error)) from None

    def _damaged(self, name: str, why: str) -> ModelError:
        # Keys and values of the file may break lines.
        reason = " ".join(why.split())[:_MAX_REASON]
        return ModelError(
            f"{self.root / name}: damaged or changed ({reason}); "
            "copy, export or pull the bundle again"
        )


def seal(
    folder: Path,
    description: Description,
    exports: list[Export],
    *,
    kept: Mapping[str, str] | None = None,
) -> None:
    """Write ``bundle.json`` over the files in `folder`; it comes last and makes the bundle.

    Parameters
    ----------
    folder : Path
        Where the other files are.
    description : Description
        What the model is.
    exports : list of Export
        Exported models among the files.
    kept : mapping of str to str, optional
        Checksums of files that lie in the bundle already.
    """
    files = dict(kept or {})
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = sha256_of_file(path)
    identity = [description.front_end, *(files[name] for name in _IDENTITY if name in files)]
    write_json(
        folder / DESCRIPTION,
        {
            "schema_version": SCHEMA_VERSION,
            "version": json_hash(identity)[:12],
            **asdict(description),
            "exports": [asdict(export) for export in exports],
            "files": dict(sorted(files.items())),
        },
    )
