"""Run folders with made-up figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from des4.runlog import RunFolder

MakeRun = Callable[..., RunFolder]

CONFUSION = [[80, 20, 0], [10, 30, 0], [0, 0, 0]]
IOU = {"road": 80 / 110, "<b>sign</b>": 0.5, "$5 [bold]|note": None}
CONFIG: dict[str, Any] = {
    "method": {"name": "des4", "sampling": "multi_entropy"},
    "data": {"name": "folder", "root": "photos"},
    "views": {"crop_size": 321},
    "model": {"encoder": "resnet50", "weights": "timm"},
    "train": {"steps": 100, "batch_size": 8, "unlabeled_batch_size": None, "seed": 0},
    "eval": {"mode": "whole"},
    "out": "runs/a",
}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(name: str = "run", seed: int = 0, miou: float = 0.6, scored: bool = True, **changes: Any) -> RunFolder:
        """Write a run. changes: config keys with `__` for the dot, and `data`, laid over that of results.json."""
        run = RunFolder.create(tmp_path / name)
        data = {"name": "folder", **dict.fromkeys(("labeled", "unlabeled", "val"), 4)}
        data |= {f"{k}_hash": f"{k}-hash" for k in ("labeled", "unlabeled", "val")} | changes.pop("data", {})
        config = {key: dict(value) if isinstance(value, dict) else value for key, value in CONFIG.items()}
        config["train"]["seed"], config["out"] = seed, str(run.path)
        for key, value in changes.items():
            section, _, leaf = key.partition("__")
            config[section][leaf] = value
        scores = {"miou": miou, "tail_miou": miou - 0.2, "pixel_accuracy": 110 / 140, "iou": IOU}
        quality = {"threshold": 0.0, "precision": IOU, "coverage": dict.fromkeys(IOU, 1.0)}
        figures: dict[str, Any] = {
            **scores,
            "models": {m: {**scores, "confusion": CONFUSION} for m in ("teacher", "student")},
            "pseudo_labels": quality,
            "best": {"step": 50, "miou": miou + 0.05},
        }
        if not scored:
            figures = {"miou": None, "tail_miou": None, "pixel_accuracy": None, "iou": {}, "models": {},
                       "pseudo_labels": None, "best": None}  # fmt: skip
        steps = config["train"]["steps"]
        run.write_config(config)
        run.write_env({"torch": "2.15.0", "device": {"name": "<script>alert(1)</script>"}})
        run.write_results(
            {**figures, "evaluated": "teacher", "tail_classes": ["<b>sign</b>"], "step": steps, "steps": steps,
             "pixel_share": {"road": 0.7, "<b>sign</b>": 0.0004, "$5 [bold]|note": 0.2996}, "seconds": 3725.0,
             "seed": seed, "method": config["method"]["name"], "data": data}
        )  # fmt: skip
        run.log(10, {"loss": 2.0, "loss/student": 1.5, "lr": 0.01, "seconds": 1.0, "images_per_second": 9.0,
                     "prototype_cosine": 0.1})  # fmt: skip
        if scored:
            run.log(10, {"val/teacher/miou": 0.3, "val/teacher/tail_miou": None, "pseudo/precision/road": 0.5})
        return run

    return make
