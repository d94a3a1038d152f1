"""The vector of an image, by hand: networks whose embeddings are the image's own pixels."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from des4.acquisition.features import DIMENSIONS, FeatureTap
from des4.models import PrototypeClassifier, Segmenter
from des4.models.heads.linear import LinearClassifier


class AsItIs(nn.Module):
    """An encoder of which both maps are the image."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.channels, self.mean, self.std = (bands, bands), (0.0,) * bands, (1.0,) * bands

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return 10 * image, image


class Deepest(nn.Module):
    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        return maps[-1]


def network(dim: int, head: nn.Module) -> Segmenter:
    return Segmenter(AsItIs(dim), Deepest(), head)  # type: ignore[arg-type]


def by_prototypes(dim: int) -> Segmenter:
    """Two classes: whose pixels have most in the first band, and whose have most in the last."""
    head = PrototypeClassifier(2, dim)
    head.prototypes.zero_()
    head.prototypes[0, 0] = head.prototypes[1, -1] = 1
    return network(dim, head)


def row(*pixels: list[float]) -> Tensor:
    """An image of one row, (1, bands, 1, W)."""
    return torch.tensor(pixels).T[None, :, None]


ONE_OF_FOUR = row([8, 6], [0, 5], [3, 4], [0, 1])
"""A pixel of the first class, (.8, .6) at length 1, and three of the second, (0, 1), (.6, .8) and (0, 1)."""
BY_HAND = [0.8 * sqrt(1 / 4), 0.6 * sqrt(1 / 4), 0.6 / 3 * sqrt(3 / 4), 2.8 / 3 * sqrt(3 / 4)]


def test_prototypes_give_mean_unit_embeddings_times_the_roots_of_shares() -> None:
    segmenter = by_prototypes(2)
    with FeatureTap(segmenter) as tap:
        segmenter(ONE_OF_FOUR)
        assert tap.take(tiles=False).tolist() == pytest.approx(BY_HAND)
        segmenter(row([0, 2], [0, 7]))
        assert tap.take(tiles=False).tolist() == [0, 0, 0, 1]  # nothing of the first class


def test_tiles_are_parts_of_one_image_and_places_in_a_batch_are_images() -> None:
    segmenter = by_prototypes(2)
    with FeatureTap(segmenter) as tap:
        segmenter(torch.cat([ONE_OF_FOUR[..., :1], ONE_OF_FOUR[..., 1:2]]))
        segmenter(ONE_OF_FOUR[..., 2:])
        assert tap.take(tiles=True).tolist() == pytest.approx(BY_HAND)
        for _ in range(2):  # two views of both
            segmenter(torch.cat([ONE_OF_FOUR, row([2, 0], [0, 2], [0, 1], [0, 1])]))
        assert tap.take(tiles=False).tolist() == pytest.approx(BY_HAND)
        assert tap.take(tiles=False).tolist() == pytest.approx([sqrt(1 / 4), 0, 0, sqrt(3 / 4)])


def test_a_linear_classifier_gives_the_mean_of_the_deepest_map_at_length_1() -> None:
    segmenter = network(2, LinearClassifier(5, 2))
    with FeatureTap(segmenter) as tap:
        segmenter(row([1, 8], [5, 0]))
        assert tap.take(tiles=False).tolist() == pytest.approx([0.6, 0.8])


def test_long_vectors_are_made_short_and_keep_their_distances() -> None:
    dim = DIMENSIONS  # of each of the two classes
    pixels = torch.eye(dim)[-3:]
    pixels[:, -1] += 0.01  # so that all are of the second class

    def vectors() -> list[np.ndarray]:
        segmenter, found = by_prototypes(dim), []
        with FeatureTap(segmenter) as tap:
            for pixel in pixels.tolist():
                segmenter(row(pixel))
                found.append(tap.take(tiles=False))
        return found

    found = vectors()
    assert {vector.shape for vector in found} == {(DIMENSIONS,)}
    gaps = [np.linalg.norm(found[a] - found[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert gaps == pytest.approx([sqrt(2)] * 3, rel=0.2)  # each lies on an axis of its own
    again = vectors()  # as where a scoring is resumed
    assert all((one == other).all() for one, other in zip(found, again, strict=True))
