"""Lists of many small objects in little memory.

As an object of Python what is known of a clip takes more than a kilobyte; packed, two hundred
bytes. An object is made of it when somebody asks for that clip.
"""

import marshal
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

ItemT = TypeVar("ItemT")


class Packed(Sequence[ItemT]):
    """A list that can grow, of objects that it keeps as plain values.

    It equals any sequence of equal items. What is taken out is a copy.

    Parameters
    ----------
    items : iterable
        To begin with.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, items: Iterable[ItemT] = ()) -> None:
        self._content = bytearray()
        self._ends = array("q", [0])
        for item in items:
            self.append(item)

    @abstractmethod
    def _pack(self, item: ItemT) -> tuple[Any, ...]:
        """Plain values that stand for an item: texts, numbers, None and tuples of such."""

    @abstractmethod
    def _unpack(self, fields: tuple[Any, ...]) -> ItemT:
        """Inverse of `_pack`."""

    def append(self, item: ItemT) -> None:
        """Add an item at the end."""
        # Read by this process alone: marshal's format is that of one version of Python.
        self._content += marshal.dumps(self._pack(item))
        self._ends.append(len(self._content))

    def packed(self) -> Iterator[tuple[Any, ...]]:
        """Give the plain values of each item, which takes less time than the items."""
        return map(self._fields, range(len(self)))

    def _fields(self, row: int) -> tuple[Any, ...]:
        start, end = self._ends[row], self._ends[row + 1]
        # Of this process alone.
        fields: tuple[Any, ...] = marshal.loads(self._content[start:end])  # noqa: S302
        return fields

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, row: int) -> ItemT: ...
    @overload
    def __getitem__(self, row: slice) -> list[ItemT]: ...
    def __getitem__(self, row: int | slice) -> ItemT | list[ItemT]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"item {row} of {len(self)}")
        return self._unpack(self._fields(row % len(self)))

    def __iter__(self) -> Iterator[ItemT]:
        return map(self._unpack, self.packed())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )
