"""Queues of embeddings: first in, first out, a class at a time, the same however a step was shared out."""

from __future__ import annotations

import torch
from torch import Tensor

from des4.models.memory import FeatureQueue


def numbered(start: int, count: int) -> Tensor:
    """Embeddings (2, count, 1) that are numbers, class 1's a hundred higher."""
    row = torch.arange(start, start + count, dtype=torch.float32)
    return torch.stack([row, row + 100])[..., None]


def everything(count: int) -> Tensor:
    return torch.ones(2, count, dtype=torch.bool)


def contents(queue: FeatureQueue) -> list[list[float]]:
    return [queue.rows[c, : queue.filled[c], 0].tolist() for c in range(2)]


def test_rows_enter_in_the_order_of_keys_and_the_oldest_leave_first() -> None:
    queue = FeatureQueue(2, 4, 1)
    queue.collect(numbered(0, 3), everything(3), torch.tensor([5, -7, 6]))
    assert contents(queue) == [[], []]  # nothing moves before the commit
    queue.commit()
    assert contents(queue) == [[1, 0, 2], [101, 100, 102]]
    queue.collect(numbered(10, 2), torch.tensor([[True, True], [False, True]]), torch.tensor([1, 2]))
    queue.commit()
    assert contents(queue) == [[11, 0, 2, 10], [101, 100, 102, 111]]
    assert queue.place.tolist() == [1, 0]
    queue.commit()  # nothing is pending any more
    assert contents(queue) == [[11, 0, 2, 10], [101, 100, 102, 111]]


def test_of_more_rows_than_fit_as_many_as_fit_are_taken() -> None:
    queue = FeatureQueue(2, 3, 1)
    queue.collect(numbered(0, 5), everything(5), torch.arange(5))
    queue.commit()
    assert contents(queue) == [[0, 1, 2], [100, 101, 102]]
    assert queue.filled.tolist() == [3, 3]


def test_two_parts_are_one_commit() -> None:
    whole, parted = FeatureQueue(2, 5, 1), FeatureQueue(2, 5, 1)
    rows, chosen, keys = numbered(0, 4), torch.rand(2, 4) > 0.3, torch.tensor([3, 1, 2, 0])
    whole.collect(rows, chosen, keys)
    for part in ([0, 2], [1, 3]):
        parted.collect(rows[:, part], chosen[:, part], keys[part])
    whole.commit()
    parted.commit()
    assert all(torch.equal(one, two) for one, two in zip(whole.buffers(), parted.buffers(), strict=True))


def test_a_class_that_is_not_found_stays_and_a_skipped_step_leaves_everything() -> None:
    queue = FeatureQueue(2, 4, 1)
    queue.collect(numbered(0, 2), everything(2), torch.arange(2))
    queue.commit()
    before = {name: value.clone() for name, value in queue.state_dict().items()}
    queue.skipped = torch.ones(())
    queue.collect(numbered(5, 3) * torch.nan, everything(3), torch.arange(3))
    queue.commit()
    assert all(torch.equal(value, before[name]) for name, value in queue.state_dict().items())
    queue.skipped = torch.zeros(())
    queue.collect(numbered(7, 1), torch.tensor([[False], [True]]), torch.arange(1))
    queue.commit()
    assert contents(queue) == [[0, 1], [100, 101, 107]]


def test_rows_are_drawn_from_what_is_there_and_from_the_class_that_asks() -> None:
    queue = FeatureQueue(2, 10, 1)
    queue.collect(numbered(0, 3), torch.tensor([[True] * 3, [False] * 3]), torch.arange(3))
    queue.commit()
    drawn = queue.draw(torch.rand(4, 2, 50))
    assert drawn.shape == (4, 2, 50, 1)
    assert set(drawn[:, 0].flatten().tolist()) == {0, 1, 2}
    assert not drawn[:, 1].any()  # of an empty class 0


def test_a_commit_does_not_copy_the_queue() -> None:
    queue = FeatureQueue(2, 1_000, 1)
    place = queue.rows.data_ptr()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        queue.collect(numbered(0, 3), everything(3), torch.arange(3))
        queue.commit()
    assert queue.rows.data_ptr() == place
    sizes: list[int] = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.untyped_storage().data_ptr() != place:
                sizes.append(out.numel())
            return out

    queue.collect(numbered(0, 3), everything(3), torch.arange(3))
    with Sizes():
        queue.commit()
    assert sizes
    assert max(sizes) < 100
