"""The package itself as a wheel, for machines that a pipeline starts with Beam and nothing else.

It is made of the code that runs here, whether that was installed or is worked on, and it requires
what reading audio and writing stores in a bucket takes.
"""

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path

from tagger.base.extras import DISTRIBUTION

_PACKAGES = ("tagger", "preprocess")
_EXTRA = "cloud"


def _requirements() -> Iterator[str]:
    for line in metadata.requires(DISTRIBUTION) or []:
        requirement, _, marker = line.partition(";")
        if "extra" not in marker:
            yield line
        elif marker.strip() == f'extra == "{_EXTRA}"':
            yield requirement.strip()


def _files() -> Iterator[tuple[str, bytes]]:
    for package in _PACKAGES:
        root = Path(next(iter(import_module(package).__path__)))
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"{package}/{path.relative_to(root).as_posix()}", path.read_bytes()


def write_wheel(folder: Path) -> Path:
    """Write the wheel into a folder.

    Parameters
    ----------
    folder : Path
        An existing one.

    Returns
    -------
    Path
        The wheel.
    """
    version = metadata.version(DISTRIBUTION)
    about = f"{DISTRIBUTION}-{version}.dist-info"
    described = [
        "Metadata-Version: 2.1",
        f"Name: {DISTRIBUTION}",
        f"Version: {version}",
        *(f"Requires-Dist: {requirement}" for requirement in _requirements()),
    ]
    built = ["Wheel-Version: 1.0", f"Generator: {DISTRIBUTION}", "Root-Is-Purelib: true"]
    built.append("Tag: py3-none-any")
    files = dict(_files())
    files[f"{about}/METADATA"] = ("\n".join(described) + "\n").encode("utf-8")
    files[f"{about}/WHEEL"] = ("\n".join(built) + "\n").encode("utf-8")
    record = f"{about}/RECORD"
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[record] = ("\n".join([*lines, f"{record},,"]) + "\n").encode("utf-8")
    path = folder / f"{DISTRIBUTION}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return path


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode("ascii")
