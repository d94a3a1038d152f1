"""The demo: three methods on the built-in scenes, from the same few masks, laid side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path

from des4 import api, comparing
from des4.config import given_settings, load_config
from des4.report.compare import compare
from des4.runlog import RunFolder
from des4.types import ConfigError

SETTINGS = Path(__file__).parent / "configs" / "demo.yaml"

RUNS: dict[str, tuple[str, ...]] = {
    "supervised": ("method=supervised",),
    "baseline": ("method=des4", "method.decoupled=false"),
    "des4": ("method=des4",),
}

WHAT = {
    "supervised": "learns from the few labeled scenes alone (method=supervised).",
    "baseline": (
        "what DeS4 builds on, the paper's semi-supervised baseline: mean teacher with CutMix and the same prototypes, "
        "without decoupling (method=des4 method.decoupled=false)."
    ),
    "des4": (
        "the paper's method (method=des4): the same, but for a decoder of the teacher that learns from the labels "
        "alone, so that pseudo-labels are corrected, and for prototypes that pixels of rare and frequent classes move "
        "in balance."
    ),
}
"""What each run is."""

BELOW = (
    "It does so although it sees more images. Its teacher is no more than an average of its student, which learns "
    "from it at 1.5 times the weight of the labels, from the first step on. With few masks and few steps the first "
    "pseudo-labels of rare classes are mostly wrong, and nobody corrects them: each of the two hands the mistakes "
    "back to the other, until a class dies out or takes over. The shares of the pseudo-labels below show it. "
    "A threshold (method.threshold), a ramp (method.unlabeled_ramp_steps) or more steps may help; it stands here "
    "as the paper describes it."
)
"""Why the baseline may end below supervised training."""
ABOVE = (
    "The unlabeled images were worth that much to it, although nothing corrects its pseudo-labels: its teacher is no "
    "more than an average of its student, and each of the two hands mistakes back to the other. With fewer masks or "
    "steps it may end below supervised training; the shares of the pseudo-labels below show whether classes die out."
)
"""What is to be known of it where it does not."""


def lead(scores: Mapping[str, float | None]) -> float | None:
    """Return by how many points of mIoU the baseline is ahead of supervised training; None where one has no score.

    scores: mIoU of each run of RUNS, as a fraction.
    """
    baseline, supervised = scores["baseline"], scores["supervised"]
    return None if baseline is None or supervised is None else round(100 * (baseline - supervised), 2)


def verdict(scores: Mapping[str, float | None]) -> str:
    """Say in a sentence what the baseline came to beside supervised training; empty where they were not scored."""
    points = lead(scores)
    if points is None:
        return ""
    if not points:
        return "Here it ends level with supervised training."
    side = "below" if points < 0 else "above"
    return f"Here it ends {abs(points):.2f} points of mIoU {side} supervised training."


def about(scores: Mapping[str, float | None]) -> dict[str, str]:
    """Return what the comparison says of each run. scores: mIoU of each, as a fraction."""
    points = lead(scores) or 0.0
    why = BELOW if points < 0 else ABOVE if points > 0 else ""
    return WHAT | {"baseline": " ".join(filter(None, (WHAT["baseline"], verdict(scores), why)))}


def demo(overrides: Sequence[str] = (), say: Callable[[str], None] = print) -> tuple[Path, dict[str, api.Run]]:
    """Train the three runs into `runs/demo`, or the next free `runs/demo-<n>`; return the folder and the runs.

    overrides: `key=value` settings for all three. `compare.html` lays them side by side; `comparison.png`, which is in
    it, shows the validation scenes with most pixels of rare classes. Raises ConfigError for settings in which the runs
    have to differ, and WeightsError without the pip package that holds the encoder's weights.
    """
    if fixed := [key for key in ("method.name", "out") if key in given_settings({}, overrides)]:
        raise ConfigError(f"{', '.join(fixed)}: the demo has its own for each of its runs; leave it out")
    folder = free_folder()
    configs = {name: load_config(SETTINGS, [*own, *overrides, f"out={folder / name}"]) for name, own in RUNS.items()}
    runs = {}
    for number, (name, config) in enumerate(configs.items(), 1):
        say(f"── {number} of {len(configs)}: {name}")
        runs[name] = api.train(config)
    comparison = compare([RunFolder.open(run.dir) for run in runs.values()], list(runs))
    comparing.write_page(comparison, folder / "compare.html", about(scores(runs)), keep=folder / "comparison.png")
    return folder, runs


def scores(runs: Mapping[str, api.Run]) -> dict[str, float | None]:
    """Return mIoU of each run, as a fraction; None where its data has no validation list."""
    return {name: run.results["miou"] for name, run in runs.items()}


def free_folder() -> Path:
    """Return `runs/demo`, or the first `runs/demo-<n>` that does not exist."""
    names = (Path("runs", "demo" if n == 1 else f"demo-{n}") for n in count(1))
    return next(path for path in names if not path.exists())
