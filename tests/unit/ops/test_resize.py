import pytest
import torch

from des4.ops.reduce import sum_over_ranks
from des4.ops.resize import shrink_label, upsample, upsample_area


@pytest.mark.parametrize(("crop", "grid"), [(33, 9), (513, 129), (769, 193), (801, 201)])
def test_position_i_of_the_stride_4_grid_is_pixel_4i(crop: int, grid: int) -> None:
    label = torch.arange(crop * crop).view(1, crop, crop)
    assert torch.equal(shrink_label(label, (grid, grid)), label[:, ::4, ::4])
    maps = torch.rand(1, 2, grid, 5)
    torch.testing.assert_close(upsample(maps, (crop, 17))[:, :, ::4, ::4], maps)


def test_upsample_keeps_corners_and_is_linear_between() -> None:
    up = upsample(torch.tensor([[[[0.0, 4.0]]]]), (1, 5))
    torch.testing.assert_close(up, torch.tensor([[[[0.0, 1.0, 2.0, 3.0, 4.0]]]]))


def test_the_same_size_is_returned_untouched() -> None:
    maps, label = torch.rand(1, 2, 3, 4), torch.zeros(1, 3, 4, dtype=torch.int64)
    assert upsample(maps, (3, 4)) is maps
    assert shrink_label(label, (3, 4)) is label


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 16), (9, 2)])
def test_a_shrunken_label_holds_real_labels_and_its_corners(size: tuple[int, int]) -> None:
    label = torch.randint(0, 200, (2, 64, 50))
    small = shrink_label(label, size)
    assert small.shape == (2, *size)
    assert small.dtype == label.dtype
    assert torch.isin(small, label).all()
    assert torch.equal(small[:, 0, 0], label[:, 0, 0])
    if min(size) > 1:
        assert torch.equal(small[:, -1, -1], label[:, -1, -1])


def test_a_shrunken_label_is_that_of_the_nearest_pixel() -> None:
    label = torch.arange(64).view(1, 1, 64)
    assert shrink_label(label, (1, 16)).flatten().tolist() == [round(i * 63 / 15) for i in range(16)]


def test_sum_over_ranks_is_the_identity_on_one_process() -> None:
    one, two = torch.rand(3), torch.arange(4)
    assert sum_over_ranks(one, two) == (one, two)


@pytest.mark.parametrize("size", [(40, 33), (9, 7), (1, 5)])
def test_an_area_of_enlarged_maps_is_cut_from_the_whole(size: tuple[int, int]) -> None:
    maps = torch.rand(3, 9, 7)
    whole = upsample(maps[None], size)[0]
    for rows, columns in ((slice(0, size[0]), slice(0, size[1])), (slice(size[0] // 3, size[0]), slice(2, 5))):
        torch.testing.assert_close(upsample_area(maps, size, rows, columns), whole[:, rows, columns])
