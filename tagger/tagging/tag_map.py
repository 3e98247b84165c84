"""A map from a model's tags to names of one's own: which are written into files, and as what."""

from collections.abc import Sequence
from pathlib import Path

from tagger.base.errors import ConfigError
from tagger.base.suggest import did_you_mean
from tagger.untrusted import yaml as safe_yaml


class TagMap:
    """Names by tag; tags that it does not name are not written.

    Parameters
    ----------
    names : dict of str to list of str
        Of each tag, what is written for it.
    source : Path
        Where they come from, for messages.
    """

    def __init__(self, names: dict[str, list[str]], source: Path) -> None:
        self._names, self._source = names, source

    def __call__(self, labels: Sequence[str]) -> list[str]:
        """Names for labels, each once, in their order."""
        return list(dict.fromkeys(name for label in labels for name in self._names.get(label, ())))

    def require_known(self, tags: Sequence[str]) -> None:
        """Refuse a map that names tags that a model does not have.

        Raises
        ------
        ConfigError
            Naming the first of them.
        """
        for tag in self._names:
            if tag not in tags:
                hint = did_you_mean(tag, tags)
                raise ConfigError(
                    f"--map {self._source}: {tag!r} is no tag of this model{hint}; "
                    "'tagger models info MODEL' lists them"
                )


def read_tag_map(path: Path) -> TagMap:
    """Read a YAML file of ``tag: name`` or ``tag: [name, name]``.

    Raises
    ------
    ConfigError
        If it is missing or not such a file.
    """
    try:
        content = safe_yaml.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--map {path}: cannot be read ({error}); check the file") from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"--map {path}: holds no lines such as 'techno: Electronic'; fix it")
    names = {}
    for tag, given in content.items():
        several = given if isinstance(given, list) else [given]
        if not several or not all(isinstance(name, str) and name.strip() for name in several):
            raise ConfigError(
                f"--map {path}: {tag}: give a name or a [list, of, names]; leave tags out that "
                "are not to be written"
            )
        names[str(tag)] = several
    return TagMap(names, path)
