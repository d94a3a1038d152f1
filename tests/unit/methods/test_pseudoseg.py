"""PseudoSeg: its equation written out, what both opinions make, and its limiting cases."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods.ingredients.perturb import cut_out
from des4.types import IGNORE, ConfigError

Make = Callable[..., Any]


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


def test_the_terms_are_those_of_the_equation(make_method: Make, make_batch: Make) -> None:
    settings = {"unlabeled_weight": 3.0, "sharpening": 0.25, "background_class": 1, "attention_dim": 4}
    batch, plain = make_batch(), make_method("pseudoseg", **settings)
    middle = plain.fused(batch.unlabeled).probs.amax(1).median().item()
    method = make_method("pseudoseg", threshold=middle, **settings)
    twin = copy.deepcopy(method)
    found = method.losses(batch)
    lab, un = batch.labeled, batch.unlabeled
    (view,) = un.strong
    with torch.no_grad():
        maps = twin.student.eval().encode(un.weak)
        z = up(twin.student.head(twin.student.decoder(maps)))
        a = up(twin.activation.eval()(maps, un.valid, None)[1])
        probs = []
        for n in range(2):
            valid = un.valid[n]
            rms = torch.cat([z[n][:, valid], a[n][:, valid]]).square().mean().sqrt()
            mean = ((z[n] / rms).softmax(0) + (a[n] / rms).softmax(0)) / 2
            probs.append(mean**4 / (mean**4).sum(0))
        target = torch.stack(probs)
    twin.train()
    image, hole = cut_out(view.mixed, un.keys, 0.195, "cutout")
    maps = twin.student.encode(torch.cat([lab.image, image]))
    out = up(twin.student.head(twin.student.decoder(maps)))
    has = torch.stack([(lab.label == c).flatten(1).any(1) for c in (0, 2, 3)], 1)
    said, seen = twin.activation(tuple(each[:2] for each in maps), lab.valid, has)
    counted = view.mix((target.amax(1) >= middle) & un.valid) & ~hole
    assert 0 < counted.sum() < (view.mix(un.valid) & ~hole).sum()
    soft = -(view.mix(target) * out[2:].log_softmax(1)).sum(1) * counted
    expected = {
        "labeled": F.cross_entropy(out[:2], lab.label, ignore_index=IGNORE),
        "labeled_activation": F.cross_entropy(up(seen), lab.label, ignore_index=IGNORE),
        "image_classes": -(has * said.sigmoid().log() + ~has * (-said).sigmoid().log()).mean(),
        "unlabeled": 3 * soft.sum() / view.mix(un.valid).sum(),
    }
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_where_both_agree_labels_are_sharper_than_where_they_do_not(make_method: Make, make_batch: Make) -> None:
    method, un = make_method("pseudoseg", sharpening=1.0, attention_dim=4), make_batch().unlabeled
    with torch.no_grad():
        method.student.head.weight.weight.zero_()
        method.student.head.weight.bias.copy_(torch.tensor([3.0, -1, -1, -1]))
        norm = method.activation.to_logits[1]
        norm.weight.zero_()
        norm.bias.copy_(torch.tensor([3.0, -1, -1, -1]))
        agree = method.fused(un).probs[:, :, 16, 16]
        norm.bias.copy_(torch.tensor([-1.0, 3, -1, -1]))
        differ = method.fused(un).probs[:, :, 16, 16]
    scaled = (torch.tensor([3.0, -1, -1, -1]) / 3**0.5).softmax(0)  # the mean square is 3
    torch.testing.assert_close(agree, scaled.expand(2, 4))
    torch.testing.assert_close(differ[:, :2], (scaled[:2].sum() / 2).expand(2, 2))


def test_an_image_without_any_label_teaches_the_classifier_nothing(make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("pseudoseg", attention_dim=4), make_batch()
    lab = batch.labeled
    said, has = torch.randn(2, 4), method.present(lab)
    whole = method.image_loss(said, has, lab)
    label = lab.label.clone()
    label[1] = IGNORE
    half = method.image_loss(said, has, replace(lab, label=label))
    each = F.binary_cross_entropy_with_logits(said, has.float(), reduction="none").mean(1)
    torch.testing.assert_close((whole, half), (each.mean(), each[0] / 2))


def test_a_label_that_nobody_is_sure_of_teaches_nothing(make_method: Make, make_batch: Make) -> None:
    terms = make_method("pseudoseg", threshold=1.0, attention_dim=4).losses(make_batch())
    assert terms.pop("unlabeled") == 0
    assert all(term > 0 for term in terms.values())


def test_a_background_has_to_exist(make_method: Make) -> None:
    assert make_method("pseudoseg", background_class=3, attention_dim=4).activation.classify.out_features == 3
    with pytest.raises(ConfigError, match="4 classes"):
        make_method("pseudoseg", background_class=4)


def test_a_rectangle_is_cut_out_anywhere_and_nowhere_if_its_share_is_0() -> None:
    keys = torch.randint(2**62, (400,), generator=torch.Generator().manual_seed(0))
    image = torch.zeros(400, 3, 10, 20)
    found, hole = cut_out(image, keys, 0.3, "cutout")
    assert hole.flatten(1).sum(1).eq(3 * 6).all()
    assert torch.equal(found, torch.where(hole[:, None], 0.5, image))
    tops = hole.any(2).float().argmax(1)
    assert set(tops.tolist()) == set(range(8))
    assert hole.any(0).all()
    assert not cut_out(image, keys, 0.0, "cutout")[1].any() and cut_out(image[:2], keys[:2], 1.0, "cutout")[1].all()
