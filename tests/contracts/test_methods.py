"""What every method promises, over the METHODS table: a new method is covered by being in it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from eager import LATER, eager, optimiser_of
from torch import Tensor, nn

from des4.losses import cross_entropy
from des4.methods import METHODS, Method
from des4.methods.bases import ProjectedTeacherStudent
from des4.models import HeadName, LinearClassifier, ModelConfig, PrototypeClassifier, Segmenter, build_segmenter
from des4.models.heads.projection import Projection
from des4.models.memory import TargetFigures
from des4.models.training.ema import warm_momentum
from des4.types import IGNORE, Bands, Batch, ConfigError, Mix

NAMES = list(METHODS)
HEADED = [case for case in product(METHODS, ("linear", "prototype")) if case != ("des4", "linear")]
Make = Callable[..., Any]
Step = Callable[[Method, torch.optim.Optimizer, Batch], dict[str, Tensor]]


def train_step(method: Method, optimiser: torch.optim.Optimizer, batch: Batch) -> dict[str, Tensor]:
    terms = method(method.prepared(batch))
    torch.stack(list(terms.values())).sum().backward()
    optimiser.step()
    optimiser.zero_grad()
    method.after_step()
    return {name: term.detach() for name, term in terms.items()}


def snapshot(method: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def nowhere_labeled(batch: Batch) -> Batch:
    assert batch.unlabeled
    return Batch(
        dataclasses.replace(batch.labeled, label=torch.full_like(batch.labeled.label, IGNORE)),
        dataclasses.replace(batch.unlabeled, valid=torch.zeros_like(batch.unlabeled.valid)),
    )


@pytest.mark.parametrize("name", [name for name in NAMES if "labels_alone" in METHODS[name].Config.model_fields])
def test_a_part_on_labels_alone_needs_no_unlabeled_image(name: str, make_method: Make, make_batch: Make) -> None:
    method = make_method(name, labels_alone=0.5)
    twin = copy.deepcopy(method)
    assert method.reads_unlabeled_from == 10 == method.part_starts[1]
    for number in range(10):
        batch = make_batch(number)
        terms = train_step(method, optimiser_of(method), dataclasses.replace(batch, unlabeled=None))
        assert_same(terms, train_step(twin, optimiser_of(twin), batch))
    assert_same(snapshot(method), snapshot(twin))
    with pytest.raises(AssertionError):
        method(method.prepared(Batch(make_batch().labeled)))


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].VIEWS.reads_unlabeled])
def test_methods_say_whether_they_take_something_of_neighbours(name: str, make_method: Make, make_batch: Make) -> None:
    """Without boxes: a method that does and keeps silent would be given images that are mixed with themselves alone."""
    method, batch = make_method(name, **eager(name)), make_batch(cutmix="none", images=4, group=2)
    method.step = max((0, *method.restarts))
    lone = tuple(
        dataclasses.replace(view, mix=Mix(torch.arange(4), torch.zeros_like(view.mix.box), 1))
        for view in batch.unlabeled.strong
    )
    alone = dataclasses.replace(batch, unlabeled=dataclasses.replace(batch.unlabeled, strong=lone))
    twin, differs = copy.deepcopy(method), False
    terms = method(method.prepared(batch))
    try:
        others = twin(twin.prepared(alone))
        differs = any(not torch.equal(term, others[key]) for key, term in terms.items())
    except ConfigError:  # it takes none that is alone
        differs = True
    assert differs == METHODS[name].VIEWS.neighbours


@pytest.mark.parametrize("name", NAMES)
def test_images_may_have_any_number_of_bands(
    name: str, make_setting: Make, make_batch: Make, tiny_model: ModelConfig
) -> None:
    """As satellite images do."""
    bands = Bands(numbers=(1, 2, 3, 4, 5), type="uint16", ranges=((0, 1),) * 5, mean=(0.5,) * 5, std=(0.2,) * 5)

    def wide(image: Tensor) -> Tensor:
        return torch.cat([image, image[:, :2]], 1)

    torch.manual_seed(0)
    setting = make_setting(crop=(5, 33, 33), make_segmenter=lambda head: build_segmenter(tiny_model, 4, head, bands))
    method = METHODS[name](METHODS[name].Config(**eager(name)), setting).train()
    method.step = max((0, *method.restarts))
    (labeled, unlabeled) = make_batch().both
    donor = labeled.donor and dataclasses.replace(labeled.donor, image=wide(labeled.donor.image))
    recoloured = tuple(map(wide, labeled.recoloured))
    strong = tuple(dataclasses.replace(view, image=wide(view.image)) for view in unlabeled.strong)
    batch = Batch(
        dataclasses.replace(labeled, image=wide(labeled.image), recoloured=recoloured, donor=donor),
        dataclasses.replace(unlabeled, weak=wide(unlabeled.weak), strong=strong),
    )
    assert all(term.isfinite() for term in train_step(method, optimiser_of(method), batch).values())


# ── losses ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "head"), HEADED)
def test_terms_are_finite_scalars_and_steps_keep_all_state_finite(
    name: str, head: str, make_method: Make, make_batch: Make
) -> None:
    method = make_method(name, model={"head": head}, **eager(name))
    kind = LinearClassifier if head == "linear" else PrototypeClassifier
    assert all(isinstance(segmenter.head, kind) for segmenter in method.predictors().values())
    optimiser = optimiser_of(method)
    for seed in range(2):
        terms = train_step(method, optimiser, make_batch(seed))
        assert terms
        assert all(t.shape == () and t.dtype == torch.float32 and t.isfinite() and t >= 0 for t in terms.values())
    # in a first step a memory may be empty
    assert all(term > 0 for key, term in terms.items() if key not in LATER.get(name, ()))
    assert [key for key, value in method.state_dict().items() if not value.isfinite().all()] == []
    assert method.step == 2


@pytest.mark.parametrize("name", NAMES)
def test_each_term_alone_moves_trained_networks_and_only_the_one_it_names(
    name: str, make_method: Make, make_batch: Make
) -> None:
    method = make_method(name, **eager(name))
    train_step(method, optimiser_of(method), make_batch(1))  # past the first step, where teacher = student
    trainable = {key: p for key, p in method.named_parameters() if p.requires_grad}
    for term, value in method.losses(make_batch()).items():
        gradients = torch.autograd.grad(value, list(trainable.values()), retain_graph=True, allow_unused=True)
        moved = [key for key, g in zip(trainable, gradients, strict=True) if g is not None and g.any()]
        assert moved or term in LATER.get(name, ()), term
        trained = tuple(f"{key}." for key, network in method.networks().items() if network.role != "averaged")
        assert all(key.startswith(trained) for key in moved), term
        assert term.split("/")[0] not in method.networks() or all(key.startswith(term.split("/")[0]) for key in moved)


@pytest.mark.parametrize(("name", "head"), HEADED)
def test_trainable_parameters_all_get_a_gradient_and_frozen_ones_none(
    name: str, head: str, make_method: Make, make_batch: Make
) -> None:
    method = make_method(name, model={"head": head}, **eager(name))
    train_step(method, optimiser_of(method), make_batch(1))  # past the first step, where a memory may be empty
    torch.stack(list(method.losses(make_batch()).values())).sum().backward()
    trainable = {key: p for key, p in method.named_parameters() if p.requires_grad}
    assert [key for key, p in trainable.items() if p.grad is None or not p.grad.any()] == []
    for frozen in method.FROZEN:
        module = method.get_submodule(frozen)
        assert all(not p.requires_grad and p.grad is None for p in module.parameters())
        assert not any(m.training for m in module.modules())


@pytest.mark.parametrize("name", NAMES)
def test_a_vision_transformer_takes_steps(name: str, make_method: Make, make_batch: Make) -> None:
    method = make_method(name, model={"encoder": "test_vit"}, **eager(name))
    optimiser = optimiser_of(method)
    for seed in range(2):
        terms = train_step(method, optimiser, make_batch(seed, size=49))
        assert all(term.isfinite() and term >= 0 for term in terms.values())
    assert all(term > 0 for key, term in terms.items() if key not in LATER.get(name, ()))
    torch.stack(list(method.losses(make_batch(2, size=49)).values())).sum().backward()
    trainable = {key: p for key, p in method.named_parameters() if p.requires_grad}
    assert [key for key, p in trainable.items() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_repeatable_and_draw_nothing(name: str, make_method: Make, make_batch: Make) -> None:
    method, batch = make_method(name, **eager(name)), make_batch()
    train_step(method, optimiser_of(method), make_batch(1))
    state = snapshot(method)
    torch.manual_seed(1)
    first = method.losses(batch)
    method.load_state_dict(state)
    torch.manual_seed(2)
    generator_state = torch.get_rng_state()
    assert_same(first, method.losses(batch))
    assert torch.equal(torch.get_rng_state(), generator_state)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_only_read(name: str, make_method: Make, make_batch: Make) -> None:
    method, batch = make_method(name), make_batch()
    before = copy.deepcopy(dataclasses.asdict(batch))
    train_step(method, optimiser_of(method), batch)
    torch.testing.assert_close(dataclasses.asdict(batch), before, atol=0, rtol=0)


@pytest.mark.parametrize(("name", "head"), HEADED)
def test_a_batch_without_any_label_or_valid_pixel_moves_no_weight(
    name: str, head: str, make_method: Make, make_batch: Make
) -> None:
    method, batch = make_method(name, model={"head": head}, **eager(name)), nowhere_labeled(make_batch())
    parameters = {key: p.clone() for key, p in method.named_parameters()}
    terms = train_step(method, optimiser_of(method), batch)
    assert all(term == 0 for term in terms.values())
    assert_same(parameters, {key: p.detach() for key, p in method.named_parameters()})
    assert all(value.isfinite().all() for value in method.state_dict().values())


@pytest.mark.parametrize("name", NAMES)
def test_losses_leave_eval_mode_alone(name: str, make_method: Make, make_batch: Make) -> None:
    method = make_method(name).eval()
    state = snapshot(method)
    method.losses(make_batch())
    assert not any(module.training for module in method.modules())
    assert_same(state, snapshot(method))  # no BatchNorm statistic moved either


@pytest.mark.parametrize(("name", "head"), HEADED)
def test_bfloat16_gives_nearly_the_same_float32_terms(
    name: str, head: str, make_method: Make, make_batch: Make
) -> None:
    method, batch = make_method(name, model={"head": head}, **eager(name)), make_batch()
    state = snapshot(method)
    plain = method.losses(batch)
    method.load_state_dict(state)
    with torch.autocast("cpu", torch.bfloat16):
        terms = method.losses(batch)
    method.after_step()
    assert all(term.dtype == torch.float32 for term in terms.values())
    for key, term in terms.items():
        torch.testing.assert_close(term, plain[key], atol=0.05, rtol=0.1)
    assert all(b.dtype == torch.float32 for key, b in method.named_buffers() if key.endswith("prototypes"))


# ── what a user says of every cross-entropy ──────────────────────────────────────────────────────────────────────────

SUPERVISIONS: dict[str, dict[str, float]] = {
    "logit adjustment": {"logit_adjustment": 1.0},
    "class weights": {"class_weighting": 0.5},
    "focal": {"focal_gamma": 2.0},
    "ohem": {"ohem_threshold": 0.2, "ohem_min_share": 0.5},
}


@pytest.mark.parametrize("kind", SUPERVISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_supervision_reaches_the_labels_of_any_method(
    name: str, kind: str, make_method: Make, make_batch: Make
) -> None:
    plain = make_method(name, **eager(name)).losses(make_batch())
    method = make_method(name, supervision=SUPERVISIONS[kind], **eager(name))
    found = method.losses(make_batch())
    supervised = {key for key in found if key.split("/")[-1] == "labeled"}
    if name == "des4" and kind != "logit adjustment":
        supervised -= {"teacher/labeled"}  # its pixels have weights of their own, eq. 7
    assert supervised
    assert [key for key in supervised if torch.equal(found[key], plain[key])] == []
    optimiser = optimiser_of(method)
    assert all(
        term.isfinite() for seed in range(2) for term in train_step(method, optimiser, make_batch(seed)).values()
    )
    assert snapshot(method).keys() == snapshot(make_method(name)).keys()  # a run's state is the same with it


OF_DISTRIBUTIONS = {
    "mean_teacher": {"consistency"},
    "cutmixseg": {"consistency"},
    "advsemseg": {"discriminator"},
    "cct": {"consistency"},
    "vat": {"labeled", "consistency"},  # the perturbed view shares BatchNorm with the labeled images
    "gct": {"student/correction", "peer/correction", "student/consistency", "peer/consistency", "detector"},
    "corrmatch": {"divergence", "labeled_correlation", "unlabeled_correlation"},  # what places carry over is no logit
    "pseudoseg": {"labeled_activation", "unlabeled"},
    "cmb": {"entropy"},
    "pc2seg": {"consistency"},
}
"""Terms that compare distributions as they are, of raw logits: a distribution says itself how frequent classes are."""


@pytest.mark.parametrize("name", [name for name in NAMES if name != "des4"])  # whose classifier has no bias
def test_labels_of_a_method_see_the_network_that_an_adjustment_makes(
    name: str, make_method: Make, make_batch: Make
) -> None:
    """Adjusted logits and a classifier that has the adjustment in its bias are one network, to labels of any kind."""
    adjusted = make_method(name, supervision={"logit_adjustment": 1.0}, **eager(name))
    plain = make_method(name, **eager(name))
    with torch.no_grad():
        for mine, theirs in zip(adjusted.modules(), plain.modules(), strict=True):
            if isinstance(mine, LinearClassifier):
                mine.weight.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
                theirs.weight.weight.copy_(mine.weight.weight)
                of_classes = len(mine.weight.bias) == len(adjusted.supervision.shift)
                theirs.weight.bias += (adjusted.supervision if of_classes else adjusted.sub_supervision).shift
    found, expected = adjusted.losses(make_batch()), plain.losses(make_batch())
    for term in found.keys() - OF_DISTRIBUTIONS.get(name, set()):
        torch.testing.assert_close(found[term], expected[term], atol=1e-5, rtol=1e-4, msg=lambda m, t=term: f"{t}: {m}")


# ── what no loss may see ─────────────────────────────────────────────────────────────────────────────────────────────


class PixelEncoder(nn.Module):
    """Sees every pixel on its own, at full resolution."""

    mean = std = (0.5, 0.5, 0.5)
    channels = (8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.layer(image).relu()
        return maps, maps


class PixelDecoder(nn.Module):
    dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(8, 8, 1)

    def forward(self, maps: tuple[Tensor, Tensor]) -> Tensor:
        return self.layer(maps[1])


@pytest.mark.parametrize(("name", "head"), HEADED)
def test_pixels_without_label_and_padding_change_nothing(
    name: str, head: HeadName, make_setting: Make, make_batch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_segmenter(_: HeadName) -> Segmenter:
        classifier = LinearClassifier(4, 8) if head == "linear" else PrototypeClassifier(4, 8)
        return Segmenter(PixelEncoder(), PixelDecoder(), classifier)  # type: ignore[arg-type]

    torch.manual_seed(0)
    cls = METHODS[name]
    if issubclass(cls, ProjectedTeacherStudent):  # whose projection may see neighbours as well
        monkeypatch.setattr(cls, "PROJECTION", Projection)
    method = cls(cls.Config(**eager(name)), make_setting(make_segmenter=make_segmenter)).train()
    train_step(method, optimiser_of(method), make_batch(1))
    twin = copy.deepcopy(method)

    batch = make_batch()
    un = batch.unlabeled
    assert un.strong[0].mix.box.any()
    unlabeled_pixel = (batch.labeled.label == IGNORE)[:, None]
    padding = ~un.valid[:, None]

    def spoil(image: Tensor, where: Tensor) -> Tensor:
        return torch.where(where, torch.rand_like(image), image)

    strong = tuple(dataclasses.replace(view, image=spoil(view.image, padding)) for view in un.strong)
    spoilt = Batch(
        dataclasses.replace(batch.labeled, image=spoil(batch.labeled.image, unlabeled_pixel)),
        dataclasses.replace(un, weak=spoil(un.weak, padding), strong=strong),
    )
    terms = train_step(method, optimiser_of(method), batch)
    others = train_step(twin, optimiser_of(twin), spoilt)
    torch.testing.assert_close(others, terms, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(twin.state_dict(), method.state_dict(), atol=1e-6, rtol=1e-5)
    # … whereas a visible pixel does count
    visible = dataclasses.replace(batch.labeled, image=spoil(batch.labeled.image, ~unlabeled_pixel))
    assert not torch.equal(method.losses(Batch(visible, un))[next(iter(terms))], terms[next(iter(terms))])


# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "head"), HEADED)
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(
    name: str, head: str, make_method: Make, make_batch: Make
) -> None:
    settings = {"model": {"head": head}, **eager(name)}
    method, other = make_method(name, **settings), make_method(name, **settings)
    assert_same(snapshot(method), snapshot(other))
    whole = optimiser_of(method)
    curve = [train_step(method, whole, make_batch(m)) for m in range(6)]

    first = optimiser_of(other)
    for m in range(3):
        assert_same(train_step(other, first, make_batch(m)), curve[m])
    resumed = make_method(name, seed=7, **settings)  # other weights, which the state replaces
    resumed.setting = other.setting  # of the config, hence the same in a resumed run
    resumed.load_state_dict(snapshot(other))
    second = optimiser_of(resumed)
    second.load_state_dict(first.state_dict())
    for m in range(3, 6):
        assert_same(train_step(resumed, second, make_batch(m)), curve[m])
    assert_same(snapshot(method), snapshot(resumed))


@pytest.mark.parametrize("name", NAMES)
def test_state_holds_tensors_alone_and_counts_the_steps(name: str, make_method: Make, make_batch: Make) -> None:
    method = make_method(name)
    train_step(method, optimiser_of(method), make_batch())
    state = method.state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())
    other = make_method(name)
    other.load_state_dict(state)
    assert other.step == 1


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].FROZEN or name == "des4"])
def test_what_follows_the_student_is_its_exact_average(name: str, make_method: Make, make_batch: Make) -> None:
    method = make_method(name, **eager(name))
    method.step = 5
    optimiser = optimiser_of(method)
    torch.stack(list(method(make_batch()).values())).sum().backward()
    optimiser.step()
    before = snapshot(method)
    method.after_step()
    after, momentum = method.state_dict(), warm_momentum(0.99, 5)
    assert momentum == 1 - 1 / 6
    followed = [key for key in after if key.startswith(tuple(f"{frozen}." for frozen in method.FROZEN))]
    assert followed
    for key in followed:
        mine, student = before[key], before[key.replace("teacher", "student", 1)]
        if "head" in key and key not in dict(method.named_parameters()):
            continue  # prototypes move by their own rule
        expected = momentum * mine + (1 - momentum) * student if mine.is_floating_point() else student
        torch.testing.assert_close(after[key], expected)
    assert any(not torch.equal(after[key], before[key]) for key in followed)


@pytest.mark.parametrize(("name", "head"), HEADED)
def test_networks_are_all_weights_there_are_and_roles_say_what_moves_them(
    name: str, head: str, make_method: Make
) -> None:
    method = make_method(name, model={"head": head})
    networks = method.networks()
    assert {id(p) for network in networks.values() for p in network.module.parameters()} == {
        id(p) for p in method.parameters()
    }
    for key, network in networks.items():
        assert network.module is method.get_submodule(key)
        trained = any(p.requires_grad for p in network.module.parameters())
        assert (network.role != "averaged") == trained, key
        assert (network.role == "critic") == (network.lr is not None), key
        assert not any(isinstance(part, nn.ModuleList) for part in network.parts)  # parts run by themselves
        assert trained or key.split(".")[0] in method.FROZEN
    modules = [network.module for network in networks.values()]
    assert all(predictor in modules for predictor in method.predictors().values())


# ── what is reported ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", NAMES)
def test_predictors_are_the_methods_own_segmenters(name: str, make_method: Make, make_batch: Make) -> None:
    method = make_method(name)
    predictors = method.predictors()
    modules = set(method.modules())
    for segmenter in predictors.values():
        assert isinstance(segmenter, Segmenter)
        assert segmenter in modules
        assert segmenter(make_batch().labeled.image).shape == (2, 4, 9, 9)
        # A checkpoint holds the method's state, and a predictor is built from its part of it.
        (place,) = (known for known, module in method.named_modules() if module is segmenter)
        state = {key for key in method.state_dict() if key.startswith(f"{place}.")}
        assert state == {f"{place}.{key}" for key in segmenter.state_dict()}


@pytest.mark.parametrize("name", NAMES)
def test_stats_are_detached_numbers(name: str, make_method: Make, make_batch: Make) -> None:
    method = make_method(name)
    train_step(method, optimiser_of(method), make_batch())
    for value in method.stats().values():
        assert value.shape == ()
        assert value.isfinite()
        assert not value.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_the_declaration_is_complete(name: str, make_method: Make, make_batch: Make) -> None:
    cls, method = METHODS[name], make_method(name)
    assert cls.Config.model_fields["name"].default == name
    assert 0 <= method.threshold <= 1
    assert isinstance(cls.WAITS, bool)
    for frozen in method.FROZEN:
        method.get_submodule(frozen)
    if not cls.VIEWS.reads_unlabeled:
        assert method.losses(Batch(make_batch().labeled))
    assert cls.__module__ == f"des4.methods.{name}"
    assert cls.__doc__
    with pytest.raises(ValueError, match="no_such_setting"):
        cls.Config(no_such_setting=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_on_eight_images(name: str, make_method: Make, make_batch: Make) -> None:
    method, batch = make_method(name), make_batch(images=8)
    optimiser = optimiser_of(method)

    def scores() -> dict[str, float]:
        method.eval()
        with torch.no_grad():
            found = {
                key: cross_entropy(segmenter(batch.labeled.image), batch.labeled.label).item()
                for key, segmenter in method.predictors().items()
            }
        method.train()
        return found

    steps = 60 if name == "cps" else 25  # fresh networks first teach each other what neither knows
    before, curve = scores(), [train_step(method, optimiser, batch) for _ in range(steps)]
    after = scores()
    assert all(after[key] < before[key] for key in before)
    supervised = [key for key in curve[0] if key.split("/")[-1] == "labeled"]
    assert supervised
    for key in supervised:
        values = [terms[key] for terms in curve if key in terms]  # some are of a first, short part of the run alone
        assert values[-1] < (0.9 if len(values) == steps else 0.98) * values[0]


# ── what is watched, and an oracle ───────────────────────────────────────────────────────────────────────────────────

WITH_TARGETS = [name for name in NAMES if METHODS[name].VIEWS.reads_unlabeled]
CHOOSE = {
    "u2pl": "no threshold refuses a label, but of the least certain pixels a share is refused",
    "dars": "of each class the surest pixels are kept, as many as its share of the labeled ones says",
    "pseudoseg": "a rectangle is cut out of strong views, and teaches nothing",
}
"""Methods some of whose labels count for nothing although no threshold refuses any, and why."""
CHOOSE_TRUTH = {"dars", "pseudoseg"}
"""Methods that choose among true labels as well. So does AdvSemSeg, but a fresh discriminator believes everything."""


def seen_twice(method: Method, batch: Batch) -> TargetFigures:
    """The figures of a second step; a method that chooses by what it has seen may choose nothing in a first one."""
    half = method.setting.total_steps // 2
    method.step = max((half, *method.restarts))  # whatever begins later has begun
    optimiser = optimiser_of(method)
    train_step(method, optimiser, batch)
    method.tally.take()
    terms = train_step(method, optimiser, batch)
    assert all(term.isfinite() for term in terms.values())
    figures = method.tally.take()
    assert figures is not None
    return figures


@pytest.mark.parametrize("name", WITH_TARGETS)
def test_the_targets_of_every_method_are_counted(name: str, make_method: Make, make_batch: Make) -> None:
    method = make_method(name, **eager(name))
    before = snapshot(method)
    figures = seen_twice(method, make_batch())
    assert sum(figures.shares) == pytest.approx(1)
    assert 0.25 < figures.confidence < 1
    assert 0.2 < figures.kept < 1 if name in CHOOSE else figures.kept == 1
    assert 0 < figures.agreement <= 1
    assert snapshot(method).keys() == before.keys()
    assert method.tally.take() is None


@pytest.mark.parametrize("name", WITH_TARGETS)
def test_an_oracle_takes_the_place_of_every_target(name: str, make_method: Make, make_batch: Make) -> None:
    method, batch = make_method(name), make_batch(cutmix="none", size=32)
    colours = batch.unlabeled.weak.argmax(1) % 4
    truth = torch.where(batch.unlabeled.valid, colours, 0)
    told = Batch(batch.labeled, dataclasses.replace(batch.unlabeled, truth=truth))
    figures = seen_twice(method, told)
    grid = truth[:, ::31, ::31]  # its corners, at least, are on every grid
    assert figures.confidence == 1
    assert 0.2 < figures.kept < 1 if name in CHOOSE_TRUTH else figures.kept == 1
    assert {c for c, share in enumerate(figures.shares) if share} <= set(truth.unique().tolist())
    assert set(grid[batch.unlabeled.valid[:, ::31, ::31]].tolist()) <= {c for c, s in enumerate(figures.shares) if s}


def test_supervised_training_has_no_target(make_method: Make, make_batch: Make) -> None:
    method = make_method("supervised")
    train_step(method, optimiser_of(method), make_batch())
    assert method.tally.take() is None


@pytest.mark.parametrize("name", NAMES)
def test_pseudo_labels_are_measured_on_a_network_of_the_method(name: str, make_method: Make, make_batch: Make) -> None:
    method, image = make_method(name), make_batch().labeled.image
    for step in (0, method.setting.total_steps):
        method.step = step
        said, labeler = method.pseudo_labeler()
        assert said.isidentifier()
        assert {id(p) for p in labeler.parameters()} <= {id(p) for p in method.parameters()}
        with torch.no_grad():
            assert labeler.eval()(image).shape[:2] == (len(image), len(method.setting.classes))


def test_pseudo_labels_are_measured_on_the_teacher_whatever_is_the_headline(make_method: Make) -> None:
    method = make_method("des4", evaluated="student")
    assert next(iter(method.predictors())) == "student"
    assert method.pseudo_labeler() == ("teacher", method.teacher)
