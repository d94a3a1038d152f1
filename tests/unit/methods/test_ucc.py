"""UCC: its equation written out, the weight of a doubtful label, and what is pasted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods.ingredients.classmix import classes_present
from des4.methods.ingredients.injection import in_order
from des4.methods.ingredients.pasting import paste_classes
from des4.methods.ingredients.targets import soft_target
from des4.models import Segmenter
from des4.types import IGNORE, Batch, ConfigError, Labeled

Make = Callable[..., Any]


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


def peer(method: Any) -> Segmenter:
    """The second head with the encoder that it shares."""
    return Segmenter(method.student.encoder, method.peer_decoder, method.peer_head).eval()


@pytest.fixture
def sure(make_method: Make) -> Callable[..., Any]:
    """A method in eval mode whose fresh heads are sure of something, so that views differ."""

    def make(**settings: Any) -> Any:
        method = make_method("ucc", **settings).eval()
        with torch.no_grad():
            for head in (method.student.head, method.peer_head):
                head.weight.weight.mul_(100)
        return method

    return make


@pytest.fixture
def make_pair(make_batch: Make) -> Make:
    """Batches with donors, which the method asks for; these have one class, 3 or 0, on some pixels, and no other."""

    def make(seed: int = 0, **settings: Any) -> Batch:
        batch, other = make_batch(seed, **settings), make_batch(seed + 100, **settings)
        alone = torch.tensor([3, 0])[:, None, None].where(other.labeled.label < 2, IGNORE)
        donor = Labeled(other.labeled.image, alone, batch.labeled.keys)
        labeled = Labeled(batch.labeled.image, batch.labeled.label, batch.labeled.keys, donor=donor)
        return Batch(labeled, batch.unlabeled)

    return make


def pasted(method: Any, batch: Batch) -> tuple[Labeled, Tensor, Tensor, Tensor]:
    """Labeled images, strong images before they are mixed, where labels are pasted onto these, and the labels."""
    lab, un = batch.labeled, batch.unlabeled
    assert un is not None and lab.donor is not None
    labeled = paste_classes(lab, method.chosen(lab.donor, lab.keys))
    source = in_order(lab, len(un.weak))
    classes = method.chosen(source, un.keys)
    box = torch.stack([
        torch.isin(label, torch.arange(4)[some]) & seen
        for label, some, seen in zip(source.label, classes, un.valid, strict=True)
    ])  # fmt: skip
    return labeled, torch.where(box[:, None], source.image, un.strong[0].image), box, source.label


@pytest.mark.parametrize("detached", [True, False])
def test_the_terms_are_those_of_the_equation(detached: bool, sure: Make, make_pair: Make) -> None:
    method, batch = sure(paste=1.0, detached=detached, unlabeled_weight=3.0), make_pair()
    twin, un = copy.deepcopy(method), batch.unlabeled
    found, (view,) = method.losses(batch), un.strong
    lab, image, box, label = pasted(twin, batch)
    assert 0 < box.float().mean() < 0.9 and not torch.equal(lab.label, batch.labeled.label)
    nets = (twin.student, peer(twin))
    weak = [up(net(un.weak)).softmax(1).detach() for net in nets]
    known, strong = ([up(net(images)) for net in nets] for images in (lab.image, view.mix(image)))
    expected = {}
    for name, own, other in (("first", 0, 1), ("second", 1, 0)):
        expected[f"{name}/labeled"] = F.cross_entropy(known[own], lab.label, ignore_index=IGNORE)
        said = view.mix(weak[other])
        gap = (said * (said.log() - strong[other].log_softmax(1))).sum(1).masked_fill(view.mix(box), 0)
        target = view.mix(torch.where(box, label, weak[other].argmax(1)))
        cross = F.cross_entropy(strong[own], target, reduction="none")
        loss = (-gap).exp() * cross + (0 if detached else gap)
        expected[f"{name}/unlabeled"] = 3 * loss[view.mix(un.valid)].mean()
        assert (-gap).exp()[view.mix(un.valid)].min() < 0.98  # a weight that is always 1 would not do
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("running", [False, True])
def test_labels_are_of_the_running_norms_if_they_are_to_be(
    running: bool, sure: Make, make_pair: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, batch, said = sure(running_norms=running).train(), make_pair(), []
    twin, (view,) = copy.deepcopy(method).eval(), batch.unlabeled.strong
    monkeypatch.setattr(method, "rectified", lambda _, probs, *rest: (said.append(probs), rest[-1].sum())[1])
    method.losses(batch)
    for probs, net in zip(said, (peer(twin), twin.student), strict=True):  # each is taught by the other
        expected = view.mix(up(net(batch.unlabeled.weak)).softmax(1))
        assert (
            torch.allclose(torch.where(view.mix(batch.unlabeled.valid)[:, None], probs, expected), expected) == running
        )
    assert all(module.training for module in method.modules() if module is not method)


def test_the_weight_is_a_weight_alone_unless_it_is_asked_to_learn(sure: Make, make_pair: Make) -> None:
    """The head that labels gets no gradient from its own label, but through V."""
    batch = make_pair()
    for detached, moves in ((True, False), (False, True)):
        method = sure(detached=detached)
        term = method.losses(batch)["first/unlabeled"]
        (gradient,) = torch.autograd.grad(term, method.peer_head.weight.weight, allow_unused=True)
        assert (gradient is not None and bool(gradient.any())) == moves


def test_heads_share_an_encoder_and_start_apart(make_method: Make) -> None:
    method = make_method("ucc")
    pairs = zip(method.peer_decoder.parameters(), method.student.decoder.parameters(), strict=True)
    assert any(not torch.equal(one, two) for one, two in pairs)
    assert set(method.networks()) == {"student", "peer_decoder", "peer_head"}
    assert [name for name, _ in method.named_children() if "encoder" in name] == []


def test_of_the_classes_that_are_there_the_badly_predicted_ones_are_pasted(make_method: Make) -> None:
    method = make_method("ucc", paste=1.0, never_pasted=[3])
    label = torch.zeros(4000, 2, 2, dtype=torch.long)
    label[:, 0], label[:, 1, 1] = torch.tensor([1, 3]), IGNORE
    keys = torch.randint(2**62, (4000,), generator=torch.Generator().manual_seed(0))
    source = Labeled(torch.zeros(4000, 3, 2, 2), label, keys)
    assert classes_present(label, source.valid, 4)[0].tolist() == [True, True, False, True]
    assert method.chosen(source, keys).float().mean(0).tolist() == pytest.approx([0.5, 0.5, 0, 0], abs=0.03)
    method.confidence.values.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))  # e⁰ against e¹
    shares = method.chosen(source, keys).float().mean(0).tolist()
    assert shares == pytest.approx([1 / 3.718, 2.718 / 3.718, 0, 0], abs=0.03)
    rarely = make_method("ucc", paste=0.2, pasted_classes=2)
    assert rarely.chosen(source, keys).float().sum(1).mean().item() == pytest.approx(0.4, abs=0.04)


@pytest.mark.parametrize("paste", [0.0, 1.0])
def test_the_memory_follows_the_labels_as_they_are_pasted_and_without_pasting_nothing_is(
    sure: Make, make_pair: Make, paste: float
) -> None:
    method, batch = sure(paste=paste), make_pair()
    twin, lab, donor = copy.deepcopy(method), batch.labeled, batch.labeled.donor
    terms = method.losses(batch)
    method.after_step()
    given = lab.valid & donor.valid & (paste > 0)  # a donor has one class, which is drawn
    image, label = torch.where(given[:, None], donor.image, lab.image), torch.where(given, donor.label, lab.label)
    probs, small = twin.student(image).softmax(1), label[:, ::4, ::4]
    for c in small[small != IGNORE].unique():
        assert method.confidence.values[c].item() == pytest.approx(probs[:, c][small == c].mean().item(), rel=1e-4)
    known = F.cross_entropy(up(twin.student(image)), label, ignore_index=IGNORE)
    torch.testing.assert_close(terms["first/labeled"], known)
    assert (method.stats()["pasted"] > 0) == (paste > 0)


def test_classes_that_are_never_pasted_have_to_exist(make_method: Make) -> None:
    with pytest.raises(ConfigError, match=r"never_pasted=\[4\]: there are 4 classes"):
        make_method("ucc", never_pasted=[4])
    with pytest.raises(ConfigError, match="not all"):
        make_method("ucc", never_pasted=[0, 1, 2, 3])


def test_labels_of_a_head_are_those_of_its_own_view(sure: Make, make_pair: Make) -> None:
    """Where views are alike there is no doubt, and a label weighs 1."""
    method, batch = sure(paste=0.0), make_pair(cutmix="none")
    un = batch.unlabeled
    soft = soft_target(peer(method)(un.weak), un)
    labels, logits = soft.hardened(0.0, method.supervision), method.student(un.weak)
    same = method.rectified(labels, soft.probs, peer(method)(un.weak), logits)
    torch.testing.assert_close(same, labels.cross_entropy(logits))
    assert method.rectified(labels, soft.probs, peer(method)(1 - un.weak), logits) < 0.99 * same
