import math

import pytest
import torch
import torch.nn.functional as F

from des4.losses import info_nce, paired_info_nce


def test_it_is_the_cross_entropy_of_cosines() -> None:
    anchors = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    positive, negatives = torch.tensor([5.0, 0.0]), torch.tensor([[0.0, 2.0], [-4.0, 0.0]])
    diagonal = math.sqrt(0.5)
    rows = [[1, 0, -1], [diagonal, diagonal, -diagonal]]
    expected = [-math.log(math.exp(r[0] / 0.5) / sum(math.exp(one / 0.5) for one in r)) for r in rows]
    assert info_nce(anchors, positive, negatives, 0.5).tolist() == pytest.approx(expected)


def test_where_all_are_alike_it_is_the_log_of_their_number_and_what_is_far_costs_nothing() -> None:
    same = torch.ones(1, 4)
    assert info_nce(same, same[0], same.expand(9, 4), 0.1).item() == pytest.approx(math.log(10))
    assert info_nce(same, same[0], -same.expand(9, 4), 0.1).item() == pytest.approx(0, abs=1e-6)


def test_gradients_reach_the_anchors_alone() -> None:
    anchors, positive, negatives = (torch.randn(2, *shape, requires_grad=True) for shape in ((3, 4), (4,), (5, 4)))
    info_nce(anchors, positive, negatives, 0.5).sum().backward()  # type: ignore[no-untyped-call]
    assert anchors.grad is not None
    assert anchors.grad.any()
    assert positive.grad is None
    assert negatives.grad is None


def test_float32_under_autocast() -> None:
    anchors, positive, negatives = torch.randn(3, 4), torch.randn(4), torch.randn(5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(anchors, positive, negatives, 0.5)
    assert torch.equal(found, info_nce(anchors, positive, negatives, 0.5))


def test_pairs_are_told_from_their_own_negatives() -> None:
    anchors, positives, others = torch.randn(2, 4, 3), torch.randn(2, 4, 3), torch.randn(2, 5, 3)
    drawn = torch.rand(2, 4, 5) > 0.5
    drawn[0, 0] = False
    found = paired_info_nce(anchors, positives, others, drawn, 0.2)
    for image, k in ((0, 0), (0, 1), (1, 3)):
        mine = others[image, drawn[image, k]]
        cosines = F.cosine_similarity(anchors[image, k], torch.cat([positives[image, k, None], mine]), dim=-1) / 0.2
        torch.testing.assert_close(found[image, k], -cosines.log_softmax(0)[0])
    assert found[0, 0] == 0  # nobody to be told from
