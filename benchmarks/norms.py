"""How right a run labels unlabeled images as it begins, by the running statistics of norms and by those of a batch.

python benchmarks/norms.py RUN [--batches N] [--threshold T] [KEY=VALUE …]

RUN: a run of one network, such as of `unimatch`, whose config.yaml says what it reads and what it begins as. The weak
views are those of its training, and the unlabeled images have to have masks. Rows: running statistics; those of labeled
and weak images together, as `unimatch` reads them, its dropped features among them in the decoder; those of the weak
images alone, as `cps` does.
"""

from __future__ import annotations

import argparse
import copy
import sys
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch
from timing import prepare
from torch import Tensor

from des4 import build
from des4.config import load_config
from des4.methods.ingredients.perturb import with_dropped
from des4.models.segmenter import Segmenter
from des4.ops.resize import upsample
from des4.types import IGNORE, Batch, UserError


def said(network: Segmenter, batch: Batch) -> dict[str, Tensor]:
    """Logits (B, C, h, w) of the weak views, by how the norms are read."""
    labeled, unlabeled = batch.both
    count, weak = len(labeled.image), unlabeled.weak
    running, learning = network.eval(), copy.deepcopy(network).train()  # its statistics move
    both = learning.decoder(with_dropped(learning.encode(torch.cat([labeled.image, weak])), unlabeled.keys, "feature"))
    return {
        "running statistics": running(weak),
        "of labeled and weak images": learning.head(both[count : count + len(weak)]),
        "of weak images alone": learning(weak),
    }


@torch.no_grad()
def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--threshold", type=float, default=0.95, help="probability from which a label is sure")
    args, settings = parser.parse_known_args()
    prepare(1)
    config = load_config(args.run / "config.yaml", ["train.oracle=true", *settings])
    training = build.training(config, checked=False)
    network = next(iter(training.method.predictors().values()))
    counts: dict[str, list[int]] = {}
    with closing(training.loader.batches(0, torch.device("cpu"))) as batches:  # type: ignore[type-var]  # it is a generator
        for batch in islice(batches, args.batches):
            _, unlabeled = batch.both
            truth = unlabeled.truth
            assert truth is not None  # train.oracle asks for it
            where = unlabeled.valid & (truth != IGNORE)
            for norms, logits in said(network, batch).items():
                adjusted = training.method.supervision.adjusted(logits).float()
                confidence, label = upsample(adjusted, (truth.shape[-2], truth.shape[-1])).softmax(1).max(1)
                sure, right = where & (confidence >= args.threshold), where & (label == truth)
                new = [int(each.sum()) for each in (where, right, sure, right & sure)]
                counts[norms] = [old + one for old, one in zip(counts.get(norms, [0] * 4), new, strict=True)]
    print(f"{'norms by the':28} {'right':>7} {'sure':>7} {'right of these':>15}")
    for norms, (pixels, right, sure, both) in counts.items():
        print(f"{norms:28} {right / pixels:7.3f} {sure / pixels:7.3f} {both / max(1, sure):15.3f}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
