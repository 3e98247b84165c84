"""Config files that come with the programme, found by their names."""

from pathlib import Path

from tagger.base.addresses import is_remote

_PACKAGE = Path(__file__).resolve().parents[1]
# In a checkout they lie beside the package; an installation has a copy within it (setup.py).
_FOLDERS = (_PACKAGE.parent / "configs", _PACKAGE / "configs")
_SUFFIX = ".yaml"


def shipped_folder() -> Path:
    """Folder of the config files that come with the programme."""
    return next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[-1])


def shipped_names(below: str = "") -> tuple[str, ...]:
    """Names of these files, e.g. ``"magnatagatune_vggish/vggish"``.

    Parameters
    ----------
    below : str
        A folder of them.
    """
    folder = shipped_folder() / below
    files = (path.relative_to(folder) for path in folder.rglob(f"*{_SUFFIX}"))
    return tuple(sorted(path.with_suffix("").as_posix() for path in files))


def given_or_shipped(path: Path, below: str = "") -> Path:
    """Find a file: the user's own of this path, else the shipped one of this name.

    Parameters
    ----------
    path : Path
        A file, or the name of a shipped one: ``demo``, ``demo.yaml`` or ``configs/demo.yaml``.
    below : str
        Folder of shipped files in which it is looked for.

    Returns
    -------
    Path
        `path` itself where there is no such shipped file either.
    """
    if is_remote(path) or path.is_absolute() or path.exists():
        return path
    parts = path.parts
    root = shipped_folder()
    for start in (root / below, root):
        # As it is written in a checkout, or by its name.
        for name in (parts, parts[1:] if parts[:1] == (root.name,) else ()):
            found = start.joinpath(*name)
            for file in (found, found.with_name(found.name + _SUFFIX)):
                if name and file.is_file() and file.resolve().is_relative_to(root.resolve()):
                    return file
    return path
