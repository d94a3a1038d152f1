"""Networks through torch.compile, in place.

Encoder and decoder are compiled, each as one graph; classifier and losses stay outside. A network runs in several
variants of one training (train and eval mode, with and without gradients, the images of student and teacher), each
compiled at its first use for exactly those sizes. Images of any other size, as in an evaluation, are better segmented
under `torch.compiler.set_stance("force_eager")`, or every size would be compiled.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys

import torch

from des4.models.segmenter import Segmenter
from des4.types import ConfigError

VARIANTS = 64
"""Most variants of one module's code that torch may compile, before it falls back to running them uncompiled.

torch counts those of all networks of a method together, and its own limit of 8 is less than two networks may need whose
batches were split when memory ran out.
"""


def compile_networks(segmenter: Segmenter, backend: str = "inductor") -> None:
    """Compile encoder and decoder at their first use; names in the state dict stay, and copies are not compiled.

    backend: of torch.compile. Raises ConfigError where `inductor` has no C++ compiler to work with.
    """
    if backend == "inductor" and not cpp_compiler():
        raise ConfigError(
            "train.compile=true: torch.compile needs a C++ compiler and finds none; "
            "install g++ (or name another in the environment's CXX), or set train.compile=false"
        )
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, VARIANTS)
    for module in (segmenter.encoder, segmenter.decoder):
        module.compile(backend=backend, dynamic=False)


def cpp_compiler() -> str | None:
    """Path of the C++ compiler that torch.compile would call, or None."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    command = shlex.split(os.environ.get("CXX", "")) or [usual]
    return shutil.which(command[0])
