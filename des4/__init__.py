"""Semi-supervised semantic segmentation: many images, few masks, imbalanced classes.

    run = des4.train({"method": "des4", "data": "scenes"}, steps=600)
    predictor = des4.load(run.dir)
    label_map = predictor.predict("photo.jpg")        # (H, W), class indices
    results = des4.evaluate(run.dir)

The command line says the same: `des4 train`, `des4 predict`, `des4 eval`. Importing the package is cheap; torch is
loaded by the first use of one of these names, or of a sub-package such as `des4.losses`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from des4.acquisition import choose_next
    from des4.api import Run, evaluate, load, resume, train
    from des4.engine.callbacks import Callback
    from des4.types import UserError

__version__ = "0.1.0"
__all__ = ["Callback", "Run", "UserError", "__version__", "choose_next", "evaluate", "load", "resume", "train"]

_HOMES = {
    **dict.fromkeys(("Run", "evaluate", "load", "resume", "train"), "des4.api"),
    "Callback": "des4.engine.callbacks",
    "UserError": "des4.types",
    "choose_next": "des4.acquisition",
}
_PACKAGES = ("data", "engine", "losses", "methods", "metrics", "models", "ops", "report")


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"des4.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'des4' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
