"""Networks: encoders, their decoders, classifiers, and the moving averages between them."""

from des4.models.compilation import compile_networks
from des4.models.ensemble import Ensemble
from des4.models.heads.linear import LinearClassifier
from des4.models.heads.prototypes import PrototypeClassifier
from des4.models.memory import Memory, PrototypeFeed, TargetFigures, TargetTally
from des4.models.segmenter import HeadName, ModelConfig, Segmenter, build_segmenter
from des4.models.training.blocks import blocks
from des4.models.training.norm_statistics import norm_statistics
from des4.models.training.sync_norm import synchronise_norms

__all__ = [
    "Ensemble",
    "HeadName",
    "LinearClassifier",
    "Memory",
    "ModelConfig",
    "PrototypeClassifier",
    "PrototypeFeed",
    "Segmenter",
    "TargetFigures",
    "TargetTally",
    "blocks",
    "build_segmenter",
    "compile_networks",
    "norm_statistics",
    "synchronise_norms",
]
