"""Draws from keys: what they depend on, and that they look like what they are drawn from."""

import pytest
import torch

from des4.ops.noise import _mixed, bernoulli, sample_key, uniform

KEYS = torch.tensor([sample_key(0, epoch, name) for epoch in range(4) for name in "abcd"])


def test_the_hash_is_that_of_splitmix64() -> None:
    """The first outputs of its reference code for the seed 1234567, as unsigned numbers."""
    gamma = 0x9E3779B97F4A7C15
    states = [(1234567 + n * gamma) % 2**64 for n in (1, 2, 3)]
    signed = torch.tensor([state - 2**64 if state >= 2**63 else state for state in states])
    found = [number % 2**64 for number in _mixed(signed).tolist()]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_draw_depends_on_key_name_and_place_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    whole = uniform(KEYS, (3, 5), "feature")
    assert torch.equal(torch.get_rng_state(), state)
    order = torch.randperm(len(KEYS))
    assert torch.equal(uniform(KEYS[order], (3, 5), "feature"), whole[order])  # alone, or in any company
    assert torch.equal(torch.cat([uniform(part, (3, 5), "feature") for part in KEYS.split(3)]), whole)
    assert torch.equal(uniform(KEYS, (15,), "feature").view(-1, 3, 5), whole)
    assert not (uniform(KEYS, (3, 5), "other") == whole).any()
    assert len(whole.flatten().unique()) == whole.numel()


def test_a_long_draw_begins_as_a_short_one_and_leaves_the_keys_as_they_were() -> None:
    """On a CPU it is drawn in blocks."""
    keys = torch.tensor([3, -5])
    whole = uniform(keys, (70_000,), "long")
    assert torch.equal(whole[:, :40_000], uniform(keys, (40_000,), "long"))
    assert torch.equal(keys, torch.tensor([3, -5])) and uniform(keys, (0,), "long").shape == (2, 0)
    assert len(whole.unique()) > 130_000


def test_values_are_pinned() -> None:
    """A run that is resumed with a later version goes on with the same noise."""
    key = 7389965275923962125
    assert sample_key(0, 3, "street/a") == key
    assert uniform(torch.tensor([key]), (2,), "feature").tolist() == [[0.41039949655532837, 0.8437049984931946]]


def test_draws_are_uniform_and_independent() -> None:
    draw = uniform(KEYS, (4096,), "x")
    assert draw.min() >= 0
    assert draw.max() < 1
    assert draw.dtype == torch.float32
    counts = draw.histc(16, 0, 1)
    expected = draw.numel() / 16
    assert ((counts - expected).square() / expected).sum() < 37.7  # chi², 15 degrees of freedom, p = 0.001
    pairs = torch.corrcoef(draw)
    assert (pairs - torch.eye(len(KEYS))).abs().max() < 0.08
    neighbours = torch.corrcoef(torch.stack([draw[:, 1:].flatten(), draw[:, :-1].flatten()]))[0, 1]
    assert neighbours.abs() < 0.015


@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 1.0])
def test_bernoulli_is_true_as_often_as_asked(p: float) -> None:
    draw = bernoulli(KEYS, (4096,), "x", p)
    assert draw.dtype == torch.bool
    assert draw.float().mean().item() == pytest.approx(p, abs=0.008)


def test_keys_next_to_each_other_have_nothing_in_common() -> None:
    draw = uniform(torch.arange(64), (256,), "x")
    assert (torch.corrcoef(draw) - torch.eye(64)).abs().max() < 0.3
