"""The demo: three methods on the built-in scenes, from the same few masks, laid side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from des4 import api, comparing
from des4.config import load_config
from des4.report.compare import compare
from des4.runlog import RunFolder

SETTINGS = Path(__file__).parent / "configs" / "demo.yaml"

RUNS: dict[str, tuple[str, ...]] = {
    "supervised": ("method=supervised",),
    "baseline": ("method=des4", "method.decoupled=false"),
    "des4": ("method=des4",),
}

ABOUT = {
    "supervised": "learns from the few labelled scenes alone (method=supervised).",
    "baseline": (
        "what DeS4 builds on, the paper's semi-supervised baseline: mean teacher with CutMix and the same prototypes, "
        "without decoupling (method=des4 method.decoupled=false). With these settings it ends below supervised "
        "training, although it sees more images. Its teacher is no more than an average of its student, which learns "
        "from it at 1.5 times the weight of the labels, from the first step on. With few masks and few steps the first "
        "pseudo-labels of rare classes are mostly wrong, and nobody corrects them: each of the two hands the mistakes "
        "back to the other, until a class dies out or takes over. The shares of the pseudo-labels below show it. "
        "A threshold (method.threshold), a ramp (method.unlabelled_ramp_steps) or more steps may help; it stands here "
        "as the paper describes it."
    ),
    "des4": (
        "the paper's method (method=des4): the same, but for a decoder of the teacher that learns from the labels "
        "alone, so that pseudo-labels are corrected, and for prototypes that pixels of rare and frequent classes move "
        "in balance."
    ),
}
"""What the comparison says of each run."""


def demo(overrides: Sequence[str] = (), say: Callable[[str], None] = print) -> tuple[Path, dict[str, api.Run]]:
    """Train the three runs into `runs/demo`, or the next free `runs/demo-<n>`; return the folder and the runs.

    overrides: `key=value` settings for all three. `compare.html` lays them side by side; `comparison.png`, which is in
    it, shows the validation scenes with most pixels of rare classes. Raises WeightsError without the pip package that
    holds the encoder's weights.
    """
    folder = free_folder()
    configs = {name: load_config(SETTINGS, [*own, *overrides, f"out={folder / name}"]) for name, own in RUNS.items()}
    runs = {}
    for number, (name, config) in enumerate(configs.items(), 1):
        say(f"── {number} of {len(configs)}: {name}")
        runs[name] = api.train(config)
    comparison = compare([RunFolder.open(run.dir) for run in runs.values()], list(runs))
    comparing.write_page(comparison, folder / "compare.html", ABOUT, keep=folder / "comparison.png")
    return folder, runs


def free_folder() -> Path:
    """Return `runs/demo`, or the first `runs/demo-<n>` that does not exist."""
    names = (Path("runs", "demo" if n == 1 else f"demo-{n}") for n in count(1))
    return next(path for path in names if not path.exists())
