"""Two gloo processes against one that sees the whole batch."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from des4.models import ModelConfig, Segmenter, build_segmenter
from des4.models.training.recompute import recompute_activations
from des4.models.training.sync_norm import synchronise_norms
from des4.types import ConfigError


def pixels(images: int) -> Tensor:
    return torch.rand(images, 3, 32, 32)


def far_from_zero(images: int) -> Tensor:
    """A mean of 30,000 standard deviations, beside which a difference of float32 squares is all rounding."""
    return torch.randn(images, 3, 32, 32) * 0.01 + 300


def one_norm() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(3, momentum=None))


def plain() -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4, momentum=None, affine=False)
    ).double()


def with_activation() -> nn.Module:
    return nn.Sequential(
        BatchNormAct2d(3, act_layer=nn.SiLU), nn.Conv2d(3, 4, 3, bias=False), BatchNormAct2d(4, apply_act=False)
    ).double()


def network() -> Segmenter:
    """The test encoder, whose norms are timm's, and the decoder."""
    config = ModelConfig(encoder="test_efficientnet", weights="none", channels=16, low_channels=8, embedding="linear")
    return build_segmenter(config, 3, "linear")


def recomputed_network() -> nn.Module:
    module = network()
    recompute_activations(module)
    return module.double()


Case = tuple[Callable[[], nn.Module], Callable[[int], Tensor], tuple[int, int]]
"""Module, images, and how many of them each process has."""

EXACT: dict[str, Case] = {
    "equal shares": (plain, pixels, (3, 3)),
    "unequal shares": (plain, pixels, (1, 4)),
    "no image for one process": (plain, pixels, (0, 3)),
    "with activation": (with_activation, pixels, (1, 2)),
    "network": (lambda: network().double(), pixels, (1, 2)),
    "recomputed network": (recomputed_network, pixels, (1, 2)),
}
"""Compared in float64, where a wrong formula cannot hide behind rounding."""

CASES: dict[str, Case] = {
    **EXACT,
    "float32": (network, pixels, (1, 2)),
    "far from zero": (one_norm, far_from_zero, (1, 2)),
}


def run(case: str, rank: int | None) -> dict[str, Tensor]:
    """Two training passes, then an eval pass; outputs, gradients and buffers. rank: None = the whole batch."""
    torch.manual_seed(0)
    make, draw, (first, second) = CASES[case]
    module = make().train()
    if rank is not None:
        synchronise_norms(module)
    dtype = next(module.parameters()).dtype
    found: dict[str, Tensor] = {}
    for step in range(2):
        image = draw(first + second).to(dtype)
        share = slice(None) if rank is None else slice(first) if rank == 0 else slice(first, None)
        image = image[share].requires_grad_()
        out = module(image)
        (out + out.sin()).square().sum().backward()
        assert image.grad is not None
        found |= {f"out {step}": out.detach(), f"image gradient {step}": image.grad}
    found |= {f"gradient {name}": p.grad for name, p in module.named_parameters() if p.grad is not None}
    found |= {f"state {name}": value for name, value in module.state_dict().items()}
    with torch.no_grad():
        found["eval"] = module.eval()(torch.ones(1, 3, 32, 32, dtype=dtype))
    return found


def deviations(case: str, ranks: list[dict[str, dict[str, Tensor]]]) -> dict[str, float]:
    """Largest difference between two processes and one, relative to the largest value or 1, by tensor.

    The loss is a sum over pixels, so gradients are far above 1 unless they are zero in theory.
    """
    one = run(case, None)
    first, second = (rank[case] for rank in ranks)
    assert first.keys() == second.keys() == one.keys()
    result = {}
    for name, expected in one.items():
        if name.startswith(("state", "eval")):
            assert torch.equal(first[name], second[name]), name
            found = first[name]
        elif name.startswith("gradient"):
            found = first[name] + second[name]
        else:
            found = torch.cat([first[name], second[name]])
        assert found.shape == expected.shape, name
        assert found.dtype == expected.dtype, name
        result[name] = ((found - expected).abs().max() / expected.abs().max().clamp_min(1)).item()
    return result


def _on_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save({case: run(case, rank) for case in CASES}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What each process found, by case."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(_on_rank, (str(folder),), nprocs=2)  # type: ignore[attr-defined,no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", EXACT)
def test_two_processes_are_one(case: str, ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    assert {name: value for name, value in deviations(case, ranks).items() if not value < 1e-9} == {}


def test_two_processes_are_one_in_float32(ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    """Rounding alone: gradients gather that of some 30 layers."""
    found = deviations("float32", ranks)
    assert {name: value for name, value in found.items() if not value < (1e-4 if "gradient" in name else 1e-5)} == {}


def test_the_variance_does_not_cancel(ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    torch.manual_seed(0)
    one_norm()
    batches = [far_from_zero(3).double() for _ in range(2)]
    var = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in batches]).mean(0)
    for rank in ranks:
        torch.testing.assert_close(rank["far from zero"]["state 0.running_var"].double(), var, rtol=1e-3, atol=0)


def test_the_shares_alone_have_other_statistics() -> None:
    """So the comparison above can fail."""
    whole = run("network", None)
    torch.manual_seed(0)
    module = network().double().train()
    assert (module(pixels(3).double()[1:]) - whole["out 0"][1:]).abs().max() > 1e-3


# ── one process ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_process_keeps_its_bits_names_and_modules() -> None:
    plain_network = network().train()
    synchronised = copy.deepcopy(plain_network)
    before = {id(module) for module in synchronised.modules()}
    synchronise_norms(synchronised)
    synchronise_norms(synchronised)  # once more changes nothing
    assert {id(module) for module in synchronised.modules()} == before
    changed = [type(module).__name__ for module in synchronised.modules() if type(module).__module__.startswith("des4")]
    assert {"SynchronisedBatchNorm2d", "SynchronisedBatchNormAct2d"} <= set(changed)
    image = pixels(2)
    for mode in (True, False):
        assert torch.equal(plain_network.train(mode)(image), synchronised.train(mode)(image))
    theirs = plain_network.state_dict()
    assert list(theirs) == list(synchronised.state_dict())
    assert all(torch.equal(value, theirs[name]) for name, value in synchronised.state_dict().items())
    network().load_state_dict(synchronised.state_dict())
    copy.deepcopy(synchronised).load_state_dict(theirs)


def test_a_norm_of_another_kind_is_refused_and_nothing_is_changed() -> None:
    class OwnNorm(nn.BatchNorm2d):
        pass

    for norm in (OwnNorm(3), nn.BatchNorm1d(3), nn.SyncBatchNorm(3)):
        module = nn.Sequential(nn.BatchNorm2d(3), norm)
        with pytest.raises(ConfigError, match=type(norm).__name__) as caught:
            synchronise_norms(module)
        assert "\n" not in str(caught.value)
        assert type(module[0]) is nn.BatchNorm2d
