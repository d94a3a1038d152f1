"""A memory of each class's surest pixels, which pixels of the class are to come near to (Alonso et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.losses import mean_distance
from des4.methods.ingredients.contrast import draw_of_classes
from des4.models.memory import FeatureQueue
from des4.ops.resize import shrink_label
from des4.ops.sampling import take_places
from des4.types import IGNORE, Config, Labeled

Net = Callable[[Tensor], Tensor]


class ClassBankConfig(Config):
    """Settings of methods that remember each class's surest pixels."""

    memory_threshold: float = Field(0.95, ge=0, le=1)
    """Confidence with which the teacher is right about a labeled pixel that is remembered."""
    queue: int = Field(256, ge=1)
    """Pixels that are remembered of each class, the newest."""
    pushed: int | None = Field(None, ge=1)
    """Pixels of an image and class that are; `null`: `queue` over the number of labeled images, rounded, at least 1.
    C/3 times as many on VOC in the published code."""
    anchors: int = Field(64, ge=1)
    """Pixels of each class in an image that are held against the memory, or among which those to remember are chosen
    [ours: there all]."""


class ClassBank(nn.Module):
    """The memory, what enters it, and the distance to it. What has weights is the method's and is handed in.

    Networks work on pixels that are drawn, as images whose rows are classes: (B, D, C, k).
    """

    def __init__(self, num_classes: int, num_labeled: int, dim: int, config: ClassBankConfig) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.pushed = min(config.anchors, config.pushed or max(1, round(config.queue / num_labeled)))
        self.queue = FeatureQueue(num_classes, config.queue, dim)

    @torch.no_grad()
    def collect(self, project: Net, score: Net, features: Tensor, logits: Tensor, labeled: Labeled) -> None:
        """Remember of each image and class those of the teacher's pixels that score best.

        features: (B, D', h, w), logits: (B, C, h, w), of labeled images; pixels count that are classified rightly and
        surely. project: maps (B, D', C, k) to (B, D, C, k). score: (B, C, k, D) to (B, C, k) > 0.
        """
        label = shrink_label(labeled.label, (logits.shape[-2], logits.shape[-1]))
        confidence, said = logits.float().softmax(1).max(1)
        sure = label.masked_fill((said != label) | (confidence < self.config.memory_threshold), IGNORE)
        places, found = self._draw(sure, labeled.keys, "remembered")
        rows = project(take_places(features, places).movedim(-1, 1)).movedim(1, -1)
        best = score(rows).masked_fill(~found, -1).topk(self.pushed, -1).indices
        rows, found = rows.take_along_dim(best[..., None], 2), found.take_along_dim(best, 2)
        rows, found = rows.transpose(0, 1).flatten(1, 2), found.transpose(0, 1).flatten(1)
        self.queue.collect(rows, found, labeled.keys.repeat_interleave(self.pushed))

    def distance(
        self, embed: Net, score: Net, memory_score: Net, features: Tensor, labels: Tensor, keys: Tensor, name: str
    ) -> Tensor:
        """Mean over images and all classes of the weighted mean distance of a class's pixels to its memory; a scalar.

        features: (B, D', h, w). labels: (B, H, W), IGNORE where a pixel is of no class. embed: as `project` above.
        score, memory_score: of pixels, through which no gradient reaches them, and of what is remembered, (C, m, D). A
        class that an image lacks, or of which nothing is remembered, counts as 0. keys: (B,), name: of the draw.
        """
        memory, labels = self.queue, shrink_label(labels, (features.shape[-2], features.shape[-1]))
        places, drawn = self._draw(labels, keys, name)
        pixels = embed(take_places(features, places).movedim(-1, 1)).movedim(1, -1)
        there = torch.arange(memory.size, device=labels.device) < memory.filled[:, None]
        weights = score(pixels.detach()) * drawn, memory_score(memory.rows) * there
        return (mean_distance(pixels, memory.rows, *weights) * (drawn.any(-1) & there.any(-1))).mean()

    def _draw(self, labels: Tensor, keys: Tensor, name: str) -> tuple[Tensor, Tensor]:
        return draw_of_classes(labels, self.num_classes, self.config.anchors, keys, name)
