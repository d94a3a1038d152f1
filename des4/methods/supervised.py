"""Supervised training on the labelled images alone; the row every other method is compared with.

Eq. 1 of DeS4 with the classifier of choice. Protocol: the same number of steps as the semi-supervised runs, weak
views only (U2PL, Wang et al., CVPR 2022, and the codes that follow it).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from des4.methods.base import MethodConfig
from des4.methods.bases import SingleNetwork
from des4.types import Batch


class SupervisedConfig(MethodConfig):
    """Supervised training has no settings of its own."""

    name: Literal["supervised"] = "supervised"


class Supervised(SingleNetwork):
    """One network, labelled images."""

    Config = SupervisedConfig
    config: SupervisedConfig

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the labels."""
        features, side = self.student.features_with_side(batch.labelled.image)
        return {"labelled": self.supervise(self.labelled_logits(features, batch.labelled), batch.labelled, side)}
