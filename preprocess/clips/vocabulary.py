"""The vocabulary: which tags a model learns, and which label columns each of them merges."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.clips.index import ClipIndex, refuse_repeats
from tagger.base.errors import ConfigError
from tagger.base.shipped import given_or_shipped
from tagger.untrusted import yaml as safe_yaml


@dataclass(frozen=True)
class Vocabulary:
    """Tags of a model in the order of its outputs.

    Parameters
    ----------
    tags : tuple of str
        Names.
    members : tuple of tuple of str
        For each tag the label columns of the data that it stands for: itself, or its synonyms.

    Raises
    ------
    ValueError
        If a tag has no label column, or one of them is no name.
    """

    tags: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        # They may come from a file.
        if len(self.tags) != len(self.members) or not all(self.members):
            raise ValueError(f"label columns of {len(self.members)} tags for {len(self.tags)}")
        for name in (*self.tags, *(name for names in self.members for name in names)):
            if not isinstance(name, str):
                raise ValueError(f"{type(name).__name__} for the name of a tag")

    def __len__(self) -> int:
        return len(self.tags)

    def labels(
        self, labels: npt.NDArray[np.uint8], columns: Sequence[str]
    ) -> npt.NDArray[np.uint8]:
        """Labels of these tags out of the labels of a data set.

        Parameters
        ----------
        labels : np.ndarray [shape=(n_clips, len(columns)), dtype=uint8]
            Labels as the data set has them.
        columns : sequence of str
            Their names.

        Returns
        -------
        np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
            A clip carries a tag if it carries one of its members.

        Raises
        ------
        ConfigError
            If the data lacks a column.
        """
        picked = np.empty((len(labels), len(self)), dtype=np.uint8)
        for number, column in enumerate(self._columns(labels, columns)):
            picked[:, number] = column
        return picked

    def counts(
        self, labels: npt.NDArray[np.uint8], columns: Sequence[str]
    ) -> npt.NDArray[np.int64]:
        """Clips that carry each of these tags [shape=(n_tags,)]; see `labels`."""
        return np.array([column.sum(dtype=np.int64) for column in self._columns(labels, columns)])

    def _columns(
        self, labels: npt.NDArray[np.uint8], columns: Sequence[str]
    ) -> Iterator[npt.NDArray[np.uint8]]:
        position = {name: number for number, name in enumerate(columns)}
        missing = sorted({name for names in self.members for name in names} - set(position))
        if missing:
            raise ConfigError(
                f"the data has no tag {', '.join(repr(name) for name in missing[:5])}; "
                "check data.tags and data.synonyms, or preprocess the data that has it"
            )
        for names in self.members:
            yield labels[:, [position[name] for name in names]].max(axis=1)


def read_synonyms(path: Path) -> dict[str, list[str]]:
    """Read a synonym map: a YAML file of ``tag: [column, column, ...]``, or a shipped one's name.

    Raises
    ------
    ConfigError
        If the file is missing or not such a map, or merges one column into two tags.
    """
    path = given_or_shipped(path, "synonyms")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); check data.synonyms") from None
    try:
        content = safe_yaml.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not valid YAML ({error}); fix it") from None
    if not isinstance(content, dict) or not all(
        isinstance(names, list) and names and all(isinstance(name, str) for name in names)
        for names in content.values()
    ):
        raise ConfigError(
            f"{path}: a synonym map has lines such as 'classical: [classic, clasical]'; fix it"
        )
    synonyms = {str(tag): list(dict.fromkeys([str(tag), *names])) for tag, names in content.items()}
    refuse_repeats([name for names in synonyms.values() for name in names], "tags", str(path))
    return synonyms


def most_frequent_tags(index: ClipIndex, n_tags: int) -> list[str]:
    """Name the `n_tags` tags that most clips carry; ties in the order of the columns."""
    return _top(index.tags, index.labels.sum(axis=0, dtype=np.int64), n_tags)


def _top(tags: Sequence[str], counts: npt.NDArray[np.int64], n_tags: int) -> list[str]:
    order = np.argsort(-counts, kind="stable")[:n_tags]
    return [tags[column] for column in order]


def resolve_vocabulary(
    index: ClipIndex,
    wanted: str | int | Sequence[str],
    *,
    synonyms: Mapping[str, Sequence[str]] | None = None,
) -> Vocabulary:
    """Vocabulary of a model from what its config asks for.

    Parameters
    ----------
    index : ClipIndex
        The data; its tags and their frequencies decide.
    wanted : "all", int or sequence of str
        Every tag, that many of the most frequent, or these.
    synonyms : mapping of str to sequence of str, optional
        Columns that each new tag merges; columns it does not name stay as they are.

    Returns
    -------
    Vocabulary
        Tags in the order of the columns, of frequency, or of the list.

    Raises
    ------
    ConfigError
        If a tag does not exist or the number is out of range.
    """
    merged: dict[str, tuple[str, ...]] = {}
    target = {name: tag for tag, names in (synonyms or {}).items() for name in names}
    for column in index.tags:
        tag = target.get(column, column)
        merged[tag] = (*merged.get(tag, ()), column)
    vocabulary = Vocabulary(tuple(merged), tuple(merged.values()))
    if wanted == "all":
        return vocabulary
    if isinstance(wanted, int):
        if not 1 <= wanted <= len(merged):
            raise ConfigError(
                f"data.tags={wanted} most frequent tags of {len(merged)}; give 1 to {len(merged)}"
            )
        counts = vocabulary.counts(index.labels, index.tags)
        chosen = _top(vocabulary.tags, counts, wanted)
    else:
        if isinstance(wanted, str):
            raise ConfigError(f"data.tags={wanted!r}; give 'all', a number or a list of tags")
        chosen = list(wanted)
        refuse_repeats(chosen, "tags", "data.tags")
        unknown = [tag for tag in chosen if tag not in merged]
        if unknown:
            raise ConfigError(
                f"data.tags: {index.source} has no tag {', '.join(map(repr, unknown[:5]))}; "
                f"it has {', '.join(list(merged)[:8])}, ..."
            )
    if not chosen:
        raise ConfigError("data.tags is an empty list; name at least one tag")
    return Vocabulary(tuple(chosen), tuple(merged[tag] for tag in chosen))
