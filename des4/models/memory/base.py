"""The base of memories: prototypes, queues of features, banks of confidence.

A memory moves in two phases. What losses see of a step is *collected*; when the optimiser has taken the step, it is
*committed*. So the losses of a step read the memory as it was, whatever parts the step is taken in, and a step can be
taken again. What is kept between steps are buffers, and what is collected are tensors: they are saved, counted and sent
to other processes like any others.

A subclass adds `collect(…)`, which ends in `_hold`, and `commit(…)`, which begins with `_take`, adds up over processes
(`des4.ops.reduce`) and moves buffers in place, by what `unless_skipped` leaves of it.
"""

from __future__ import annotations

from abc import ABC

from torch import Tensor, nn


class Memory(nn.Module, ABC):
    """State of a method that is moved after a step, by what the step's losses have collected.

    skipped: set by the engine while it lets a method move its memories: a scalar on the device, 1 if the step was not
    finite and nothing of it may be remembered; None at any other time. So a memory needs no copy of itself to be put
    back, however large it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: list[tuple[Tensor, ...]] = []
        self.skipped: Tensor | None = None

    def discard(self) -> None:
        """Forget what was collected and not committed: the step that it belonged to is taken again, or not at all."""
        self._held.clear()

    def unless_skipped(self, chosen: Tensor) -> Tensor:
        """What is left of a mask of collected things to remember: all, or nothing if the step was skipped."""
        return chosen if self.skipped is None else chosen & (self.skipped == 0)

    def _hold(self, *tensors: Tensor) -> None:
        """Keep what a part of the step has collected, without its gradients."""
        self._held.append(tuple(tensor.detach() for tensor in tensors))

    def _take(self) -> list[tuple[Tensor, ...]]:
        """Return what was collected, a tuple for each part of the step, and forget it."""
        held, self._held = self._held, []
        return held
