"""One process against two: every method, the same data order, losses, weights, prototypes and figures."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from eager import eager
from torch import Tensor, nn

from des4.data import Loader, ViewsConfig
from des4.datasets import Scenes, ScenesConfig
from des4.engine import Checkpoints, EvalConfig, Evaluator, OptimConfig, TrainStep, build_optimiser
from des4.engine.checkpoint import optimiser_state, restore_optimiser
from des4.engine.distributed import agree, average_statistics, on_first
from des4.engine.sharding import gather_whole, moments_in_shards, own_moments, shard_weights, spread, whole_weights
from des4.methods import METHODS, Method, Setting, SupervisionConfig
from des4.models import HeadName, ModelConfig, Segmenter, TargetTally, build_segmenter, synchronise_norms
from des4.models.memory import PrototypeFeed, ShareAlignment
from des4.ops.reduce import gather_over_ranks, num_ranks, share, sum_over_ranks, this_rank
from des4.types import DataError, RunError, UserError

CPU = torch.device("cpu")
STEPS = 4
DATA = Scenes(ScenesConfig(labeled=6, unlabeled=10, val=5, size=48))
MODEL = ModelConfig(encoder="test_efficientnet", weights="none", channels=16, low_channels=8, embedding_dim=12,
                    temperature=0.5)  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, eager(name)) for name in METHODS},
    "u2pl": ("u2pl", {**eager("u2pl"), "unreliable": 0.0}),  # or pixels of fresh, nearly even networks fall either way
    "des4": ("des4", {"sampling": "all"}),  # the samplers have quotas of each process, see `sampled`
    "des4, accumulated": ("des4", {"sampling": "all"}),
    "a committee, in both parts": ("des4_committee", {"labels_alone": 0.3}),
    "switches": ("mean_teacher", {"teacher_decoder": "decoupled", "auxiliary_weight": 0.4}),
}
IN_SHARDS = [*METHODS, "switches"]
"""Cases that are trained with their parameters in shards too."""
OTHERWISE: dict[str, tuple[str, dict[str, Any]]] = {
    "fixmatch, adamw, fp16": ("fixmatch", {"optim": OptimConfig(name="adamw", lr=1e-4), "precision": "fp16"}),
    "des4, bf16, accumulated": ("des4", {"precision": "bf16", "parts": 2}),
    "des4, transformer": ("des4", {"encoder": "test_vit"}),
    "switches, transformer": ("switches", {"encoder": "test_vit"}),
}
"""Name → case, and how it is trained otherwise, with its parameters in shards and without."""


QUEUE = ".queue."
"""What U2PL and CMB queue are pixels chosen by the order of numbers that in fresh networks are nearly equal."""


TOUCHY = {"u2pl": 1e-3, "vat": 1e-3, "gct": 5e-3, "corrmatch": 1e-3, "usrn": 1e-3}
"""Method → how far losses may differ, relatively, where sums are added in another order. U2PL, GCT and CorrMatch choose
pixels by what is nearly equal in fresh networks, as USRN does clusters, and VAT looks for the direction in which they
are most sensitive."""


def near_state(case: str) -> dict[str, float]:
    """How far weights may differ. GCT's detector learns by an Adam, whose steps are as long where a gradient is hardly
    more than rounding."""
    return {"atol": 2e-2 if case == "gct" else 1e-3, "rtol": 1e-2}


def build(name: str, settings: dict[str, Any], encoder: str = MODEL.encoder) -> Method:
    torch.manual_seed(0)
    model = MODEL.model_copy(update={"encoder": encoder})
    settings = dict(settings)
    supervision = SupervisionConfig(auxiliary_weight=settings.pop("auxiliary_weight", 0))

    def make_segmenter(head: HeadName) -> Segmenter:
        return build_segmenter(model, len(DATA.classes), head)

    setting = Setting(
        classes=DATA.classes,
        pixel_counts=torch.linspace(9000, 100, len(DATA.classes)).long(),
        total_steps=STEPS,
        num_labeled=len(DATA.labeled),
        num_unlabeled=len(DATA.unlabeled),
        seed=0,
        make_segmenter=make_segmenter,
        supervision=supervision,
        crop=(3, 33, 33),
    )
    cls = METHODS[name]
    return cls(cls.Config(**settings), setting).train()


def loader(method: Method, ranks: int) -> Loader:
    return Loader(
        DATA, ViewsConfig(crop_size=33), method.VIEWS, labeled_batch=8 // ranks, unlabeled_batch=8 // ranks,
        mix_group=2, seed=0, workers=0, fill=(0.5, 0.5, 0.5), rank=this_rank(), ranks=ranks,
    )  # fmt: skip


def train(
    name: str,
    settings: dict[str, Any],
    *,
    parts: int = 1,
    shard: bool = False,
    optim: OptimConfig = OptimConfig(lr=3e-4, clip=5.0),  # noqa: B008  # it is immutable
    precision: Any = "fp32",
    encoder: str = MODEL.encoder,
) -> dict[str, Any]:
    """Score the networks as they are built, then train on this process's share; return what was seen and became."""
    method = build(name, settings, encoder)
    synchronise_norms(method)
    if shard:
        shard_weights(method)
    found: dict[str, Any] = {"losses": [], "ids": []}
    with whole_weights(method):
        evaluation = Evaluator(DATA, DATA.val, EvalConfig(), CPU)(method.predictors())
    found["confusion"] = {model: results.confusion for model, results in evaluation.results.items()}
    found["image_miou"] = evaluation.image_miou
    step = TrainStep(method, build_optimiser(method, optim, 8), CPU, parts=parts, precision=precision)
    for batch in islice(loader(method, num_ranks()).batches(), STEPS):
        outcome = step(batch)
        (loss,) = sum_over_ranks(torch.stack(list(outcome.terms.values())).sum())
        found["losses"].append(float(loss) / num_ranks())
        ids = batch.labeled.ids + (batch.unlabeled.ids if batch.unlabeled else ())
        found["ids"].append([i for rank in gather_over_ranks(ids) for i in rank])
    found["state"] = gather_whole(method.state_dict())
    found["trained"] = sum(parameter.numel() for parameter in step.own.values())
    return found


def sampled(parts: int) -> dict[str, Tensor]:
    """Train DeS4 with its own sampler, whose quotas are those of a part, and norms that do not see the batch.

    Two of the steps are watched; what the last of them showed is returned too.
    """
    method = build("des4", {})
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign,assignment,misc]
            module.training = False
    step = TrainStep(method, build_optimiser(method, OptimConfig(lr=1e-3), 8), CPU, parts=parts)
    feed = method.get_submodule("feed")
    assert isinstance(feed, PrototypeFeed)
    for number, batch in enumerate(islice(loader(method, num_ranks()).batches(), 5)):
        feed.watched = number in (1, 4)
        step(batch)
        if feed.watched:
            figures = feed.figures()
    assert figures is not None
    seen = figures._asdict() | {"pixels": figures.pixels.sum(1), "taken": figures.taken.sum(1)}
    seen["moved"] = figures.moved / 360  # an angle magnifies what prototypes differ by
    return method.state_dict() | {f"seen/{name}": value for name, value in seen.items()}


def resumed_in_shards(folder: Path) -> dict[str, Tensor]:
    """Train, save and go on; do so again from what was saved. Return the steps' losses, and weights and moments."""
    settings = OptimConfig(name="adamw", lr=1e-3)
    checkpoints = Checkpoints(folder)
    losses, states = [], []
    for start in (0, 2):
        method = build("des4", {})
        synchronise_norms(method)
        shard_weights(method)
        step = TrainStep(method, build_optimiser(method, settings, 8), CPU)
        parameters = dict(method.named_parameters())
        if checkpoint := checkpoints.load(print):
            kept = {name.partition("/")[2]: value for name, value in checkpoint.tensors.items() if name[0] == "m"}
            method.load_state_dict(spread(kept, method.state_dict()))
            moments = {name.partition("/")[2]: value for name, value in checkpoint.tensors.items() if name[0] == "o"}
            restore_optimiser(step.optimiser, own_moments(moments, parameters), {})
        for number, batch in enumerate(islice(loader(method, num_ranks()).batches(start), 4 - start), start + 1):
            torch.manual_seed(number)  # of dropout, as the trainer does
            losses.append(torch.stack(list(step(batch).terms.values())).sum())
            moments = moments_in_shards(optimiser_state(step.optimiser)[0], parameters)
            state = {**{f"o/{name}": value for name, value in moments.items()},
                     **{f"m/{name}": value for name, value in method.state_dict().items()}}  # fmt: skip
            whole = gather_whole(state)
            if number == 2 and start == 0:
                on_first(partial(checkpoints.save, 2, whole, {}))
        states.append(whole)
    once, again = states
    assert once.keys() == again.keys()
    return {"losses": torch.stack(losses), "differ": torch.tensor(sum(not once[n].equal(again[n]) for n in once))}


def small_pieces(rank: int) -> dict[str, Any]:
    """What the engine and the operations do with two processes."""

    def fail() -> None:
        raise DataError("no such image")

    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(float(rank))  # type: ignore[union-attr]
    norm.register_buffer("memory", torch.tensor(float(rank)))  # what is no statistic is a method's own business
    average_statistics(norm)
    try:
        on_first(fail)
    except UserError as error:
        failure = f"{type(error).__name__}: {error}"
    tally = TargetTally(2)
    label = torch.full((1, 2, 2), rank)  # the first process sees class 0, in a quarter of the confidence
    confidence, valid = torch.full((1, 2, 2), 0.2 + 0.6 * rank), label == label
    tally.collect(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2), label, confidence, valid, valid)
    tally.commit()
    kept = tally.state()
    targets = tally.take()
    tally.restore(kept)
    alignment = ShareAlignment(torch.tensor([0.5, 0.5]), 1.0, 0.99)
    seen = torch.arange(4).view(1, 2, 2) < 1 + 2 * rank  # one pixel of class 0 here, three of class 1 there
    alignment.aligned(torch.eye(2)[rank].view(1, 2, 1, 1).expand(1, 2, 2, 2), seen)
    alignment.commit()
    return {
        "alignment": alignment.shares.tolist(),
        "targets": [tuple(one) for one in (targets, tally.take()) if one],
        "agree": agree(143 if rank else 0),
        "first": on_first(lambda: "written"),
        "failure": failure,
        "gathered": gather_over_ranks({"rank": rank, "text": "é" * (5 * rank)}),
        "mean": norm.running_mean.tolist(),  # type: ignore[union-attr]
        "own": norm.get_buffer("memory").item(),
        "share": share(seen[:, :1], seen).item(),
    }


def _on_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = {
        "cases": {case: train(*CASES[case], parts=2 if "accumulated" in case else 1) for case in CASES},
        "sharded": {name: train(*CASES[name], shard=True) for name in IN_SHARDS},
        "otherwise": {
            name: [train(*CASES[case], shard=shard, **how) for shard in (False, True)]
            for name, (case, how) in OTHERWISE.items()
        },
        "sampled": sampled(1),
        "resumed": resumed_in_shards(Path(folder) / "checkpoints"),
        "pieces": small_pieces(rank),
    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(_on_rank, (str(folder),), nprocs=2)  # type: ignore[attr-defined,no-untyped-call]
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    checkpoint = Checkpoints(folder / "checkpoints").load(print)
    assert checkpoint
    return [{**rank, "checkpoint": checkpoint.tensors} for rank in found]


def _but_queues(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if QUEUE not in name}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(case: str, ranks: list[dict[str, Any]]) -> None:
    one = train(*CASES[case])
    first, second = (rank["cases"][case] for rank in ranks)
    assert [sorted(ids) for ids in first["ids"]] == [sorted(ids) for ids in one["ids"]]
    assert first["losses"] == second["losses"]
    if "accumulated" in case:  # its norms see other batches; that it is the same loss is tested in test_steps.py
        assert first["losses"][0] == pytest.approx(one["losses"][0], rel=0.1)
    else:
        near = TOUCHY.get(case, 5e-5)  # without AVX-512, des4 was apart by 1.4e-5
        assert first["losses"] == pytest.approx(one["losses"], abs=1e-5, rel=near)
        torch.testing.assert_close(_but_queues(first["state"]), _but_queues(one["state"]), **near_state(case))
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
    for name, confusion in first["confusion"].items():
        assert torch.equal(confusion, second["confusion"][name])
        assert torch.equal(confusion, one["confusion"][name])
    assert list(first["image_miou"]) == list(DATA.val)


@pytest.mark.parametrize("name", [*IN_SHARDS, *OTHERWISE])
def test_in_shards_all_is_as_it_is_whole(name: str, ranks: list[dict[str, Any]]) -> None:
    if name in OTHERWISE:
        (whole, sharded), (_, other) = (rank["otherwise"][name] for rank in ranks)
    else:
        whole, sharded, other = ranks[0]["cases"][name], *(rank["sharded"][name] for rank in ranks)
    near = 1e-2 if "16" in name else 1e-5
    assert sharded["losses"] == pytest.approx(whole["losses"], abs=near, rel=TOUCHY.get(name, 0))
    assert sharded["losses"] == other["losses"]
    assert sharded["state"].keys() == whole["state"].keys()
    if "16" not in name:
        near_weights = near_state(name) if name in TOUCHY else {"atol": 1e-4, "rtol": 1e-3}
        torch.testing.assert_close(_but_queues(sharded["state"]), _but_queues(whole["state"]), **near_weights)
    assert sharded["trained"] + other["trained"] == whole["trained"]
    assert sharded["trained"] < 0.6 * whole["trained"]
    for model, confusion in whole["confusion"].items():
        assert torch.equal(confusion, sharded["confusion"][model])


def test_a_state_in_shards_is_saved_whole_and_spread_again(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        losses = rank["resumed"]["losses"].tolist()
        assert losses[2:4] == losses[4:]
        assert rank["resumed"]["differ"] == 0
    checkpoint = ranks[0]["checkpoint"]
    like = build("des4", {})
    like.load_state_dict({name[2:]: value for name, value in checkpoint.items() if name[0] == "m"})  # on one process
    optimiser = build_optimiser(like, OptimConfig(name="adamw"), 8)
    restore_optimiser(optimiser, {name[2:]: value for name, value in checkpoint.items() if name[0] == "o"}, {})
    for parameter, state in optimiser.state.items():
        assert state["exp_avg"].shape == parameter.shape


def test_two_processes_sample_as_one_that_takes_its_batch_in_two_parts(ranks: list[dict[str, Any]]) -> None:
    one = sampled(2)
    assert one["student.head.prototypes"].isfinite().all()
    for rank in ranks:
        torch.testing.assert_close(rank["sampled"], one, atol=1e-5, rtol=1e-4, equal_nan=True)
        assert torch.equal(rank["sampled"]["seen/pixels"], one["seen/pixels"])


def test_processes_agree_wait_and_tell_each_other(ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["pieces"] for rank in ranks)
    assert first["agree"] == second["agree"] == 143
    assert (first["first"], second["first"]) == ("written", None)
    assert first["failure"] == "DataError: no such image"
    assert second["failure"] == "RunError: no such image"
    assert first["gathered"] == second["gathered"] == [{"rank": 0, "text": ""}, {"rank": 1, "text": "ééééé"}]
    assert first["mean"] == second["mean"] == [0.5, 0.5]
    assert (first["own"], second["own"]) == (0, 1)
    assert first["share"] == second["share"] == 3 / 4  # of the first row: 1 of 1 here, 2 of 3 there
    assert first["alignment"] == second["alignment"] == [0.25, 0.75]
    assert first["targets"] == second["targets"]
    now, resumed = first["targets"]
    assert now == resumed
    assert now[0] == [0.5, 0.5] and now[1] == 1  # shares, kept
    assert now[2:] == pytest.approx((0.5, 0.5))  # mean confidence, and the class that the student always says


def test_alone_nothing_is_waited_for() -> None:
    assert agree(3) == 3
    assert on_first(lambda: 5) == 5
    with pytest.raises(RunError, match="as it was"):
        on_first(_fail)


def _fail() -> Callable[[], None]:
    raise RunError("as it was")
