import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from des4.engine import OptimConfig, build_optimiser
from des4.engine.cost import (
    Flops,
    Memory,
    fewest_parts,
    memory,
    parts_of_run,
    run_cost,
    step_cost,
)
from des4.engine.parts import split
from des4.methods import METHODS
from des4.methods.base import Network
from des4.types import Batch, Labeled

IMAGES = 2
BATCH = Batch(Labeled(torch.rand(IMAGES, 3, 8, 8), torch.zeros(IMAGES, 8, 8, dtype=torch.int64), torch.arange(IMAGES)))


class Layers(nn.Module):
    """A first layer, which wants no gradient of the image, and others behind it; cut: detaches what goes into them."""

    def __init__(self, *others, cut=False, frozen=False):
        super().__init__()
        self.first, self.others, self.cut = nn.Conv2d(3, 4, 3), nn.Sequential(*others), cut
        self.requires_grad_(not frozen)
        self.scale = nn.Parameter(torch.ones(()))

    WAITS = False

    def prepared(self, batch):
        return batch

    def forward(self, batch):
        inside = self.first(batch.labeled.image)
        return {"loss": self.scale * self.others(inside.detach() if self.cut else inside).square().mean()}


FIRST = 2 * IMAGES * (6 * 6 * 4) * (3 * 3 * 3)  # multiply-adds count as two; 3×3 kernel over 3 channels, 6×6 outputs


def test_the_first_layer_costs_twice_its_forward_pass():
    assert step_cost(Layers(), BATCH).flops == Flops(0, FIRST, FIRST)


def test_a_method_that_asks_for_values_is_counted_by_computing():
    class Asking(Layers):
        WAITS = True

        def forward(self, batch):
            (loss,) = super().forward(batch).values()
            return {"loss": loss * (1.0 if loss.item() > 0 else 0.5)}

    method = Asking(nn.Conv2d(4, 5, 1))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    found, expected = step_cost(method, BATCH), step_cost(Layers(nn.Conv2d(4, 5, 1)), BATCH)
    assert found.flops == expected.flops
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())


@pytest.mark.parametrize(
    ("layer", "flops"),
    [
        (nn.Conv2d(4, 5, 1), 2 * IMAGES * (6 * 6 * 5) * 4),
        (nn.Conv2d(4, 4, 3, groups=4), 2 * IMAGES * (4 * 4 * 4) * 9),
        (nn.Conv2d(4, 8, 3, stride=2, groups=2), 2 * IMAGES * (2 * 2 * 8) * (2 * 9)),
        (nn.ConvTranspose2d(4, 2, 2, stride=2), 2 * IMAGES * (6 * 6 * 4) * (2 * 4)),
        (nn.Linear(6, 7), 2 * IMAGES * (4 * 6) * 7 * 6),
    ],
    ids=["pointwise", "depthwise", "grouped", "transposed", "linear"],
)
def test_other_layers_cost_three_times_theirs(layer, flops):
    assert step_cost(Layers(layer), BATCH).flops == Flops(0, FIRST + flops, FIRST + 2 * flops)


def test_what_is_cut_off_or_frozen_costs_less():
    second = 2 * IMAGES * (6 * 6 * 5) * 4
    assert step_cost(Layers(nn.Conv2d(4, 5, 1), cut=True), BATCH).flops == Flops(0, FIRST + second, second)
    assert step_cost(Layers(nn.Conv2d(4, 5, 1), frozen=True), BATCH).flops == Flops(FIRST + second, 0, 0)


@pytest.mark.parametrize("name", ["mean_teacher", "des4"])
def test_without_grouped_convolutions_torch_counts_the_same(name, make_method, make_batch):
    method, batch = make_method(name, model={"encoder": "test_resnet"}), make_batch()
    flops = step_cost(method, batch).flops
    with FlopCounterMode(display=False) as forward:
        terms = method(batch)
    with FlopCounterMode(display=False) as backward:
        torch.stack(list(terms.values())).sum().backward()
    assert flops.plain + flops.forward == forward.get_total_flops()
    assert flops.backward == backward.get_total_flops()


def test_des4_beyond_the_mean_teacher(make_method, make_batch):
    """Its teacher sees the labeled images too: an encoder's forward pass, and a decoder's with a gradient."""
    batch = make_batch()
    methods = {name: make_method(name, model={"head": "prototype"}) for name in ("cutmixseg", "des4")}
    ours, theirs = (step_cost(methods[name], batch).flops for name in ("des4", "cutmixseg"))
    teacher = methods["des4"].teacher.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as encoder:
        maps = teacher.encode(batch.labeled.image)
    with torch.no_grad(), FlopCounterMode(display=False) as decoder:
        teacher.head(teacher.decoder(maps))
    assert ours.plain - theirs.plain == encoder.get_total_flops()
    assert ours.forward - theirs.forward == decoder.get_total_flops()
    assert decoder.get_total_flops() < ours.backward - theirs.backward < 2 * decoder.get_total_flops()


def test_activations_computed_again_cost_another_forward_pass_and_less_memory(make_method, make_batch):
    batch = make_batch()
    plain = step_cost(make_method("supervised"), batch)
    again = step_cost(make_method("supervised", model={"checkpointing": True}), batch)
    assert again.flops.forward == plain.flops.forward
    assert plain.flops.backward < again.flops.backward <= plain.flops.backward + plain.flops.forward
    assert again.kept_bytes < plain.kept_bytes


@pytest.mark.parametrize("name", METHODS)
def test_memory_is_that_of_a_real_pass_and_the_method_stays_as_it_was(name, make_method, make_batch):
    method, batch = make_method(name), make_batch()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    counted = step_cost(method, batch).kept_bytes
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())

    parameters = {parameter.data_ptr() for parameter in method.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        terms = method(batch)
    assert terms and counted == sum(storage.nbytes() for storage in kept.values())


def test_half_precision_keeps_less_and_computes_as_much(make_method, make_batch):
    method, batch = make_method("des4"), make_batch()
    full, half = step_cost(method, batch), step_cost(method, batch, "bf16")
    assert half.flops == full.flops
    assert half.kept_bytes < 0.9 * full.kept_bytes


def test_memory_of_weights_gradients_and_moments():
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1).requires_grad_(False))
    trained, frozen, buffers = 4 * (6 + 2 + 2 + 2), 4 * (2 + 1), 4 * (2 + 2) + 8
    network.networks = lambda: {"network": Network(network, "trained")}
    optimiser = build_optimiser(network, OptimConfig(lr=0.1, momentum=0.9), 1)
    held = memory(network, optimiser, kept_bytes=100)
    assert held == Memory(trained + frozen + buffers, trained, trained, 100)
    assert held.total == 3 * trained + frozen + buffers + 100


def test_parts_of_a_run_are_counted_one_by_one(make_method, make_batch):
    method, batch = make_method("des4_committee"), make_batch(images=4, group=2)
    total, second = method.setting.total_steps, method.restarts[0]
    assert parts_of_run(method) == ((0, second / total), (second, 1 - second / total))
    assert parts_of_run(make_method("des4")) == ((0, 1.0),)
    (_, one), (_, two) = run_cost(method, batch)
    assert method.step == 0
    assert (one.flops.plain == 0) and two.flops.plain > 0  # the committee is asked in the second part alone
    trained = sum(parameter.nbytes for parameter in method.parameters() if parameter.requires_grad)
    most = 1.25 * (2 * trained + max(one.kept_bytes, two.kept_bytes))
    least = 1.25 * (2 * trained + min(one.kept_bytes, two.kept_bytes))
    assert one.kept_bytes != two.kept_bytes
    assert fewest_parts(method, batch, most, "fp32", 1) == 1
    assert fewest_parts(method, batch, least, "fp32", 1) == 2


def test_a_batch_is_split_until_it_fits(make_method, make_batch):
    method, batch = make_method("des4"), make_batch(images=4, group=2)
    trained = sum(parameter.nbytes for parameter in method.parameters() if parameter.requires_grad)

    def needed(parts, num_moments=1):
        """Bytes at which so many parts fit, and one part fewer does not."""
        return 1.25 * ((1 + num_moments) * trained + step_cost(method, split(batch, parts)[0]).kept_bytes)

    whole, halves = needed(1), needed(2)
    assert whole > halves
    assert fewest_parts(method, batch, whole, "fp32", 1) == 1
    assert fewest_parts(method, batch, halves, "fp32", 1) == 2
    assert fewest_parts(method, batch, None, "fp32", 1) == 1
    assert fewest_parts(method, batch, 0, "fp32", 1) == 2  # and the training says that it does not fit
    assert fewest_parts(method, batch, whole, "fp32", 2) == 2
    assert fewest_parts(method, batch, needed(1, 2), "fp32", 2) == 1
    assert fewest_parts(method, batch, needed(1, 0), "fp32", 1, shards=2) == 1  # two halves of gradients and moments


def test_a_critic_keeps_its_own_two_moments_whatever_the_optimiser_of_the_others(make_method, make_batch):
    method, batch = make_method("advsemseg"), make_batch(images=4, group=2)
    held = 0
    for network in method.networks().values():
        trained = sum(p.nbytes for p in network.module.parameters() if p.requires_grad)
        held += (1 + 2 if network.role == "critic" else 1) * trained
    whole = 1.25 * (held + max(cost.kept_bytes for _, cost in run_cost(method, split(batch, 1)[0])))
    assert fewest_parts(method, batch, whole, "fp32", 0) == 1
    assert fewest_parts(method, batch, whole - 1, "fp32", 0) == 2
