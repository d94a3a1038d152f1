"""Sequences of ids that are made when they are asked for, so that millions of them need little memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import overload


class SortedIds(Sequence[str], ABC):
    """A sequence of different ids that is sorted already: whoever needs an order need not make a list of it."""

    @abstractmethod
    def _at(self, index: int) -> str:
        """Make the id at 0 <= index < len."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        """Make one id, or those of a slice."""
        if isinstance(index, slice):
            return tuple(self._at(i) for i in range(len(self))[index])
        return self._at(range(len(self))[index])

    def __contains__(self, sample_id: object) -> bool:
        if not isinstance(sample_id, str):
            return False
        place = bisect_left(self, sample_id)
        return place < len(self) and self[place] == sample_id


class MergedIds(SortedIds):
    """A few ids put in their places among many. No id may be in both."""

    def __init__(self, few: Sequence[str], many: SortedIds) -> None:
        self._few, self._many = sorted(few), many
        self._places = [bisect_left(many, sample_id) + j for j, sample_id in enumerate(self._few)]

    def __len__(self) -> int:
        return len(self._few) + len(self._many)

    def _at(self, index: int) -> str:
        before = bisect_right(self._places, index)
        if before and self._places[before - 1] == index:
            return self._few[before - 1]
        return self._many[index - before]
