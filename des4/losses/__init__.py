"""Loss functions: pure, on logits of any resolution, in float32 whatever autocast says."""

from des4.losses.adversarial import judged
from des4.losses.consistency import cosine_gap, divergence, pixel_divergence, squared_gap
from des4.losses.contrast import info_nce, mean_distance, paired_info_nce
from des4.losses.cross_entropy import cross_entropy, kept_cross_entropy, reweighted_cross_entropy, soft_cross_entropy
from des4.losses.entropy import mean_entropy
from des4.losses.ohem import hard_cross_entropy
from des4.losses.regions import mask_contrast, mean_over_regions, overlap, pooled, presence_loss

__all__ = [
    "cosine_gap",
    "cross_entropy",
    "divergence",
    "hard_cross_entropy",
    "info_nce",
    "judged",
    "kept_cross_entropy",
    "mask_contrast",
    "mean_distance",
    "mean_entropy",
    "mean_over_regions",
    "overlap",
    "paired_info_nce",
    "pixel_divergence",
    "pooled",
    "presence_loss",
    "reweighted_cross_entropy",
    "soft_cross_entropy",
    "squared_gap",
]
