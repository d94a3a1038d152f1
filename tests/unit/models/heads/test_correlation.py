"""Correlation: its softmax written out, and what no place may see."""

from __future__ import annotations

import torch

from des4.models.heads.correlation import Correlation, carried
from des4.ops.noise import bernoulli

KEYS = torch.tensor([3, 5])


def test_rows_are_a_softmax_of_products_over_valid_places() -> None:
    torch.manual_seed(0)
    module, deep = Correlation(6, 3, width=5).eval(), torch.randn(2, 6, 4, 4)
    valid = torch.ones(2, 4, 4, dtype=torch.bool)
    valid[1, 0] = False
    shares = module(deep, valid, KEYS)
    kept = ~bernoulli(KEYS, (5,), "correlation", 0.1) / 0.9
    maps = module.project(deep * valid[:, None]) * kept[:, :, None, None]
    q, k = module.query(maps).flatten(2), module.key(maps).flatten(2)
    plain = (torch.einsum("bci,bcj->bij", q, k) / 3**0.5).exp()
    torch.testing.assert_close(shares[0], plain[0] / plain[0].sum(1, keepdim=True))
    rows = plain[1, 4:, 4:] / plain[1, 4:, 4:].sum(1, keepdim=True)
    torch.testing.assert_close(shares[1, 4:, 4:], rows)
    assert not shares[1, :4].any() and not shares[1, :, :4].any()
    assert not module(deep, ~valid, KEYS)[0].any()


def test_logits_are_carried_from_row_to_column_and_learn_nothing() -> None:
    logits = torch.tensor([[[[1.0, 2.0, 3.0]]]], requires_grad=True)
    shares = torch.tensor([[[1.0, 0, 0], [0.5, 0.5, 0], [0, 0, 1]]], requires_grad=True)
    found = carried(logits, shares, (1, 3))
    torch.testing.assert_close(found, torch.tensor([[[[2.0, 1.0, 3.0]]]]))
    found.sum().backward()
    assert logits.grad is None and shares.grad is not None
