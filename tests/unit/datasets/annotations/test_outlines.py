"""Label maps to polygons and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from des4.datasets.annotations.outlines import Outline, outlines, simplified, without_specks
from des4.datasets.annotations.regions import painted, polygon_runs

UNCOVERED = 255


def paint(found: list[Outline], size: tuple[int, ...], nothing: int = UNCOVERED) -> NDArray[np.uint8]:
    regions = ((polygon_runs(one.points, *size), one.label) for one in found)
    return painted(regions, *size, nothing).numpy()  # type: ignore[no-any-return]


def blobs(seed: int, size: tuple[int, int] = (60, 80), classes: int = 4) -> NDArray[np.int64]:
    """Label maps with large smooth regions, holes among them."""
    noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, classes, 6, 8)))
    return F.interpolate(noise, size=size, mode="bicubic")[0].argmax(0).numpy()  # type: ignore[no-any-return]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_unsimplified_outlines_give_the_label_map_back(height: int, width: int, random) -> None:  # type: ignore[no-untyped-def]
    labels = np.array([[random.randrange(3) for _ in range(width)] for _ in range(height)])
    assert (paint(outlines(labels, tolerance=0), labels.shape) == labels).all()
    without = outlines(labels, tolerance=0, nothing=1)
    assert (paint(without, labels.shape, nothing=1) == labels).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("tolerance", "most"), [(0.5, 0.02), (1.0, 0.05)])
def test_simplified_outlines_leave_no_gap_and_move_borders_alone(seed: int, tolerance: float, most: float) -> None:
    labels = blobs(seed)
    exact, few = outlines(labels, tolerance=0), outlines(labels, tolerance=tolerance)
    found = paint(few, labels.shape)
    assert not (found == UNCOVERED).any()
    assert (found != labels).mean() <= most
    assert sum(len(one.points) for one in few) < sum(len(one.points) for one in exact) / 3
    same = torch.ones(labels.shape)  # 0 within two pixels of a border
    for index in range(4):
        inside = torch.from_numpy(labels == index).float()[None]
        same *= 1 - (F.max_pool2d(inside, 5, 1, 2) - inside)[0]
    assert (found == labels)[same.numpy() > 0].all()


def test_a_hole_is_painted_over_what_surrounds_it() -> None:
    labels = np.zeros((12, 12), np.uint8)
    labels[2:10, 2:10] = 1
    labels[4:8, 4:8] = 0
    outer, ring, hole = outlines(labels, tolerance=0)
    assert (outer.label, ring.label, hole.label) == (0, 1, 0)
    first, second = outlines(labels, tolerance=0, nothing=0)  # the background outside is left out, in the hole not
    assert (first.label, second.label) == (1, 0)
    assert (paint([first, second], labels.shape, nothing=0) == labels).all()


def test_a_rectangle_has_four_corners_and_reaches_the_edge() -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[:, 10:] = 1
    right, left = outlines(labels, tolerance=1)
    assert {tuple(point) for point in left.points.tolist()} == {(0, 0), (0, 20), (10, 0), (10, 20)}
    assert right.points[:, 0].max() == 30 and (paint([right, left], labels.shape) == labels).all()


def test_specks_go_to_their_neighbours() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[:, 5:] = 1
    labels[3:5, 2:4] = 2
    labels[0, 9] = 2
    cleaned = without_specks(labels, 4)
    assert (cleaned[0, 9], cleaned[3, 2]) == (1, 2)
    assert (without_specks(labels, 5) == np.repeat([[0] * 5 + [1] * 5], 10, 0)).all()
    assert (without_specks(np.array([[0, 1]]), 9) == [[0, 1]]).all()  # nothing would be left


def test_a_straight_line_needs_its_ends_alone() -> None:
    corners = np.array([[1.0, 1], [2, 1.2], [3, 0.9], [4, 1], [4, 4], [1, 4]])
    assert simplified(corners, 0.5, 9, 9).tolist() == [[1, 1], [4, 1], [4, 4], [1, 4]]
