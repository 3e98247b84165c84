"""Model bundles: one folder with everything that prediction needs, and no code.

``bundle.json`` describes it and holds the checksum of every other file: ``weights.h5``, exported
models, ``config.yaml``, ``vocabulary.json``, ``thresholds.json``, ``metrics.json`` and
``MODEL_CARD.md``.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tagger.errors import ModelError
from tagger.files import json_hash, remove_temporary_files, sha256_of_file, write_json

SCHEMA_VERSION = 1
DESCRIPTION = "bundle.json"
WEIGHTS = "weights.h5"
CONFIG = "config.yaml"
VOCABULARY = "vocabulary.json"
THRESHOLDS = "thresholds.json"
METRICS = "metrics.json"
MODEL_CARD = "MODEL_CARD.md"
# Output of that name; all others are embeddings.
SCORES = "scores"
# What a model is: these files and the front end decide its version, its exports do not.
_IDENTITY = (WEIGHTS, CONFIG, VOCABULARY)


@dataclass(frozen=True)
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

    file: str
    format: str
    quantize: str
    max_difference: float
    limit: float
    n_windows: int
    clips: str

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.file}: {self.format}, quantize {self.quantize}, largest difference from Keras "
            f"{self.max_difference:.1e} (limit {self.limit:g}) on {self.n_windows} windows "
            f"({self.clips})"
        )


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
        content = self._read_json(DESCRIPTION)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            raise ModelError(
                f"{self.root}: bundle of schema version {version}, but this release reads "
                f"{SCHEMA_VERSION}; export the model again with this release"
            )
        try:
            self.name = str(content["name"])
            self.version = str(content["version"])
            self.tagger_version = str(content["tagger_version"])
            self.front_end: dict[str, Any] = dict(content["front_end"])
            self.front_end_hash = str(content["front_end_hash"])
            self.outputs = {str(name): int(size) for name, size in content["outputs"].items()}
            self.aggregate = str(content["aggregate"])
            self.alpha: list[float] | None = content["alpha"]
            self.exports = tuple(Export(**export) for export in content["exports"])
            self.checksums = {str(name): str(sha) for name, sha in content["files"].items()}
            self.card: dict[str, Any] = dict(content["card"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._damaged(DESCRIPTION, f"{type(error).__name__}: {error}") from None
        for name in [*self.checksums, *(export.file for export in self.exports)]:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
                raise self._damaged(DESCRIPTION, f"it names the file {name!r}")

    @staticmethod
    def is_at(root: Path) -> bool:
        """Whether a bundle is in the folder `root`."""
        return (root / DESCRIPTION).is_file()

    @property
    def embeddings(self) -> list[str]:
        """Names of the embeddings that it gives."""
        return [name for name in self.outputs if name != SCORES]

    def tags(self) -> tuple[str, ...]:
        """Names of the scores, in order; none for a model of embeddings alone."""
        tags = self._read_json(VOCABULARY, verify=True).get("tags")
        if not isinstance(tags, list) or len(tags) != self.outputs.get(SCORES, 0):
            raise self._damaged(VOCABULARY, "it does not fit the scores")
        return tuple(map(str, tags))

    def thresholds(self) -> list[float | None]:
        """Score from which each tag applies; None where none could be fitted."""
        values = self._read_json(THRESHOLDS, verify=True).get("thresholds")
        if values is None:
            return [None] * self.outputs.get(SCORES, 0)
        if len(values) != self.outputs.get(SCORES, 0):
            raise self._damaged(THRESHOLDS, "it does not fit the scores")
        return [None if value is None or math.isnan(value) else float(value) for value in values]

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

    def verify(self) -> None:
        """Check every file.

        Raises
        ------
        ModelError
            Naming the first that is missing or has changed.
        """
        for name in self.checksums:
            self.verified(name)

    def _read_json(self, name: str, *, verify: bool = False) -> Any:
        path = self.verified(name) if verify else self.root / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise ModelError(
                f"{self.root}: no model bundle here; give the folder of one, or of a training run"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise self._damaged(name, str(error)) from None

    def _damaged(self, name: str, why: str) -> ModelError:
        return ModelError(
            f"{self.root / name}: damaged or changed ({why}); copy or export the bundle again"
        )


@dataclass(frozen=True)
class Description:
    """What `seal` writes into ``bundle.json`` besides checksums; see `Bundle` for the meanings."""

    name: str
    created: str
    tagger_version: str
    front_end: dict[str, Any]
    front_end_hash: str
    input_shapes: dict[str, list[int]]
    outputs: dict[str, int]
    aggregate: str
    alpha: list[float] | None
    card: dict[str, Any]


def seal(root: Path, description: Description, exports: list[Export]) -> None:
    """Write ``bundle.json`` over the files that lie in `root`; it comes last and makes the bundle.

    Parameters
    ----------
    root : Path
        Folder with all other files.
    description : Description
        What the model is.
    exports : list of Export
        Exported models among the files.
    """
    remove_temporary_files(root)
    files = {
        path.relative_to(root).as_posix(): sha256_of_file(path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != DESCRIPTION
    }
    identity = [description.front_end, *(files[name] for name in _IDENTITY)]
    write_json(
        root / DESCRIPTION,
        {
            "schema_version": SCHEMA_VERSION,
            "version": json_hash(identity)[:12],
            **asdict(description),
            "exports": [asdict(export) for export in exports],
            "files": files,
        },
    )


def description_of(bundle: Bundle) -> Description:
    """Read the description that an existing bundle was sealed with."""
    content = bundle._read_json(DESCRIPTION)
    return Description(**{name: content[name] for name in Description.__dataclass_fields__})
