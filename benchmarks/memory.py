"""What a method's first step keeps for its backward pass, in bytes per pixel of a crop and pair of images; its FLOPs.

python benchmarks/memory.py [--encoder NAME …] [--crop N] [--batch N] [--channels N] [--stride N] [--checkpointing]
                           [--precision NAME] [--method NAME]

Counted, not measured, by des4.engine.cost. So any machine gives the same figure. `des4 data check` sizes
batches by it (MEMORY in des4/data_tools/checks/advice.py).
"""

from __future__ import annotations

import argparse

import torch
from step import NUM_CLASSES, make_batch, make_method

from des4.engine.cost import step_cost
from des4.engine.settings import DTYPES
from des4.models import ModelConfig


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", nargs="+", default=["resnet101", "resnet50", "tf_efficientnet_lite0"])
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2, help="pairs of a labeled and an unlabeled image")
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--stride", type=int, default=16)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--method", default="des4_committee", help="the planned one by default")
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    args = parser.parse_args()
    for encoder in args.encoder:
        model = ModelConfig(
            encoder=encoder,
            weights="none",
            output_stride=args.stride,
            channels=args.channels,
            checkpointing=args.checkpointing,
        )
        method = make_method(args.method, model, torch.ones(NUM_CLASSES))
        cost = step_cost(method, make_batch(args.batch, args.crop), args.precision)
        encoder_size, size = (
            sum(p.numel() for p in part.parameters()) / 1e6 for part in (method.student.encoder, method.student)
        )
        print(
            f"{encoder:24} {cost.kept_bytes / (args.batch * args.crop**2):8.0f} bytes "
            f"{cost.kept_bytes / 2**30:8.2f} GiB {cost.flops.total / 1e9:9.1f} GFLOP "
            f"{size:7.2f} million parameters, {encoder_size:.2f} of them the encoder's"
        )


if __name__ == "__main__":
    main()
