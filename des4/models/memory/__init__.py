"""What a method remembers from step to step, beside weights."""

from des4.models.memory.base import Memory
from des4.models.memory.prototype_feed import PrototypeFeed, Sampling

__all__ = ["Memory", "PrototypeFeed", "Sampling"]
