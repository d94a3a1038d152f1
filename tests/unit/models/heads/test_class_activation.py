"""Class activations: against gradients of the classifier, their spreading written out, and their background."""

from __future__ import annotations

import torch
from torch import Tensor

from des4.models.heads.class_activation import ClassActivation

VALID = torch.ones(2, 5, 5, dtype=torch.bool)


def maps() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 9, 9, generator=generator), torch.randn(2, 6, 5, 5, generator=generator)


def seen(module: ClassActivation) -> list[Tensor]:
    """What goes into the last layers of each call."""
    found: list[Tensor] = []
    module.to_logits.register_forward_pre_hook(lambda _, arguments: found.append(arguments[0]))
    return found


def test_activations_are_those_of_gradients_and_spread_by_attention() -> None:
    torch.manual_seed(0)
    module, (low, deep) = ClassActivation((3, 6), 3, None, dim=4), maps()
    found, present = seen(module), torch.tensor([[True, False, True], [True, True, True]])
    said, _ = module((low, deep), VALID, present)
    (scores,) = found
    deep.requires_grad_()
    logits = module.classify(deep.mean((2, 3)))
    torch.testing.assert_close(said, logits)
    pillar = torch.cat([torch.nn.functional.interpolate(low, (5, 5), mode="bilinear", align_corners=True), deep], 1)
    q, k = (layer(pillar).flatten(2) for layer in (module.query, module.key))
    attention = (torch.einsum("bci,bcj->bij", q, k) / 2).softmax(2)
    for c in range(3):
        (gradient,) = torch.autograd.grad(logits[:, c].sum(), deep, retain_graph=True)
        cam = (gradient.mean((2, 3), keepdim=True) * deep).sum(1).relu() * present[:, c, None, None]
        cam = cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-12)
        spread = torch.einsum("bij,bj->bi", attention, cam.flatten(1)).view_as(cam)
        torch.testing.assert_close(scores[:, c], cam + spread, atol=1e-5, rtol=1e-4)
    assert not scores[0, 1].any() and scores.max() <= 2


def test_the_background_is_what_no_class_is() -> None:
    torch.manual_seed(0)
    module = ClassActivation((3, 6), 3, 1, dim=4)
    found = seen(module)
    said, logits = module(maps(), VALID, torch.tensor([[True, True], [False, False]]))
    assert said.shape == (2, 2) and logits.shape == (2, 3, 5, 5)
    (scores,) = found
    torch.testing.assert_close(scores[:, 1], 2 - torch.maximum(scores[:, 0], scores[:, 2]))
    assert scores[1, 1].eq(2).all()


def test_without_labels_the_classifier_says_what_is_present() -> None:
    torch.manual_seed(0)
    module, given = ClassActivation((3, 6), 3, None, dim=4), maps()
    with torch.no_grad():
        module.classify.bias.copy_(torch.tensor([1.0, -1.0, 1.0]))
    found = seen(module)
    said, _ = module(given, VALID, None)
    assert said.sign().tolist() == [[1, -1, 1]] * 2 and said.abs().max() < 1.5  # present from a probability of ½ on
    module(given, VALID, torch.tensor([[True, False, True]] * 2))
    assert torch.equal(*found)


def test_padding_is_not_seen() -> None:
    torch.manual_seed(0)
    module, (low, deep) = ClassActivation((6, 6), 3, None, dim=4), maps()
    valid = VALID.clone()
    valid[:, :2] = False
    found = seen(module)
    first = module((deep, deep), valid, None)[0]
    spoilt = torch.where(valid[:, None], deep, torch.rand_like(deep))
    torch.testing.assert_close(module((spoilt, spoilt), valid, None)[0], first)
    torch.testing.assert_close(*found)
    assert not found[0][:, :, :2].any() and low.shape[1] == 3


def test_its_maps_teach_the_attention_and_no_encoder() -> None:
    torch.manual_seed(0)
    module, (low, deep) = ClassActivation((3, 6), 3, None, dim=4), maps()
    low.requires_grad_()
    deep.requires_grad_()
    said, logits = module((low, deep), VALID, torch.ones(2, 3, dtype=torch.bool))
    logits.square().sum().backward(retain_graph=True)
    assert low.grad is None and deep.grad is None and module.classify.weight.grad is None
    assert module.query.weight.grad.any() and module.key.weight.grad.any()
    said.sum().backward()
    assert deep.grad.any() and low.grad is None
