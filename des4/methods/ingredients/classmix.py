"""ClassMix: pixels of some classes of one image are pasted onto another, as its labels say where they are (Olsson et
al., WACV 2021, arxiv.org/abs/2007.07936).

Olsson et al. paste ⌊n/2⌋ of n classes, so nothing of an image with one. Here it is one more, as CMB's code has it.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from des4.methods.ingredients.targets import SoftTarget, Target
from des4.ops.noise import bernoulli, uniform
from des4.types import Mix, StrongView

AnyTarget = TypeVar("AnyTarget", Target, SoftTarget)


def class_mixed(
    view: StrongView,
    target: AnyTarget,
    num_classes: int,
    keys: Tensor,
    name: str,
    p: float,
    background: int | None = None,
    first: Tensor | None = None,
) -> tuple[Tensor, AnyTarget]:
    """Paste half of the classes of its partner, and one more, onto each image, with probability `p`.

    view: its boxes are filled first, and its partners are the ones. target: of the view, mixed as it is; where it has
    distributions, their most probable classes are what is pasted. keys: (B,). name: of the draw. background: a class
    that is pasted only where there is no other. first: (C,) bool, classes that are chosen before all others; None = all
    alike. Of two classes one is pasted, not both: nothing of the image would be left. Returns images (B, bands, H, W)
    and their target. Nothing is pasted onto padding or from it, so as many pixels count as before.
    """
    partner, label, valid = view.mix.partner, target.label, target.valid
    present = classes_present(label, valid, num_classes)[partner]
    shown = present.sum(1, keepdim=True)
    if background is not None:
        present[:, background] &= shown.squeeze(1) == 1
    drawn = uniform(keys, (num_classes,), f"{name}/classes")
    if first is not None:
        drawn = drawn + ~first
    order = drawn.masked_fill(~present, torch.inf).argsort(1).argsort(1)
    pasted = torch.minimum(present.sum(1, keepdim=True) // 2 + 1, (shown - 1).clamp_min(1))
    chosen = present & (order < pasted) & bernoulli(keys, (1,), f"{name}/whether", p)
    box = chosen.gather(1, label[partner].flatten(1)).view_as(valid) & valid & valid[partner]
    mixed = StrongView(view.mixed, Mix(partner, box, view.mix.group), target.pixels)
    return mixed.mixed, target.mixed(mixed)


def classes_present(label: Tensor, where: Tensor, num_classes: int) -> Tensor:
    """Which classes each image shows, (B, C) bool. label: (B, H, W). where: bool of that shape, pixels to look at."""
    counts = torch.zeros(len(label), num_classes, device=label.device)
    return counts.scatter_add_(1, label.masked_fill(~where, 0).flatten(1), where.flatten(1).float()) > 0
