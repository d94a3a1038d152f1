"""In which order the samples of a list are seen: an endless row of permutations, one an epoch."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence

from des4.data.ids import SortedIds


class Order:
    """The endless row of an id list's permutations; a function of the ids and the key, not of the list's own order.

    A permutation takes 4 bytes a sample; two epochs' are kept.
    """

    def __init__(self, ids: Sequence[str], key: str) -> None:
        self.ids = ids if isinstance(ids, SortedIds) else sorted(ids)
        self.key = key
        self._epochs: dict[int, array[int]] = {}

    def batch(self, step: int, size: int) -> list[tuple[int, str]]:
        """Return the (epoch, id) of the positions [step·size, (step+1)·size)."""
        places = (divmod(position, len(self.ids)) for position in range(step * size, (step + 1) * size))
        return [(epoch, self.ids[self._permutation(epoch)[index]]) for epoch, index in places]

    def _permutation(self, epoch: int) -> array[int]:
        if epoch not in self._epochs:
            self._epochs = {e: order for e, order in self._epochs.items() if e == epoch - 1}
            order = array("I", range(len(self.ids)))
            random.Random(f"{self.key}/{epoch}").shuffle(order)
            self._epochs[epoch] = order
        return self._epochs[epoch]
