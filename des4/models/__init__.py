"""Networks: encoders, their decoders, classifiers, and the moving averages between them."""

from des4.models.blocks import blocks
from des4.models.compilation import compile_networks
from des4.models.prototypes import PrototypeClassifier, PrototypeFeed
from des4.models.segmenter import HeadName, LinearClassifier, ModelConfig, Segmenter, build_segmenter
from des4.models.sync_norm import synchronise_norms

__all__ = [
    "HeadName",
    "LinearClassifier",
    "ModelConfig",
    "PrototypeClassifier",
    "PrototypeFeed",
    "Segmenter",
    "blocks",
    "build_segmenter",
    "compile_networks",
    "synchronise_norms",
]
