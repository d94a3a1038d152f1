"""The settings of `supervision`, each by its equation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from des4.losses import cross_entropy, hard_cross_entropy, kept_cross_entropy
from des4.methods import SupervisionConfig
from des4.methods.ingredients.supervision import Supervision
from des4.methods.ingredients.targets import hard_target
from des4.ops.prior import class_weights
from des4.types import IGNORE, Labeled, Unlabeled

COUNTS = torch.tensor([60, 30, 10])
LOGITS = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
LABEL = torch.randint(3, (2, 17, 17), generator=torch.Generator().manual_seed(1))
LABEL[0, :4] = IGNORE
LABELED = Labeled(torch.zeros(2, 3, 17, 17), LABEL, torch.arange(2))
KEEP, VALID = LABEL == 1, LABEL != IGNORE


def supervision(**settings: Any) -> Supervision:
    return Supervision(SupervisionConfig(**settings), COUNTS)


def on_pseudo_labels(settings: dict[str, Any], logits: Tensor = LOGITS) -> Tensor:
    return supervision(**settings).on_pseudo_labels(logits, LABEL.clamp_max(2), KEEP, VALID, None)


def test_by_default_it_is_plain_cross_entropy() -> None:
    assert torch.equal(supervision().on_labels(LOGITS, LABELED), cross_entropy(LOGITS, LABEL))
    assert torch.equal(on_pseudo_labels({}), kept_cross_entropy(LOGITS, LABEL.clamp_max(2), KEEP, VALID))
    assert supervision().adjusted(LOGITS) is LOGITS
    assert supervision().state_dict() == {}


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_logit_adjustment_adds_the_log_prior_inside_the_losses(power: float) -> None:
    """Menon et al., eq. 10. Upsampled logits may be shifted before or after: the prior is the same at every pixel."""
    shift = power * torch.tensor([0.6, 0.3, 0.1]).log()[:, None, None]
    full = F.interpolate(LOGITS, size=(17, 17), mode="bilinear", align_corners=True) + shift
    expected = F.cross_entropy(full, LABEL, ignore_index=IGNORE)
    torch.testing.assert_close(supervision(logit_adjustment=power).on_labels(LOGITS, LABELED), expected)
    expected = F.cross_entropy(full, torch.where(KEEP, LABEL, IGNORE), ignore_index=IGNORE) * KEEP.sum() / VALID.sum()
    torch.testing.assert_close(on_pseudo_labels({"logit_adjustment": power}), expected)


def test_an_adjusted_method_is_the_plain_one_on_a_network_that_says_the_prior() -> None:
    """Labels, their confidence and both losses are those of the logits with the shift in them, and no adjustment.

    So the adjustment changes no method: it is learnt with as published, and left out of predictions.
    """
    shifted = LOGITS + 0.5 * torch.tensor([0.6, 0.3, 0.1]).log()[:, None, None]
    views = Unlabeled(torch.zeros(2, 3, 17, 17), (), VALID, torch.arange(2))
    adjusted, plain = supervision(logit_adjustment=0.5), supervision()
    found, expected = hard_target(LOGITS, views, 0.4, adjusted), hard_target(shifted, views, 0.4, plain)
    assert torch.equal(found.label, expected.label)
    torch.testing.assert_close(found.confidence, expected.confidence)
    torch.testing.assert_close(found.cross_entropy(LOGITS), expected.cross_entropy(shifted))
    torch.testing.assert_close(adjusted.on_labels(LOGITS, LABELED), plain.on_labels(shifted, LABELED))


def test_adjusted_distributions_are_those_of_adjusted_logits() -> None:
    probs = torch.tensor([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]]).view(2, 3, 1, 1)
    found = supervision(logit_adjustment=1.0).adjusted_probs(probs)
    expected = torch.tensor([0.12, 0.15, 0.03]) / 0.3  # p · share, by hand
    torch.testing.assert_close(found[0].flatten(), expected)
    assert torch.equal(found[1:], probs[1:])


def test_fully_adjusted_equal_logits_fit_any_frequencies() -> None:
    """The adjustment itself says how frequent classes are, so a network that sees nothing has no reason to."""
    label = torch.tensor([0] * 60 + [1] * 30 + [2] * 10).view(1, 10, 10)
    logits = torch.zeros(1, 3, 1, 1, requires_grad=True)
    labeled = Labeled(torch.zeros(1, 3, 10, 10), label, torch.arange(1))
    loss = supervision(logit_adjustment=1.0).on_labels(logits.expand(1, 3, 10, 10), labeled)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)


def test_class_weights_hold_for_labels_and_pseudo_labels() -> None:
    weights = class_weights(COUNTS, 0.5)
    found = supervision(class_weighting=0.5)
    torch.testing.assert_close(found.on_labels(LOGITS, LABELED), cross_entropy(LOGITS, LABEL, class_weights=weights))
    plain = on_pseudo_labels({})  # of class 1 alone
    torch.testing.assert_close(on_pseudo_labels({"class_weighting": 0.5}), weights[1] * plain)


def test_focal_loss_and_ohem_hold_for_labels_alone() -> None:
    focal, ohem = {"focal_gamma": 2.0}, {"ohem_threshold": 0.3, "ohem_min_share": 0.2}
    assert torch.equal(supervision(**focal).on_labels(LOGITS, LABELED), cross_entropy(LOGITS, LABEL, focal_gamma=2))
    assert torch.equal(
        supervision(**ohem).on_labels(LOGITS, LABELED),
        hard_cross_entropy(LOGITS, LABEL, threshold=0.3, min_share=0.2),
    )
    for settings in (focal, ohem):
        assert torch.equal(on_pseudo_labels(settings), on_pseudo_labels({}))


def test_every_loss_of_labels_has_the_class_weights_and_divides_by_the_pixels_of_the_step() -> None:
    labeled, weights = replace(LABELED, pixels=torch.tensor(100.0)), class_weights(COUNTS, 0.5)
    focal = supervision(class_weighting=0.5, focal_gamma=2.0).on_labels(LOGITS, labeled)
    expected = cross_entropy(LOGITS, LABEL, labeled.pixels, class_weights=weights, focal_gamma=2)
    assert torch.equal(focal, expected)
    ohem = supervision(class_weighting=0.5, ohem_threshold=0.3).on_labels(LOGITS, labeled)
    assert torch.equal(ohem, hard_cross_entropy(LOGITS, LABEL, labeled.pixels, threshold=0.3, class_weights=weights))


def test_two_choices_of_hard_pixels_are_refused() -> None:
    with pytest.raises(ValidationError, match="focal_gamma and ohem_threshold both favour hard pixels"):
        SupervisionConfig(focal_gamma=2, ohem_threshold=0.7)
