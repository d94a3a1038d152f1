"""What a method remembers from step to step, beside weights."""

from des4.models.memory.base import Memory
from des4.models.memory.prototype_feed import PrototypeFeed, Sampling
from des4.models.memory.target_tally import TargetFigures, TargetTally

__all__ = ["Memory", "PrototypeFeed", "Sampling", "TargetFigures", "TargetTally"]
