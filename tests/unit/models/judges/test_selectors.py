"""Selectors: each class by its own network, all at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from des4.models.judges.selectors import ClassSelectors


def test_each_class_is_scored_by_its_own_two_layers() -> None:
    torch.manual_seed(0)
    net, features = ClassSelectors(3, 4), torch.randn(2, 3, 5, 4)
    found = net(features)
    assert found.shape == (2, 3, 5)
    for c in range(3):
        hidden = F.leaky_relu(features[:, c] @ net.inner[c] + net.shift[c])
        torch.testing.assert_close(found[:, c], torch.sigmoid(hidden @ net.outer[c, :, 0] + net.bias[c]))
    assert ((found > 0) & (found < 1)).all()
    torch.testing.assert_close(net(features[0]), found[0])  # whatever stands before
    assert all(parameter.abs().max() <= 0.5 for parameter in net.parameters())
