"""Does a network's classifier use what its features hold? Other classifiers on the frozen features of a run.

The labeled images go through the network once, whole, as they do when it is scored. On their features, on its grid:
- `linear`: softmax regression, by L-BFGS on standardised features; and the same with pixels weighted by
  (share of their class)^-½, so that rare classes count for more;
- `LDA`: Fisher's discriminant: class means, one covariance within all classes, shares of the classes as prior;
- the network's own classifier, and the same with t · log(share of the class) taken off its logits.
Each then takes the place of the classifier, and is scored on the validation list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from des4 import build
from des4.config import Overrides, RunConfig, load_config
from des4.datasets import pixel_counts
from des4.engine import Checkpoints, EvalConfig, choose_device, segment_batch
from des4.engine.inference import resized
from des4.methods import METHODS
from des4.metrics import Results, confusion_matrix, tail_classes
from des4.models import Segmenter
from des4.ops.pixels import unit
from des4.ops.prior import class_prior, class_weights
from des4.ops.resize import shrink_label
from des4.runlog import RunFolder
from des4.training import cautions
from des4.types import ConfigError, Dataset, RunError

OWN = "its own"
LOWERED = (0.25, 0.5, 1.0)
"""Values of t."""
PIXELS = 2**18
"""Pixels of the labeled images that classifiers are fitted on, at most; drawn evenly over the images, seed 0."""
RIDGE = 1e-3
"""Part of the mean variance that LDA adds to each, so that its covariance can be inverted."""
DECAY = 1e-4
"""Weight of ½·|W|² in softmax regression, of standardised features."""
ITERATIONS = 100
"""Of L-BFGS."""
NEVER = -1e4
"""Logit of a class without a labeled pixel; minus infinity would spread over its neighbours when maps are resized."""
SEEDS_DO = 0.01
"""mIoU by which two seeds of one training may differ; smaller gaps say nothing."""

Walk = Callable[[Iterable[str]], Iterable[str]]


@dataclass(frozen=True)
class Probe:
    """What came of it. model, step: whose features these are. labeled, pixels: that classifiers were fitted on.

    val: images that they were scored on. heads: name → figures, the network's own first. caution: what has to be known
    of these figures.
    """

    model: str
    step: int
    labeled: int
    pixels: int
    val: int
    heads: Mapping[str, Results]
    caution: str = ""

    @property
    def best(self) -> str:
        """The classifier with the highest mIoU; the network's own if none has a higher one."""
        return max(self.heads, key=lambda name: self.heads[name].miou)

    def verdict(self) -> list[str]:
        """What it says, and what was chosen on what."""
        own, best = self.heads[OWN], self.heads[self.best]
        fitted = (
            f"Fitted on {self.labeled} labeled images ({self.pixels:,} pixels) with the {self.model}'s features as "
            f"they were at step {self.step}; scored on {self.val} val images."
        )
        gap = best.miou - own.miou
        if self.best == OWN or gap < SEEDS_DO:
            return [fitted, "No other classifier gets a point of mIoU more out of the features than the network's own."]
        return [
            fitted,
            f"{self.best} gets {100 * gap:.1f} points of mIoU more out of the same features than the network's own "
            f"classifier. It is the best of {len(self.heads)}, chosen on the val images that it is scored on, so the "
            "gap flatters it.",
        ]

    def as_data(self) -> dict[str, Any]:
        """All of it, as JSON holds it: what is undefined is null."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: plain(one) for key, one in value.items()}
            return None if math.isnan(value) else value

        return {
            "model": self.model,
            "step": self.step,
            "fitted_on": {"labeled": self.labeled, "pixels": self.pixels},
            "scored_on": {"val": self.val},
            "best": {"head": self.best, "chosen_on": "val"},
            "caution": self.caution or None,
            "heads": {
                name: {key: plain(getattr(results, key)) for key in ("miou", "tail_miou", "pixel_accuracy", "iou")}
                for name, results in self.heads.items()
            },
        }


def probe(run_dir: str | Path, model: str | None = None, overrides: Overrides = (), *, progress: Walk = iter) -> Probe:
    """Fit and score other classifiers on the features of a run's newest checkpoint.

    model: `teacher`, `student`, …; None = the headline. overrides: of `data` and `eval`, such as `data.val=LIST`.
    progress: walks over image ids, those of the labeled images and then of the val images.
    Raises ConfigError, DataError, or RunError for a run without a checkpoint.
    """
    run = RunFolder.open(run_dir)
    own = load_config(run.config())
    config = load_config(own, overrides)
    if config.model_copy(update={"data": own.data, "eval": own.eval}) != own:
        raise ConfigError("a probe reads data.* and eval.* alone; leave the other settings out")
    data = build.dataset(config)
    counts = pixel_counts(data, data.labeled)
    said: list[str] = []
    name, step, segmenter = _load(run, config, data, counts, model, said.append)
    device = choose_device(config.train.device)
    segmenter = segmenter.to(device).eval()
    features, labels = pixels_of(segmenter, data, data.labeled, config.eval, device, progress)
    heads = fit_heads(segmenter.head, features, labels, counts)
    tail = tuple(data.classes[index] for index in tail_classes(counts))
    scores = score(segmenter, heads, data, data.val, config.eval, device, tail, progress)
    caution = "; ".join(filter(None, [*said, cautions(config.train.oracle, len(data.val))]))
    return Probe(name, step, len(data.labeled), len(labels), len(data.val), scores, caution)


def _load(
    run: RunFolder,
    config: RunConfig,
    data: Dataset,
    counts: Tensor,
    model: str | None,
    say: Callable[[str], object],
) -> tuple[str, int, Segmenter]:
    """Take a network out of the newest checkpoint: its name, the step, and itself. say: told of damaged ones."""
    bare = config.model_copy(update={"model": config.model.model_copy(update={"weights": "none"})})
    reads = METHODS[config.method.name].VIEWS.reads_unlabeled
    steps = config.train.total_steps(len(data.labeled), len(data.unlabeled), reads)
    method = build.method(bare, data, counts, steps)
    networks = method.predictors()
    name = next(iter(networks)) if model is None else model
    if name not in networks:
        raise ConfigError(f"--model {name}: this run has {' and '.join(networks)}")
    checkpoint = Checkpoints(run.checkpoints).load(say)
    if checkpoint is None:
        raise RunError(f"{run.checkpoints} holds no checkpoint, and a probe takes the network out of one")
    state = {path.removeprefix("method/"): t for path, t in checkpoint.tensors.items() if path.startswith("method/")}
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise RunError(f"checkpoint {checkpoint.step} of {run.path} does not fit its config: {reason}") from error
    return name, checkpoint.step, networks[name]


@torch.inference_mode()
def pixels_of(
    segmenter: Segmenter,
    data: Dataset,
    ids: Sequence[str],
    config: EvalConfig,
    device: torch.device,
    progress: Walk = iter,
) -> tuple[Tensor, Tensor]:
    """Features (N, D) and labels (N,) of labeled pixels on the network's grid, at most PIXELS, evenly over the images.

    On the device of the network. Raises DataError.
    """
    share, generator = max(1, PIXELS // len(ids)), torch.Generator().manual_seed(0)
    features, labels = [], []
    for sample_id in progress(ids):
        image = resized(unit(data.image(sample_id).to(device))[None], config.resize)
        maps = segmenter.features(image)[0].float()
        label = shrink_label(data.label(sample_id)[None], (maps.shape[-2], maps.shape[-1])).flatten().long()
        known = (label < len(data.classes)).nonzero()[:, 0]
        chosen = known[torch.randperm(len(known), generator=generator)[:share]]
        features.append(maps.flatten(1).T[chosen.to(device)])
        labels.append(label[chosen].to(device))
    return torch.cat(features), torch.cat(labels)


def fit_heads(own: nn.Module, features: Tensor, labels: Tensor, counts: Tensor) -> dict[str, nn.Module]:
    """The classifiers by name, the network's own first. counts: (C,) labeled pixels of each class."""
    prior = class_prior(counts)
    heads: dict[str, nn.Module] = {OWN: own}
    for t in LOWERED:
        heads[f"{OWN} - {t:g} log share"] = LoweredHead(own, (t * prior.log()).to(features.device))
    heads["linear"] = AffineHead(*softmax_regression(features, labels, counts))
    heads["linear, classes weighted by share^-½"] = AffineHead(*softmax_regression(features, labels, counts, power=0.5))
    heads["LDA"] = AffineHead(*discriminant(features, labels, counts))
    return heads


def discriminant(features: Tensor, labels: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Fisher's linear discriminant: weights (C, D) and biases (C,) of its logits.

    w_c = Σ⁻¹ μ_c and b_c = log π_c - ½ μ_cᵀ Σ⁻¹ μ_c, with the mean μ_c and the share π_c of class c, and the
    covariance Σ within all classes, over N pixels. features: (N, D). labels: (N,). counts: (C,), for the shares.
    """
    wide, num_classes = features.double(), len(counts)
    number = torch.bincount(labels, minlength=num_classes)
    sums = wide.new_zeros(num_classes, wide.shape[1]).index_add_(0, labels, wide)
    means = sums / number.clamp_min(1)[:, None]
    centred = wide - means[labels]
    within = centred.T @ centred / len(wide)
    within += RIDGE * within.diagonal().mean() * torch.eye(len(within), dtype=within.dtype, device=within.device)
    weight = torch.linalg.solve(within, means.T).T
    bias = class_prior(counts).to(weight).log() - 0.5 * (weight * means).sum(1)
    return _without_absent(weight, bias, number)


def softmax_regression(features: Tensor, labels: Tensor, counts: Tensor, power: float = 0.0) -> tuple[Tensor, Tensor]:
    """Weights (C, D) and biases (C,) of the least mean cross-entropy, with a little weight decay.

    features: (N, D). labels: (N,). counts: (C,). power: pixels weigh (share of their class)^-power.
    """
    labels = labels.clone()  # inference tensors take part in no backward pass
    mean, scale = features.mean(0), features.std(0).clamp_min(1e-6)
    seen, weights = (features - mean) / scale, class_weights(counts, power).to(features.device)
    weight = torch.zeros(len(counts), features.shape[1], device=features.device, requires_grad=True)
    bias = torch.zeros(len(counts), device=features.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(seen @ weight.T + bias, labels, weights) + 0.5 * DECAY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    weight, bias = weight.detach() / scale, bias.detach()
    return _without_absent(weight, bias - weight @ mean, torch.bincount(labels, minlength=len(counts)))


def _without_absent(weight: Tensor, bias: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Let classes without a pixel never win. number: (C,) pixels of each."""
    absent = number == 0
    return weight.masked_fill(absent[:, None], 0).float(), bias.masked_fill(absent, NEVER).float()


@torch.inference_mode()
def score(
    segmenter: Segmenter,
    heads: Mapping[str, nn.Module],
    data: Dataset,
    ids: Sequence[str],
    config: EvalConfig,
    device: torch.device,
    tail: tuple[str, ...],
    progress: Walk = iter,
) -> dict[str, Results]:
    """Score every classifier on labeled images, as an evaluation does; features are computed once. Raises DataError.

    tail: names of the rare classes.
    """
    network, count = ManyHeads(segmenter, heads.values()), len(data.classes)
    confusions = torch.zeros(len(heads), count, count, dtype=torch.int64)
    for sample_id in progress(ids):
        image, label = unit(data.image(sample_id).to(device))[None], data.label(sample_id)
        predictions = segment_batch(network, image, config).argmax(1).cpu()
        confusions += torch.stack([confusion_matrix(label, prediction, count) for prediction in predictions])
    return {name: Results(one, tuple(data.classes), tail) for name, one in zip(heads, confusions, strict=True)}


class AffineHead(nn.Module):
    """Features (B, D, h, w) to logits (B, C, h, w). weight: (C, D). bias: (C,)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        return F.conv2d(features.float(), self.weight[:, :, None, None], self.bias)


class LoweredHead(nn.Module):
    """A classifier whose logits are lowered, each class's by its own number. shift: (C,)."""

    shift: Tensor

    def __init__(self, head: nn.Module, shift: Tensor) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("shift", shift)

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        return self.head(features).float() - self.shift[:, None, None]  # type: ignore[no-any-return]


class ManyHeads(nn.Module):
    """One image to the logits of many classifiers on its features, as if they were those of many images."""

    def __init__(self, segmenter: Segmenter, heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.segmenter, self.heads = segmenter, nn.ModuleList(heads)

    def forward(self, image: Tensor) -> Tensor:
        """(1, bands, H, W) to (heads, C, h, w)."""
        features = self.segmenter.features(image)
        return torch.cat([head(features).float() for head in self.heads])
