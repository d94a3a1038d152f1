"""Mathematics on tensors: entropy, sampling, mixing, resizing, sums over ranks. Knows no network and no data set."""

from des4.ops import entropy, mixing, reduce, resize, sampling

__all__ = ["entropy", "mixing", "reduce", "resize", "sampling"]
