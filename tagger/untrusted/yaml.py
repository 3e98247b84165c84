"""YAML that is data: plain values of bounded size, from files that may hold anything."""

from typing import Any

import yaml

# As a tree, each alias written out: a few lines of them can stand for more than any memory holds.
_MOST_VALUES = 100_000
# Beyond, a number is no float any more, and Python refuses to write it in decimal digits.
_MOST_BITS = 1024


class _Loader(yaml.SafeLoader):
    """PyYAML's reader of plain values, which also refuses what cannot be walked through."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _n_values(node, {})
        return node

    def construct_yaml_int(self, node: Any) -> int:
        number: int = super().construct_yaml_int(node)
        if number.bit_length() > _MOST_BITS:
            raise ValueError("a number is too large")
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _n_values(node: Any, known: dict[int, int | None]) -> int:
    """Values within a node, those of aliases each time they occur."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise ValueError("an alias stands inside what it stands for")
        return found
    known[id(node)] = None
    members = node.value
    if isinstance(node, yaml.MappingNode):
        members = [part for pair in members for part in pair]
    n_values = 1 + sum(_n_values(member, known) for member in members)
    if n_values > _MOST_VALUES:
        raise ValueError(f"it stands for more than {_MOST_VALUES} values")
    known[id(node)] = n_values
    return n_values


def loads(text: str) -> Any:
    """Read YAML.

    Parameters
    ----------
    text : str
        A document.

    Returns
    -------
    Any
        Plain values: no tag makes anything else of them.

    Raises
    ------
    ValueError
        If it is not valid, nested too deeply, or stands for too much. The reason is one line.
    """
    try:
        # The class is PyYAML's reader of plain values.
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except Exception as error:
        # PyYAML raises anything on what is marked as a number, a date or bytes and is none.
        raise ValueError(" ".join(str(error).split())) from None
