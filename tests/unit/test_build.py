from __future__ import annotations

import pytest

from des4.build import mix_group
from des4.types import ConfigError


@pytest.mark.parametrize(("wanted", "images", "group"), [("auto", 8, 2), ("auto", 3, 3), ("auto", 1, 1), (4, 8, 4)])
def test_how_many_neighbours_are_mixed(wanted: int | str, images: int, group: int) -> None:
    assert mix_group(wanted, images) == group


def test_what_is_not_mixed_can_be_split_as_one_likes() -> None:
    assert [mix_group("auto", images, usual=1) for images in (8, 3)] == [1, 1]
    assert mix_group(3, 3, usual=1) == 3


def test_fours_give_way_to_pairs() -> None:
    assert [mix_group("auto", images, usual=4) for images in (8, 6, 2, 3)] == [4, 2, 2, 3]


def test_groups_that_do_not_fill_a_part_are_refused() -> None:
    with pytest.raises(ConfigError, match="mix_group=4 does not divide the 2 unlabeled images"):
        mix_group(4, 2)
