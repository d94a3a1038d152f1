"""Contrast of a student's pixels with what a teacher remembers of their class and of what could be taken for it."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.losses import info_nce
from des4.models.memory import ClassCentres, FeatureQueue
from des4.ops.noise import uniform
from des4.ops.sampling import spread_draw, take_places
from des4.types import Config


class PixelContrastConfig(Config):
    """Settings of methods that contrast pixels with a memory."""

    anchors: int = Field(32, ge=1)
    """Pixels of each class that are drawn in an image [ours: there 256 of each class in the 8 images on a GPU]."""
    negatives: int = Field(50, ge=1)
    """Rows of a class's queue that all its anchors in an image are held against [ours: there 50 for each anchor]."""
    pushed: int = Field(64, ge=1)
    """Pixels of an image that enter the queue of each class [ours: there all that are found]."""
    queue: int = Field(4096, ge=1)
    """Pixels that are remembered for each class [ours: there 30,000]."""
    contrast_temperature: float = Field(0.5, gt=0)
    """Divides their cosines."""


class PixelContrast(nn.Module):
    """Centres of the classes, queues of negatives, and the loss against both (U2PL, section 3.3).

    What an image draws follows from its key, and means are taken over images, so a step may be shared out in any way.
    """

    def __init__(self, num_classes: int, dim: int, config: PixelContrastConfig) -> None:
        super().__init__()
        self.num_classes, self.config = num_classes, config
        self.queue = FeatureQueue(num_classes, config.queue, dim)
        self.centres = ClassCentres(num_classes, dim)

    @torch.no_grad()
    def collect(self, features: Tensor, labels: Tensor, negative: Tensor, keys: Tensor) -> None:
        """Remember a teacher's pixels. features: (B, D, h, w). labels: (B, h, w), of pixels that are sure of theirs,
        others IGNORE. negative: (B, C, h, w) bool, where a pixel is a negative of a class. keys: (B,).
        """
        self.centres.collect(features.movedim(1, -1).flatten(0, -2), labels.flatten())
        noise = uniform(keys, (self.num_classes, self.config.pushed), "queued pixels")
        places, drawn = spread_draw(negative.flatten(2), noise)
        rows = take_places(features, places).transpose(0, 1).flatten(1, 2)
        self.queue.collect(rows, drawn.transpose(0, 1).flatten(1), keys.repeat_interleave(self.config.pushed))

    def loss(self, features: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        """Mean over images, over the classes of an image and over their drawn anchors; a scalar.

        features: (B, D, h, w) of the student. labels: (B, h, w), the class that a pixel is an anchor of, or IGNORE. A
        class counts once it has a centre and negatives.
        """
        places, drawn = draw_of_classes(labels, self.num_classes, self.config.anchors, keys, "anchors")
        negatives = self.queue.draw(uniform(keys, (self.num_classes, self.config.negatives), "negatives"))
        positive = self.centres.centres.expand(len(labels), -1, -1)
        anchors = take_places(features, places)
        loss = info_nce(anchors, positive, negatives, self.config.contrast_temperature)  # (B, C, anchors)
        drawn = drawn & (self.centres.seen & (self.queue.filled > 0))[:, None]
        of_classes = (loss * drawn).sum(-1) / drawn.sum(-1).clamp_min(1)
        return (of_classes.sum(1) / drawn.any(-1).sum(1).clamp_min(1)).mean()

    def commit(self) -> None:
        """Move centres and queues by what was collected."""
        self.centres.commit()
        self.queue.commit()


def draw_of_classes(labels: Tensor, num_classes: int, count: int, keys: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Draw pixels of each class in each image: places (B, C, count) int64, and (B, C, count) bool, which are some.

    labels: (B, h, w), IGNORE where a pixel is of no class. keys: (B,). name: of the draw. See `spread_draw`.
    """
    of_class = labels[:, None] == torch.arange(num_classes, device=labels.device)[:, None, None]
    return spread_draw(of_class.flatten(2), uniform(keys, (num_classes, count), name))
