from __future__ import annotations

import pytest
import torch
from torch import nn

from des4.models.heads.auxiliary import AuxiliaryHead


def test_a_tenth_of_the_channels_is_dropped_and_the_others_make_up_for_it() -> None:
    head = AuxiliaryHead(1, 4, "student")
    head.hidden = nn.Identity()
    nn.init.ones_(head.classifier.weight.weight)
    side, keys = torch.ones(20_000, 1, 1, 1), torch.arange(20_000)
    logits = head.train()(side, keys)
    assert (logits == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert logits.mean().item() == pytest.approx(1, abs=0.02)
    assert (head.eval()(side, keys) == 1).all()
