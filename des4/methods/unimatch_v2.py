"""UniMatch V2: a teacher's labels for two strong views, which see complementary halves of the features.

Yang et al., TPAMI 2025, "UniMatch V2: pushing the limit of semi-supervised semantic segmentation",
github.com/LiheYoung/UniMatch-V2 (MIT, not copied). L = ½ [CE(x_l) + ½ (L_s1 + L_s2)], L_* = Σ 1[q ≥ t] CE(·, ŷ) / N,
ŷ and q those of the student's average on the weak view. Channels of the encoder's maps go to one view or to the other,
twice as large; every other image, on average, keeps all for both (there: exactly every other image of a batch).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.methods.base import Outline
from des4.methods.bases import TeacherStudent, TeacherStudentConfig
from des4.methods.ingredients.perturb import share_channels
from des4.types import Batch, ViewSpec


class UniMatchV2Config(TeacherStudentConfig):
    """Settings of UniMatch V2; the defaults are those published for all data sets."""

    name: Literal["unimatch_v2"] = "unimatch_v2"
    momentum: float = Field(0.996, ge=0, lt=1)
    """Of the teacher's moving average, per step; it starts warm, at min(1 - 1/(t + 1), `momentum`)."""
    threshold: float = Field(0.95, ge=0, le=1)
    """t, confidence a pseudo-label needs."""
    strong_weight: float = Field(0.5, ge=0)
    """Of each of the two strong views."""
    whole: float = Field(0.5, ge=0, le=1)
    """Probability with which an image keeps all channels in both views."""


class UniMatchV2(TeacherStudent):
    """A student and its average; two strong views that share the channels among themselves."""

    Config = UniMatchV2Config
    config: UniMatchV2Config
    VIEWS = ViewSpec(strong=2, cutmix="unimatch", photometric="unimatch")
    OUTLINE = Outline("student", "moving average of all", "two mixed views, which share channels")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Half the labeled cross-entropy, and half of two against the labels of the teacher."""
        labeled, unlabeled = batch.both
        config, student, views = self.config, self.student, unlabeled.strong
        with torch.no_grad():
            target = self.pseudo_labels(self.teacher(unlabeled.weak), unlabeled)
        counts = [len(labeled.image), *(len(view.image) for view in views)]
        maps, side = student.encode_with_side(torch.cat([labeled.image, *(view.mixed for view in views)]))
        known, first, second = zip(*(torch.split(each, counts) for each in maps), strict=True)
        first, second = share_channels((first, second), unlabeled.keys, "shared channels", config.whole)
        features = student.decoder(tuple(torch.cat(each) for each in zip(known, first, second, strict=True)))
        clean, *strong = torch.split(features, counts)
        self.note(kept=target.share_kept())
        return {
            "labeled": 0.5 * self.supervise(self.labeled_logits(clean, labeled), labeled, side),
            **{
                f"strong{n}": 0.5 * config.strong_weight * target.mixed(view).cross_entropy(student.head(seen))
                for n, (view, seen) in enumerate(zip(views, strong, strict=True), 1)
            },
        }
