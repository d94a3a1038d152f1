import torch

from des4.methods.ingredients.perturb import drop_channels
from des4.ops.noise import bernoulli

KEYS = torch.tensor([3, 5, 7])
MAPS = (torch.rand(3, 6, 4, 4) + 1, torch.rand(3, 8, 2, 2) + 1)


def test_whole_channels_are_dropped_and_the_rest_is_scaled() -> None:
    for p in (0.25, 0.5):
        for n, (before, after) in enumerate(zip(MAPS, drop_channels(MAPS, KEYS, "x", p), strict=True)):
            dropped = bernoulli(KEYS, (before.shape[1],), f"x/{n}", p)
            assert 0 < dropped.sum() < dropped.numel()
            assert torch.equal(after == 0, dropped[:, :, None, None].expand_as(after))
            torch.testing.assert_close(after[~dropped], before[~dropped] / (1 - p))


def test_without_probability_nothing_changes() -> None:
    assert all(torch.equal(*pair) for pair in zip(MAPS, drop_channels(MAPS, KEYS, "x", 0.0), strict=True))


def test_the_mean_is_kept() -> None:
    ones = (torch.ones(64, 512, 1, 1),)
    (after,) = drop_channels(ones, torch.arange(64), "x", 0.5)
    torch.testing.assert_close(after.mean(), torch.tensor(1.0), atol=0.02, rtol=0)


def test_maps_and_names_have_draws_of_their_own_and_samples_theirs_in_any_company() -> None:
    same = (MAPS[0], MAPS[0])
    one, two = drop_channels(same, KEYS, "x")
    assert not torch.equal(one == 0, two == 0)
    assert not torch.equal(drop_channels(same, KEYS, "y")[0] == 0, one == 0)
    assert torch.equal(drop_channels((MAPS[0][1:2],), KEYS[1:2], "x")[0], one[1:2])


def test_low_precision_stays() -> None:
    (after,) = drop_channels((MAPS[0].bfloat16(),), KEYS, "x")
    assert after.dtype == torch.bfloat16
