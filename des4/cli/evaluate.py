"""The verb `des4 eval`. torch is imported inside it, so that --help is quick."""

from __future__ import annotations

from typing import Any

from des4.cli.arguments import Overrides, RunArgument, data_and_settings
from des4.cli.printing import print_scores, progress, show_warnings


def eval(run: RunArgument, overrides: Overrides = None) -> None:
    """Score a model on the validation list of its own data, or of other data given by data=FOLDER."""
    from des4 import api
    from des4.training import cautions
    from des4.weights import weights_file, weights_info

    show_warnings()
    weights = weights_file(run)
    data, settings = data_and_settings(overrides or [])
    images: list[str] = []

    def watch(ids: Any) -> Any:
        images.extend(ids)
        return progress("evaluating")(images)

    results = api.evaluate(weights, data, overrides=settings, progress=watch)
    figures = {name: getattr(results, name) for name in ("iou", "miou", "tail_miou", "pixel_accuracy")}
    caution = cautions(weights_info(weights).oracle, len(images))
    print_scores({"IoU %": {**figures, "tail_classes": results.tail, "caution": caution}})
