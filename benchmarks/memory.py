"""Bytes that a step of DeS4 keeps for its backward pass, per pixel of a crop and pair of images.

python benchmarks/memory.py [--encoder NAME …] [--crop N] [--stride N]

Counted, not measured, by des4.engine.cost, in float32. So any machine gives the same figure. `des4 data check` sizes
batches by it (MEMORY in des4/data/checks/advice.py).
"""

from __future__ import annotations

import argparse

import torch
from step import NUM_CLASSES, make_batch, make_method

from des4.engine.cost import step_cost
from des4.models import ModelConfig


def bytes_kept(encoder: str, crop: int, stride: int, batch: int = 2) -> float:
    """Return the bytes per pixel of a crop and pair of a labelled and an unlabelled image."""
    model = ModelConfig(encoder=encoder, weights="none", output_stride=stride)
    method = make_method("des4", model, torch.ones(NUM_CLASSES))
    return step_cost(method, make_batch(batch, crop)).kept_bytes / (batch * crop**2)


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", nargs="+", default=["resnet101", "resnet50", "tf_efficientnet_lite0"])
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--stride", type=int, default=16)
    args = parser.parse_args()
    for encoder in args.encoder:
        print(f"{encoder:24} {bytes_kept(encoder, args.crop, args.stride):8.0f} bytes")


if __name__ == "__main__":
    main()
