"""Networks: encoders, the DeepLabV3+ decoder, classifiers, and the moving averages between them."""

from des4.models.prototypes import PrototypeClassifier, PrototypeFeed
from des4.models.segmenter import HeadName, LinearClassifier, ModelConfig, Segmenter, build_segmenter

__all__ = [
    "HeadName",
    "LinearClassifier",
    "ModelConfig",
    "PrototypeClassifier",
    "PrototypeFeed",
    "Segmenter",
    "build_segmenter",
]
