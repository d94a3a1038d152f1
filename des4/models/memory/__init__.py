"""What a method remembers from step to step, beside weights."""

from des4.models.memory.base import Memory
from des4.models.memory.class_centres import ClassCentres
from des4.models.memory.class_confidence import ClassConfidence
from des4.models.memory.class_crops import ClassCrops
from des4.models.memory.feature_queue import FeatureQueue
from des4.models.memory.histogram import Histogram
from des4.models.memory.moving_threshold import MovingThreshold
from des4.models.memory.prototype_feed import BINS_A_ZONE, FeedFigures, PrototypeFeed, Sampling
from des4.models.memory.share_alignment import ShareAlignment
from des4.models.memory.subclasses import Subclasses
from des4.models.memory.target_tally import TargetFigures, TargetTally

__all__ = [
    "BINS_A_ZONE",
    "ClassCentres",
    "ClassConfidence",
    "ClassCrops",
    "FeatureQueue",
    "FeedFigures",
    "Histogram",
    "Memory",
    "MovingThreshold",
    "PrototypeFeed",
    "Sampling",
    "ShareAlignment",
    "Subclasses",
    "TargetFigures",
    "TargetTally",
]
