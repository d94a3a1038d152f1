from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from des4.engine import tiles
from des4.engine.inference import EvalConfig, resized, segment
from des4.engine.tiles import Tiling, segment_by_tiles
from des4.ops.resize import upsample

CPU = torch.device("cpu")


def network(seed: int = 0) -> nn.Module:
    """A network that sees its surroundings, so that tiles differ where they end."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(4), nn.Conv2d(6, 5, 3, padding=1))


def picture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def reader(image: np.ndarray):
    return lambda top, left, height, width: image[top : top + height, left : left + width]


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255


def put_together(model, image, config, tiling, **options) -> torch.Tensor:
    size = image.shape[:2]
    total, visits = None, torch.zeros(size)
    last = 0
    for area in segment_by_tiles(model, reader(image), size, config, tiling, device=CPU, **options):
        assert area.rows.start >= last  # from top to bottom, as a file is written
        last = area.rows.start
        total = torch.zeros(len(area.probs), *size) if total is None else total
        total[:, area.rows, area.columns] += area.probs
        visits[area.rows, area.columns] += 1
    assert (visits == 1).all()
    return total


@pytest.mark.parametrize("size", [(23, 61), (8, 40), (61, 9), (5, 6), (32, 16), (47, 33)])
@pytest.mark.parametrize("average", ["probs", "logits"])
@pytest.mark.parametrize("stride", [None, 3, 5, 16])
@pytest.mark.parametrize("batch", [1, 3])
def test_tiles_of_a_config_with_windows_are_those_of_an_evaluation(size, average, stride, batch):
    config = EvalConfig(mode="sliding", window=16, stride=stride, average=average)
    model, image = network(), picture(size)
    found = put_together(model, image, config, Tiling.of(config, 99), batch=batch)
    torch.testing.assert_close(found, segment(model, tensor(image), config))


@pytest.mark.parametrize("size", [(70, 131), (131, 40), (33, 32)])
def test_a_pointwise_network_gives_the_same_with_and_without_tiles(size):
    torch.manual_seed(0)
    model, image = nn.Conv2d(3, 4, 1), picture(size)
    found = put_together(model, image, EvalConfig(), Tiling.of(EvalConfig(), 32))
    torch.testing.assert_close(found, segment(model, tensor(image), EvalConfig()))


def test_blending_leaves_no_seam():
    class TileNumber(nn.Module):
        """Answers 0.0 in the first tile it sees, 1.0 in the second."""

        tiles = -1

        def forward(self, image):
            self.tiles += 1
            ones = torch.ones(1, 1, *image.shape[-2:])
            return torch.cat([ones * 0, ones * self.tiles], 1)

    config = EvalConfig(average="logits")
    tiling = Tiling(16, 12, "ramp")
    image = np.zeros((1, 28, 3), np.uint8)
    seen = put_together(TileNumber(), image, config, tiling)[1, 0].logit()
    steps = (torch.arange(1, 5) / 5).tolist()  # 12 pixels of the first, 4 of both, 12 of the second
    torch.testing.assert_close(seen, torch.tensor([0.0] * 12 + steps + [1.0] * 12), atol=1e-5, rtol=0)


def test_tiles_count_less_towards_their_edges_over_the_width_of_the_overlap():
    rise = [0.2, 0.4, 0.6, 0.8]
    side = torch.tensor([*rise, *[1.0] * 8, *rise[::-1]])
    torch.testing.assert_close(tiles._weight((16, 16), Tiling(16, 12, "ramp"), CPU), side[:, None] * side)


def test_views_are_averaged_by_hand():
    model, image = network(), picture((40, 52))
    plain = EvalConfig()
    seen = tensor(image)
    mirrored = segment(model, seen.flip(-1), plain).flip(-1)
    both = segment(model, seen, EvalConfig(mirror=True))
    torch.testing.assert_close(both, (segment(model, seen, plain) + mirrored) / 2)
    half = segment(model, seen, EvalConfig(resize=0.5))
    scaled = segment(model, seen, EvalConfig(scales=(1.0, 0.5)))
    torch.testing.assert_close(scaled, (segment(model, seen, plain) + half) / 2)
    torch.testing.assert_close(put_together(model, image, EvalConfig(mirror=True), Tiling.of(plain, 64)), both)


@pytest.mark.parametrize("factor", [0.5, 0.37, 1.6])
@pytest.mark.parametrize("file", [False, True])
def test_a_resized_image_is_never_whole_and_answered_in_full(factor, file, monkeypatch):
    if file:
        monkeypatch.setattr(tiles, "SCRATCH_FROM", 0)
    torch.manual_seed(0)
    model, image = nn.Conv2d(3, 4, 1), picture((90, 131))
    config = EvalConfig(resize=factor)
    found = put_together(model, image, config, Tiling.of(config, 32))
    expected = segment(model, tensor(image), config)
    assert (found - expected).abs().max() < 0.01  # pixels are rounded to 8 bits on the way


@pytest.mark.parametrize("factor", [0.3, 0.5, 0.77, 2.6])
@pytest.mark.parametrize(
    ("size", "tiling"),
    [((61, 53), Tiling(32, 28, "ramp")), ((61, 53), Tiling(16, 11, "mean")), ((16, 14), Tiling(5, 1, "mean"))],
)
def test_scores_are_enlarged_band_by_band_as_they_are_whole(factor, size, tiling, monkeypatch):
    model, image = network(), picture(size)
    config = EvalConfig(resize=factor)
    made = []
    monkeypatch.setattr(tiles, "scratch", lambda *shape: made.append(shape) or torch.zeros(shape))
    found = put_together(model, image, config, tiling)
    seen = tuple(tiles.scaled_size(size, factor))
    read = tiles._reader_of_resized(reader(image), size, seen)
    small = torch.zeros(5, *seen)
    for area in tiles._blended(model, read, seen, config, tiling, CPU, 1, lambda: None):
        small[:, area.rows, area.columns] = area.probs
    torch.testing.assert_close(found, upsample(small[None], size)[0], atol=1e-6, rtol=0)
    assert max(rows for _, rows, _ in made) <= 1 + tiling.side  # never all of them


@pytest.mark.parametrize(("factor", "seen"), [(0.353, (21, 30)), (0.1, (6, 8))])
def test_windows_of_a_resized_image_are_those_of_the_image_resized(factor, seen):
    image = picture((60, 85))
    read = tiles._reader_of_resized(reader(image), (60, 85), seen)
    whole = resized(tensor(image)[None], factor)[0]
    assert whole.shape == (3, *seen)
    part = tensor(read(2, 3, seen[0] - 3, seen[1] - 4))
    assert (part - whole[:, 2:-1, 3:-1]).abs().max() <= 1 / 255


def test_a_disk_without_room_is_named(monkeypatch):
    monkeypatch.setattr(tiles, "SCRATCH_FROM", 0)
    with pytest.raises(tiles.RunError, match=r"GiB are needed there for scores .*TMPDIR"):
        tiles.scratch(2**20, 2**20, 2**10)


def test_tiles_are_counted():
    assert Tiling.of(EvalConfig(), 1024).count((20_000, 20_000)) == 23 * 23
    assert Tiling.of(EvalConfig(), 1024).count((10, 2000)) == 3


def test_bands_are_resized_by_tiles_as_whole():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(5, 4, 1), nn.AvgPool2d(4))
    image = torch.rand(120, 90, 5)
    config = EvalConfig(resize=0.5)
    found = put_together(model, image.numpy(), config, Tiling(32, 28, "ramp"))
    torch.testing.assert_close(found, segment(model, image.permute(2, 0, 1), config), atol=0.02, rtol=0)
