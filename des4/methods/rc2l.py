"""RC2L, a reconstruction: the student's regions are those of its average, in shape, look and class.

Zhang et al., IJCAI 2022, "Region-level contrastive and consistency learning for semi-supervised semantic segmentation";
no code was published, and the paper's formulas were not at hand. It is of networks that predict masks; here a region is
all that one class has of an image. L = CE(x_l) + λ_m L_RMC + λ_f L_RFC + λ_c L_RCC + λ_s L_SMC, with masks m_c of the
teacher, mixed, and soft ones p_c of the student: L_RMC finds m_c among p by dice, L_RFC its mean feature among theirs,
L_RCC says which classes are there, L_SMC = 1 - dice(p_c, m_c). Nothing of this has been held against theirs.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.losses import mask_contrast, mean_over_regions, overlap, paired_info_nce, pooled, presence_loss
from des4.methods.base import Outline
from des4.methods.bases import ONE_DECODER, TeacherStudent, TeacherStudentConfig
from des4.methods.ingredients.classmix import classes_present
from des4.ops.mixing import on_features
from des4.ops.resize import on_grid
from des4.types import Batch, ViewSpec


class RC2LConfig(TeacherStudentConfig):
    """Settings of region-level contrast and consistency; all but the momentum are guesses."""

    name: Literal["rc2l"] = "rc2l"
    mask_contrast_weight: float = Field(0.1, ge=0)
    """λ_m, of finding masks."""
    feature_contrast_weight: float = Field(0.1, ge=0)
    """λ_f, of finding mean features."""
    presence_weight: float = Field(1.0, ge=0)
    """λ_c, of the classes that are there."""
    mask_weight: float = Field(1.0, ge=0)
    """λ_s, of the overlap."""
    threshold: float = Field(0.8, ge=0, le=1)
    """Confidence of the pixels that a region of the teacher's is made of."""
    contrast_temperature: float = Field(0.1, gt=0)
    """τ, divides dice coefficients and cosines."""
    region_area: float = Field(0.005, ge=0, lt=1)
    """Share of a crop that a region takes up at least."""


class RC2L(TeacherStudent):
    """A student and its average, which are held against each other region by region."""

    Config = RC2LConfig
    config: RC2LConfig
    RECONSTRUCTION = True
    VIEWS = ViewSpec(strong=1, cutmix="reco", neighbours=True)
    OUTLINE = Outline("student", "moving average of all", "mixed view, region against region")
    NOT_DECOUPLED = ONE_DECODER

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the labels, and four terms of regions."""
        labeled, unlabeled = batch.both
        (view,), config, count = unlabeled.strong, self.config, len(labeled.image)
        with torch.no_grad():
            seen = self.teacher.features(unlabeled.weak)
            target = self.pseudo_labels(self.teacher.head(seen), unlabeled).mixed(view)
            size = seen.shape[-2], seen.shape[-1]
            seen = on_features(view.mix, size)(seen)
        features, side = self.student.features_with_side(torch.cat([labeled.image, view.mixed]))
        strong = features[count:]
        logits = self.student.head(strong)
        label, valid = on_grid(size, target.label, target.valid)
        masks, probs = target.class_masks(logits), self.supervision.adjusted(logits).float().softmax(1) * valid[:, None]
        there = masks.flatten(2).any(2) & (masks.float().mean((2, 3)) >= config.region_area)
        absent = ~classes_present(label, valid, logits.shape[1]) & there.any(1, keepdim=True)
        overlaps = overlap(probs, masks)
        looks = self.feature_contrast(pooled(strong, probs), pooled(seen, masks), there, view.mix.group)
        self.note(regions=there.sum(1).float().mean())
        return {
            "labeled": self.supervise(self.labeled_logits(features[:count], labeled), labeled, side),
            "mask_contrast": config.mask_contrast_weight * mask_contrast(overlaps, there, config.contrast_temperature),
            "feature_contrast": config.feature_contrast_weight * looks,
            "presence": config.presence_weight * presence_loss(probs, there, there | absent),
            "masks": config.mask_weight * mean_over_regions(1 - overlaps.diagonal(dim1=1, dim2=2), there),
        }

    def feature_contrast(self, mine: Tensor, theirs: Tensor, there: Tensor, group: int) -> Tensor:
        """Cross-entropy of finding each of the teacher's regions among the student's of other classes; a scalar.

        mine, theirs: (B, C, D), mean features. there: (B, C) bool. group: images whose regions are held against one
        another.
        """
        classes = torch.arange(there.shape[1], device=there.device).repeat(group)
        mine, theirs = (each.reshape(-1, len(classes), each.shape[-1]) for each in (mine, theirs))
        others = (classes[:, None] != classes) & there.view(-1, 1, len(classes))
        loss = paired_info_nce(theirs, mine, mine, others, self.config.contrast_temperature)
        return mean_over_regions(loss.view(there.shape), there)
