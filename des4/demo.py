"""The demo: three methods on the built-in scenes, from the same few masks, laid side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from des4 import api, build
from des4.config import load_config
from des4.datasets import pixel_counts
from des4.report.pictures import grid

SETTINGS = Path(__file__).parent / "configs" / "demo.yaml"

RUNS: dict[str, tuple[str, ...]] = {
    "supervised": ("method=supervised",),
    "baseline": ("method=des4", "method.decoupled=false"),  # the paper's: mean teacher + CutMix, same classifier
    "des4": ("method=des4",),
}

NUM_SCENES = 6


def demo(overrides: Sequence[str] = (), say: Callable[[str], None] = print) -> tuple[Path, dict[str, api.Run]]:
    """Train the three runs into `runs/demo`, or the next free `runs/demo-<n>`; return the folder and the runs.

    overrides: `key=value` settings for all three. `comparison.png` shows the validation scenes with most pixels of rare
    classes. Raises WeightsError without the pip package that holds the encoder's weights.
    """
    folder = free_folder()
    configs = {name: load_config(SETTINGS, [*own, *overrides, f"out={folder / name}"]) for name, own in RUNS.items()}
    runs = {}
    for number, (name, config) in enumerate(configs.items(), 1):
        say(f"── {number} of {len(configs)}: {name}")
        runs[name] = api.train(config)
    _draw_comparison(folder / "comparison.png", runs)
    return folder, runs


def free_folder() -> Path:
    """Return `runs/demo`, or the first `runs/demo-<n>` that does not exist."""
    names = (Path("runs", "demo" if n == 1 else f"demo-{n}") for n in count(1))
    return next(path for path in names if not path.exists())


def _draw_comparison(path: Path, runs: dict[str, api.Run]) -> None:
    """Draw image, truth and the prediction of each run; the scenes are chosen by their masks, not by predictions."""
    first = next(iter(runs.values()))
    dataset = build.dataset(load_config(first.dir / "config.yaml"))
    tail = [dataset.classes.index(name) for name in first.results["tail_classes"]]
    scenes = sorted(dataset.val, key=lambda i: -int(pixel_counts(dataset, [i])[tail].sum()))[:NUM_SCENES]
    predictors = [api.load(run.dir) for run in runs.values()]
    rows: list[list[Any]] = []
    for scene in scenes:
        image = dataset.image(scene)
        truth = dataset.label(scene).numpy()
        rows.append([image.permute(1, 2, 0).numpy(), truth, *(predictor.predict(image) for predictor in predictors)])
    grid(rows, ["image", "truth", *runs], dataset.palette, dataset.classes, path)
