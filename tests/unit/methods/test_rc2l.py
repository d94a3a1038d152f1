"""RC2L: its terms written out, region by region, and its limiting cases."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.types import IGNORE, Batch, StrongView, Unlabeled

Make = Callable[..., Any]


@pytest.fixture
def sure(make_method: Make, make_batch: Make) -> Callable[..., Any]:
    """A method in eval mode whose fresh networks see several classes, surely; its teacher is another network."""

    def make(**settings: Any) -> Any:
        method, other = make_method("rc2l", **settings).eval(), make_method("rc2l", seed=1)
        method.teacher.load_state_dict(other.student.state_dict())
        with torch.no_grad():
            for net in (method.student, method.teacher):
                features, last = net.features(make_batch().unlabeled.weak), net.head.weight
                last.weight.mul_(1000)
                last.bias.copy_(-last.weight[:, :, 0, 0] @ features.mean((0, 2, 3)))
        return method

    return make


def dice(one: Tensor, two: Tensor) -> Tensor:
    return 2 * (one * two).sum() / (one.sum() + two.sum())


def test_the_terms_are_those_of_the_equation(sure: Make, make_batch: Make) -> None:
    method, batch = sure(region_area=0.1, contrast_temperature=0.5, threshold=0.6), make_batch()
    weights = {"mask_contrast": 0.1, "feature_contrast": 0.1, "presence": 1.0, "masks": 1.0}
    twin, lab, un = copy.deepcopy(method), batch.labeled, batch.unlabeled
    found, (view,) = method.losses(batch), un.strong
    box = view.mix.box[:, ::4, ::4]
    with torch.no_grad():
        seen = twin.teacher.features(un.weak)
        logits = F.interpolate(twin.teacher.head(seen), size=(33, 33), mode="bilinear", align_corners=True)
        seen = torch.where(box[:, None], seen.flip(0), seen)
    confidence, best = logits.softmax(1).max(1)
    label = view.mix(best.masked_fill(~un.valid, IGNORE))[:, ::4, ::4]
    region = view.mix(best.masked_fill(~un.valid | (confidence < 0.6), IGNORE))[:, ::4, ::4]
    assert ((region == IGNORE) & (label != IGNORE)).any()
    features = twin.student.features(torch.cat([lab.image, view.mixed]))
    probs = twin.student.head(features[2:]).softmax(1) * (label != IGNORE)[:, None]
    theirs, mine, there = {}, {}, []
    for b in range(2):
        for c in range(4):
            mask = (region[b] == c).float()
            if mask.mean() >= 0.1:
                there.append((b, c))
                theirs[b, c] = (seen[b] * mask).sum((1, 2)) / mask.sum()
                mine[b, c] = (features[2 + b] * probs[b, c]).sum((1, 2)) / probs[b, c].sum()
    assert len({c for _, c in there}) > 1 and any((label[b] == c).any() and (b, c) not in there
                                                 for b in range(2) for c in range(4))  # fmt: skip
    terms: dict[str, list[Tensor]] = {name: [] for name in weights}
    for b in range(2):
        each: dict[str, list[Tensor]] = {name: [] for name in weights}
        for c in range(4):
            mask, largest = (region[b] == c).float(), probs[b, c].max()
            if (b, c) in there:
                each["masks"].append(1 - dice(probs[b, c], mask))
                overlaps = torch.stack([dice(probs[b, k], mask) for k in range(4)])
                each["mask_contrast"].append(-(overlaps / 0.5).log_softmax(0)[c])
                rest = [mine[b, c], *(mine[other] for other in there if other[1] != c)]
                cosines = torch.stack([F.cosine_similarity(theirs[b, c], one, dim=0) for one in rest])
                each["feature_contrast"].append(-(cosines / 0.5).log_softmax(0)[0])
                each["presence"].append(-largest.log())
            elif not (label[b] == c).any():
                each["presence"].append(-(1 - largest).log())
        for name, values in each.items():
            terms[name].append(torch.stack(values).mean())
    known = F.interpolate(twin.student.head(features[:2]), size=(33, 33), mode="bilinear", align_corners=True)
    expected = {"labeled": F.cross_entropy(known, lab.label, ignore_index=IGNORE)} | {
        name: weights[name] * sum(values) / 2 for name, values in terms.items()
    }
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_who_says_what_the_teacher_says_has_nothing_to_learn_from_masks(sure: Make, make_batch: Make) -> None:
    """And who says something else has: a consistency that is always 0 fails here."""
    method, batch = sure(), make_batch(cutmix="none")
    with torch.no_grad():
        method.student.head.weight.weight.mul_(1e4)
        method.teacher.load_state_dict(method.student.state_dict())
    un = batch.unlabeled

    def terms(image: Tensor) -> dict[str, Tensor]:
        seen = Unlabeled(un.weak, (StrongView(image, un.strong[0].mix),), un.valid, un.keys)
        return method.losses(Batch(batch.labeled, seen))

    same, other = terms(un.weak), terms(1 - un.weak)
    assert same["masks"].item() == pytest.approx(0, abs=1e-3)
    assert same["presence"].item() == pytest.approx(0, abs=1e-2)
    assert same["mask_contrast"].item() == pytest.approx(0.1 * math.log(1 + 3 * math.exp(-10)), abs=1e-4)
    for name in ("masks", "mask_contrast", "feature_contrast"):
        assert other[name] > same[name] + 1e-3, name


def test_without_regions_there_is_nothing_to_say(sure: Make, make_batch: Make) -> None:
    """Not even that a class is absent, which the teacher sees nowhere."""
    method = sure(region_area=0.99)
    with torch.no_grad():
        method.teacher.head.weight.bias[3] = -1e6
    terms = method.losses(make_batch())
    assert terms["masks"] == terms["mask_contrast"] == terms["feature_contrast"] == terms["presence"] == 0
    assert method.stats()["regions"] == 0
