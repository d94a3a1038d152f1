"""Mathematics on tensors: entropy, sampling, mixing, resizing, rare classes. Knows no network and no data set."""

from des4.ops import entropy, mixing, noise, prior, reduce, resize, sampling, tail

__all__ = ["entropy", "mixing", "noise", "prior", "reduce", "resize", "sampling", "tail"]
