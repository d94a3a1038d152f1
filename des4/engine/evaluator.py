"""Evaluation of a method's models on a list of labeled images, all models on one decoded image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from des4.engine.inference import EvalConfig, segment
from des4.metrics import PseudoLabelQuality, Results, confusion_matrix
from des4.ops.pixels import unit
from des4.ops.reduce import gather_over_ranks, num_ranks, sum_over_ranks, this_rank
from des4.types import DataError, Dataset


@dataclass(frozen=True)
class Evaluation:
    """Results by model name, the headline first; the headline's mIoU on each image; and the pseudo-labels' quality."""

    results: dict[str, Results]
    image_miou: dict[str, float]
    pseudo_labels: PseudoLabelQuality

    @property
    def headline(self) -> str:
        """The name of the model whose figures are reported as the method's."""
        return next(iter(self.results))


class Evaluator:
    """Scores models on the images `ids` of a data set, at the images' own size.

    Of several processes each takes a share of the images; all get the same results. tail: indices of
    the rare classes, see `tail_classes`. Raises DataError if `ids` is empty.
    """

    def __init__(
        self,
        dataset: Dataset,
        ids: Sequence[str],
        config: EvalConfig,
        device: torch.device,
        tail: Sequence[int] = (),
    ) -> None:
        if not ids:
            raise DataError("there is no image to evaluate on; name some in the validation list (val.txt)")
        self.dataset = dataset
        self.ids = ids
        self.config = config
        self.device = device
        self.tail = tuple(dataset.classes[index] for index in tail)

    @torch.inference_mode()
    def __call__(
        self,
        predictors: Mapping[str, nn.Module],
        threshold: float = 0.0,
        progress: Callable[[Iterable[str]], Iterable[str]] = iter,
        labeler: nn.Module | None = None,
    ) -> Evaluation:
        """Evaluate `predictors`, the headline first; pseudo-labels need confidence >= `threshold` to be kept.

        The models run in eval mode, and have their training flags back afterwards.
        progress: walks over the ids, and may show how far it is. labeler: the model whose predictions are measured as
        pseudo-labels, one of the predictors or another; None = the headline. Raises DataError from the data set.
        """
        classes = self.dataset.classes
        labeler = labeler or next(iter(predictors.values()))
        models = list({id(model): model for model in (*predictors.values(), labeler)}.values())  # each once
        zeros = torch.zeros(len(classes), len(classes), dtype=torch.int64, device=self.device)
        confusions = {id(model): zeros.clone() for model in models}
        kept = zeros.clone()
        image_miou = {}
        headline = next(iter(predictors.values()))
        training = {module: module.training for model in models for module in model.modules()}
        try:
            for model in models:
                model.eval()
            for sample_id in progress(self.ids[this_rank() :: num_ranks()]):
                image = unit(self.dataset.image(sample_id).to(self.device))
                label = self.dataset.label(sample_id).to(self.device)
                for model in models:
                    confidence, prediction = segment(model, image, self.config).max(0)
                    confusion = confusion_matrix(label, prediction, len(classes))
                    confusions[id(model)] += confusion
                    if model is headline:
                        image_miou[sample_id] = Results(confusion.cpu(), classes).miou
                    if model is labeler:
                        keep = confidence >= threshold
                        kept += confusion_matrix(label[keep], prediction[keep], len(classes))
        finally:
            for module, flag in training.items():
                module.training = flag
        confusions = {key: sum_over_ranks(confusion)[0].cpu() for key, confusion in confusions.items()}
        scores = {i: miou for scored in gather_over_ranks(image_miou) for i, miou in scored.items()}
        kept, everything = sum_over_ranks(kept)[0].cpu(), confusions[id(labeler)]
        return Evaluation(
            {name: Results(confusions[id(model)], classes, self.tail) for name, model in predictors.items()},
            {sample_id: scores[sample_id] for sample_id in self.ids},
            PseudoLabelQuality.from_confusions(kept, everything, classes, threshold),
        )
