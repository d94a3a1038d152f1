import copy

import pytest
import torch
from torch import nn

from des4.models.training.ema import follow, warm_momentum


def network() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    net(torch.randn(2, 3, 5, 5))
    return net


def test_values_by_hand() -> None:
    target, source = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.constant_(target.weight, 1.0)
    nn.init.constant_(source.weight, 5.0)
    follow(target, source, 0.75)
    assert target.weight.item() == 2.0
    assert source.weight.item() == 5.0


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.99])
def test_the_fused_average_is_that_of_a_plain_loop(momentum: float) -> None:
    target, source = network(), network()
    twin = copy.deepcopy(target)
    follow(target, source, momentum)
    with torch.no_grad():
        for name, mine in twin.state_dict(keep_vars=True).items():
            theirs = source.state_dict()[name]
            mine.copy_(mine.lerp(theirs, 1 - momentum) if mine.is_floating_point() else theirs)
    for mine, theirs in zip(target.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_momentum_zero_copies_to_the_bit() -> None:
    target, source = network(), network()
    follow(target, source, 0.0)
    for name, mine in target.state_dict().items():
        assert torch.equal(mine, source.state_dict()[name])


def test_statistics_follow_or_are_copied_and_counters_are_always_copied() -> None:
    for buffers in ("ema", "copy"):
        target, source = network(), network()
        source(torch.randn(2, 3, 5, 5))
        before, weight = target[1].running_mean.clone(), target[0].weight.clone()  # type: ignore[operator]
        follow(target, source, 0.9, buffers)  # type: ignore[arg-type]
        share = 0.9 if buffers == "ema" else 0.0
        torch.testing.assert_close(target[1].running_mean, share * before + (1 - share) * source[1].running_mean)
        torch.testing.assert_close(target[0].weight, 0.9 * weight + 0.1 * source[0].weight)
        assert target[1].num_batches_tracked == 2


def test_gradients_are_left_alone() -> None:
    target, source = network(), network()
    follow(target, source, 0.5)
    assert all(p.requires_grad and p.grad is None for p in target.parameters())


def test_the_warm_start_copies_first_and_ends_at_the_momentum() -> None:
    assert [warm_momentum(0.99, step) for step in (0, 1, 3)] == [0.0, 0.5, 0.75]
    assert warm_momentum(0.99, 98) == pytest.approx(98 / 99)
    assert warm_momentum(0.99, 99) == warm_momentum(0.99, 10**6) == 0.99
