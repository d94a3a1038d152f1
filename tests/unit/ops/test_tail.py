import pytest
import torch

from des4.ops.tail import few_images, tail_classes


@pytest.mark.parametrize(
    ("counts", "tail"),
    [
        ([100, 10, 1], [2]),
        ([100, 10, 5, 1], [2, 3]),
        ([100, 10, 0, 1], [3]),  # the absent class is neither in the median nor in the tail
        ([5, 5, 5], []),
        ([7], []),
        ([0, 0], []),
    ],
)
def test_tail_is_what_lies_below_the_median_share_of_the_classes_present(counts, tail):
    assert tail_classes(torch.tensor(counts)) == tail


def test_fewer_than_20_images_are_few():
    assert few_images(20) == ""
    assert few_images(19).startswith("the score rests on 19 val images:")
    assert few_images(1).startswith("the score rests on 1 val image:")
