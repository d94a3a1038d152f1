from __future__ import annotations

import pytest
import torch

from des4.models.decoders.deeplab import AtrousPyramid


def pyramid(output_stride: int) -> AtrousPyramid:
    """Return one in which every weight is 1 and that begins with one channel."""
    made = AtrousPyramid(1, 1, output_stride).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(1)
    return made


@pytest.mark.parametrize(("output_stride", "rates"), [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))])
def test_a_cell_sees_as_far_as_the_rates_of_its_stride(output_stride: int, rates: tuple[int, ...]) -> None:
    made = pyramid(output_stride)
    with torch.no_grad():
        made.pooled[1].weight.zero_()  # it sees all
    deep = torch.ones(1, 1, 81, 81, requires_grad=True)
    made(deep)[0, 0, 40, 40].backward()
    assert deep.grad is not None
    seen = deep.grad[0, 0, :, 40].nonzero().flatten() - 40
    assert seen.tolist() == sorted({0, *rates, *(-rate for rate in rates)})


def test_the_pooled_branch_sees_the_mean() -> None:
    deep = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert pyramid(16).pooled(deep).tolist() == [[[[3.0 + 1]]]]
