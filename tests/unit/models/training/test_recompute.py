"""A network that recomputes its activations against a plain one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from des4.models import ModelConfig, Segmenter, build_segmenter
from des4.models.training.recompute import recompute_activations

ENCODERS = [
    "test_efficientnet",
    "test_resnet",
    "test_convnext",
    "test_byobnet",
    "mobilenetv3_small_050",
    "test_vit",
    "vit_tiny_patch16_dinov3_qkvb",
]


def pair(config: ModelConfig) -> tuple[Segmenter, Segmenter]:
    """A plain network and one that recomputes, with the same weights."""
    torch.manual_seed(0)
    plain = build_segmenter(config, 3, "prototype").train()
    recomputing = build_segmenter(config.model_copy(update={"checkpointing": True}), 3, "prototype").train()
    recomputing.load_state_dict(plain.state_dict())
    return plain, recomputing


def train(segmenter: Segmenter, passes: int = 2, size: int = 33) -> dict[str, Tensor]:
    """Losses and gradients of some passes, and the state they leave."""
    found = {}
    for index in range(passes):
        image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(index)).requires_grad_()
        logits = segmenter(image)
        logits.square().mean().backward()
        assert image.grad is not None
        found |= {f"logits {index}": logits.detach(), f"image gradient {index}": image.grad}
    found |= {f"gradient {name}": p.grad for name, p in segmenter.named_parameters() if p.grad is not None}
    return found | {f"state {name}": value.clone() for name, value in segmenter.state_dict().items()}


def saved_bytes(segmenter: Segmenter, image: Tensor) -> int:
    """What the forward pass leaves in memory for the backward pass, weights excepted."""
    weights = {p.untyped_storage().data_ptr() for p in segmenter.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor  # holds it, so that no address is used twice
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        segmenter(image)
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in weights)


def peak_bytes(segmenter: Segmenter, image: Tensor) -> int:
    """Most memory that a forward and backward pass holds at any moment, beyond what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        segmenter(image).square().mean().backward()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize("encoder", ENCODERS)
def test_nothing_changes_by_a_bit(tiny_model: ModelConfig, encoder: str) -> None:
    plain, recomputing = pair(tiny_model.model_copy(update={"encoder": encoder}))
    expected, found = train(plain), train(recomputing)
    assert found.keys() == expected.keys()
    assert [name for name, value in found.items() if not torch.equal(value, expected[name])] == []


def test_dropped_units_are_dropped_alike() -> None:
    """The second pass draws the random numbers of the first."""
    torch.manual_seed(0)
    plain = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8))])
    recomputing = copy.deepcopy(plain)
    recompute_activations(recomputing)
    for module in (plain, recomputing):
        torch.manual_seed(1)
        module[0](torch.ones(4, 8)).square().sum().backward()
    for mine, theirs in zip(plain.parameters(), recomputing.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)  # type: ignore[arg-type]


def test_the_second_pass_is_in_the_mode_of_the_first(tiny_model: ModelConfig) -> None:
    """A method may read its network in eval mode between forward and backward pass."""
    plain, recomputing = pair(tiny_model)
    image = torch.rand(2, 3, 33, 33)
    for segmenter in (plain, recomputing):
        loss = segmenter(image).square().mean()
        segmenter.eval()
        loss.backward()
        assert not any(module.training for module in segmenter.modules())
    for mine, theirs in zip(plain.parameters(), recomputing.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)  # type: ignore[arg-type]


def test_without_gradients_nothing_is_recomputed(tiny_model: ModelConfig) -> None:
    plain, recomputing = pair(tiny_model)
    image, flops = torch.rand(2, 3, 33, 33), []
    for segmenter in (plain, recomputing):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            logits = segmenter(image)
        assert not logits.requires_grad
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1] > 0


def test_with_gradients_about_one_more_forward_pass_is_computed(tiny_model: ModelConfig) -> None:
    plain, recomputing = pair(tiny_model)
    image = torch.rand(2, 3, 33, 33)
    with FlopCounterMode(display=False) as forward:
        plain(image)
    steps = []
    for segmenter in (plain, recomputing):
        with FlopCounterMode(display=False) as counter:
            segmenter(image).square().mean().backward()
        steps.append(counter.get_total_flops())
    assert 0.5 * forward.get_total_flops() < steps[1] - steps[0] <= forward.get_total_flops()


def test_memory(tiny_model: ModelConfig) -> None:
    """Measured: what is kept falls 2.5 times, the peak of forward and backward pass together 2.0 times."""
    plain, recomputing = pair(tiny_model)
    image = torch.rand(2, 3, 65, 65)
    assert saved_bytes(plain, image) > 2 * saved_bytes(recomputing, image)
    for segmenter in (plain, recomputing):
        peak_bytes(segmenter, image)  # the first pass also makes the gradients
    assert peak_bytes(plain, image) > 1.8 * peak_bytes(recomputing, image)


def test_names_and_copies_stay(tiny_model: ModelConfig) -> None:
    plain, recomputing = pair(tiny_model)
    assert list(plain.state_dict()) == list(recomputing.state_dict())
    assert [name for name, _ in plain.named_modules()] == [name for name, _ in recomputing.named_modules()]
    types = [type(module) for module in recomputing.modules()]
    recompute_activations(recomputing)  # once more changes nothing
    assert [type(module) for module in recomputing.modules()] == types
    twin = copy.deepcopy(recomputing)
    expected, found = train(recomputing), train(twin)
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_autocast_is_that_of_the_first_pass(tiny_model: ModelConfig) -> None:
    plain, recomputing = pair(tiny_model)
    gradients = []
    for segmenter in (plain, recomputing):
        with torch.autocast("cpu", torch.bfloat16):
            loss = segmenter(torch.ones(2, 3, 33, 33)).square().mean()
        loss.backward()  # outside of autocast, as in a training step
        gradients.append([p.grad for p in segmenter.parameters()])
    assert all(torch.equal(*both) for both in zip(*gradients, strict=True))
