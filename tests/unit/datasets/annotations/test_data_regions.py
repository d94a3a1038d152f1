"""Regions: by hand, and against the COCO API."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_api

from des4.datasets.annotations.regions import (
    MAX_COORDINATE,
    RegionError,
    bitmap_runs,
    counted_runs,
    ellipse_runs,
    num_pixels,
    painted,
    polygon_runs,
    united,
)

SQUARE = np.array([[1, 1], [4, 1], [4, 3], [1, 3]], np.float64)

reals = partial(st.floats, allow_subnormal=False)


def filled(runs, height, width):
    return painted([(runs, 1)], height, width, 0).numpy()


def bitmaps(max_side=12):
    sides = st.integers(1, max_side)
    return st.tuples(sides, sides, st.integers(0, 2**32 - 1), reals(0, 1)).map(
        lambda drawn: np.random.default_rng(drawn[2]).random(drawn[:2]) < drawn[3]
    )


@st.composite
def polygons(draw):
    """Height, width and corners: inside, across the border or far outside; tiny, coarse, repeated, in line."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    side = max(height, width)
    value = draw(
        st.sampled_from(
            [
                st.integers(-5, side + 5).map(float),
                st.integers(-20, 10 * side + 20).map(lambda tenths: tenths / 10),
                st.integers(-10, 2 * side).map(lambda halves: halves / 2),
                reals(-side, 2 * side),
                reals(0.5, 2.5),
                reals(-1000, 1000),
            ]
        )
    )
    corners = draw(st.lists(st.tuples(value, value), min_size=3, max_size=12))
    return height, width, np.array(corners)


def test_runs_are_starts_and_ends_column_by_column():
    runs = polygon_runs(SQUARE, 5, 6)
    assert runs.tolist() == [6, 8, 11, 13, 16, 18]
    assert num_pixels(runs) == 6
    expected = np.zeros((5, 6), np.uint8)
    expected[1:3, 1:4] = 1
    assert (filled(runs, 5, 6) == expected).all()


def test_a_region_over_whole_columns_is_one_run():
    assert polygon_runs(np.array([[2.0, -9], [5, -9], [5, 99], [2, 99]]), 7, 9).tolist() == [14, 35]


@pytest.mark.parametrize("shift", [0.0, -3.0, 50.0])
def test_polygons_are_cut_at_the_border(shift):
    inside = filled(polygon_runs(SQUARE + shift, 5, 6), 5, 6)
    assert inside.sum() == {0.0: 6, -3.0: 0, 50.0: 0}[shift]


@settings(deadline=None, max_examples=400)
@given(polygons())
def test_polygons_are_those_of_the_coco_api(polygon):
    height, width, corners = polygon
    expected = coco_api.decode(coco_api.frPyObjects([corners.ravel().tolist()], height, width))[:, :, 0]
    assert (filled(polygon_runs(corners, height, width), height, width) == expected).all()


@pytest.mark.parametrize(
    "corners",
    [
        [[5.4, 26.4], [18.0, 3.6], [26.0, 8.2]],
        [[15.8, 1.2], [29.8, 10.2], [4.6, 24.0]],
        [[0.2, 17.4], [6.6, 3.0], [26.6, 2.0]],
    ],
)
def test_ties_of_rounding_are_broken_as_the_coco_api_does(corners):
    """An edge drawn from its other end would pass these pixels by."""
    expected = coco_api.decode(coco_api.frPyObjects([np.ravel(corners).tolist()], 30, 30))[:, :, 0]
    assert (filled(polygon_runs(np.array(corners), 30, 30), 30, 30) == expected).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_long_edges_are_those_of_the_coco_api(seed):
    corners = np.random.default_rng(seed).uniform(-3000, 6000, (4, 2))
    expected = coco_api.decode(coco_api.frPyObjects([corners.ravel().tolist()], 700, 900))[:, :, 0]
    assert (filled(polygon_runs(corners, 700, 900), 700, 900) == expected).all()


@settings(deadline=None)
@given(st.lists(bitmaps(), min_size=1, max_size=4))
def test_bitmaps_and_their_union_survive_as_runs(parts):
    height, width = (min(sides) for sides in zip(*(part.shape for part in parts), strict=True))
    parts = [part[:height, :width] for part in parts]
    runs = [bitmap_runs(part, 0, 0, height, width) for part in parts]
    for part, own in zip(parts, runs, strict=True):
        assert (np.diff(own) > 0).all()
        assert num_pixels(own) == part.sum()
        assert (filled(own, height, width) == part).all()
    assert united(runs).tolist() == bitmap_runs(np.any(parts, axis=0), 0, 0, height, width).tolist()


@settings(deadline=None)
@given(bitmaps(6), st.integers(-8, 12), st.integers(-8, 12))
def test_bitmaps_that_stick_out_are_cut(bitmap, left, top):
    height, width, margin = 7, 9, 20
    canvas = np.zeros((height + 2 * margin, width + 2 * margin), bool)
    rows, columns = bitmap.shape
    canvas[margin + top : margin + top + rows, margin + left : margin + left + columns] = bitmap
    expected = canvas[margin:-margin, margin:-margin]
    assert (filled(bitmap_runs(bitmap, left, top, height, width), height, width) == expected).all()


@settings(deadline=None)
@given(
    st.tuples(reals(-5, 25), reals(-5, 25)),
    st.tuples(reals(0.1, 15), reals(0.1, 15)),
    reals(-180, 180),
)
def test_ellipses_hold_the_pixels_whose_centre_they_hold(centre, radii, degrees):
    height, width = 18, 21
    y, x = np.mgrid[:height, :width] + 0.5
    x, y, turn = x - centre[0], y - centre[1], np.radians(degrees)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    distance = (along / radii[0]) ** 2 + (across / radii[1]) ** 2
    found = filled(ellipse_runs(centre, radii, degrees, height, width), height, width)
    sure = np.abs(distance - 1) > 1e-6
    assert (found == (distance <= 1))[sure].all()


def test_counts_are_pixels_outside_and_inside_by_turns():
    runs = counted_runs(np.array([3, 2, 0, 1, 6]), 4, 3)
    assert runs.tolist() == [3, 6]
    assert counted_runs(np.array([12]), 4, 3).size == 0
    assert counted_runs(np.array([0, 12]), 4, 3).tolist() == [0, 12]


@pytest.mark.parametrize("counts", [[11], [13], [-1, 13], [4, 4, 5], [2**62, 2**62, 2**62, 2**62, 12], []])
def test_counts_that_do_not_cover_the_image_are_refused(counts):
    with pytest.raises(RegionError, match="do not add up to the 3×4 pixels"):
        counted_runs(np.array(counts, np.int64), 4, 3)


def test_the_later_region_is_painted_over_the_earlier():
    first, second = polygon_runs(SQUARE, 5, 6), polygon_runs(SQUARE + 1, 5, 6)
    label = painted([(first, 3), (second, 255), (np.empty(0, np.int64), 9)], 5, 6, 7)
    assert label.shape == (5, 6)
    assert label.is_contiguous()
    assert label.tolist() == [
        [7, 7, 7, 7, 7, 7],
        [7, 3, 3, 3, 7, 7],
        [7, 3, 255, 255, 255, 7],
        [7, 7, 255, 255, 255, 7],
        [7, 7, 7, 7, 7, 7],
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2 * MAX_COORDINATE])
def test_points_that_are_nowhere_are_refused(value):
    corners = SQUARE.copy()
    corners[2, 0] = value
    with pytest.raises(RegionError, match="no number within"):
        polygon_runs(corners, 5, 6)
    with pytest.raises(RegionError, match="no number within"):
        ellipse_runs((value, 3), (1, 1), 0, 5, 6)


def test_outlines_without_an_inside_are_refused():
    with pytest.raises(RegionError, match="needs 3 points, this one has 2"):
        polygon_runs(SQUARE[:2], 5, 6)
    with pytest.raises(RegionError, match="not above 0"):
        ellipse_runs((3, 3), (1, 0), 0, 5, 6)


def test_a_monstrous_outline_is_refused_before_it_takes_memory():
    zigzag = np.stack([np.arange(30_000) % 2 * 1e6, np.arange(30_000) % 7], 1)
    with pytest.raises(RegionError, match="crosses more than"):
        polygon_runs(zigzag, 1000, 1000)
