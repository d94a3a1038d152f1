"""Supervised training on the labeled images alone; the row every other method is compared with.

Eq. 1 of DeS4 with the classifier of choice. Protocol: the same number of steps as the semi-supervised runs, weak
views only (U2PL, Wang et al., CVPR 2022, and the codes that follow it).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from des4.methods.base import MethodConfig, Outline
from des4.methods.bases import SingleNetwork
from des4.types import Batch


class SupervisedConfig(MethodConfig):
    """Supervised training has no settings of its own."""

    name: Literal["supervised"] = "supervised"


class Supervised(SingleNetwork):
    """One network, labeled images."""

    Config = SupervisedConfig
    config: SupervisedConfig
    OUTLINE = Outline("one network", "–", "no")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the labels."""
        return self.on_labels(batch.labeled)
