import random
from typing import get_args

import pytest
import torch

from des4.ops.mixing import _DRAW, _cps, _unimatch, draw_mix, on_features
from des4.types import CutMixPreset, Mix

PRESETS = get_args(CutMixPreset)


def seeded(seed: int) -> random.Random:
    return random.Random(seed)


def draws(preset: CutMixPreset, count: int, height: int = 64, width: int = 80, batch: int = 4) -> list[Mix]:
    rng = seeded(0)
    return [draw_mix(preset, batch, height, width, rng) for _ in range(count)]


def areas(preset: CutMixPreset, count: int = 200) -> torch.Tensor:
    """Share of the crop that each sample's box covers."""
    return torch.cat([m.box.float().mean((1, 2)) for m in draws(preset, count)])


def sides(box: torch.Tensor) -> tuple[int, int]:
    """Height and width of one rectangle."""
    rows, columns = box.any(1).nonzero()[:, 0], box.any(0).nonzero()[:, 0]
    height, width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
    assert box.sum() == height * width
    return height, width


def test_mix_takes_the_partners_pixels_inside_the_box_alone() -> None:
    image = torch.arange(3.0)[:, None, None, None].expand(3, 2, 4, 4)
    box = torch.zeros(3, 4, 4, dtype=torch.bool)
    box[0, :2] = True
    mix = Mix(torch.tensor([1, 2, 0]), box, 3)
    mixed = mix(image)
    assert torch.equal(mix(image, -image), torch.where(box[:, None], -mixed, image))  # of what fills the boxes
    assert (mixed[0, :, :2] == 1).all()
    assert (mixed[0, :, 2:] == 0).all()
    assert torch.equal(mixed[1:], image[1:])


@pytest.mark.parametrize("preset", PRESETS)
def test_one_box_mixes_images_labels_confidence_and_masks_alike(preset: CutMixPreset) -> None:
    label = torch.randint(0, 9, (4, 20, 24))
    image = label[:, None].expand(-1, 3, -1, -1).float()
    boxes = draw_mix(preset, 4, 20, 24, seeded(3))
    mixed = boxes(label)
    assert torch.equal(boxes(image), mixed[:, None].expand(-1, 3, -1, -1).float())
    assert torch.equal(boxes(label > 4), mixed > 4)
    assert boxes(label.to(torch.uint8)).dtype == torch.uint8


@pytest.mark.parametrize("preset", PRESETS)
def test_a_batch_of_one_is_not_mixed(preset: CutMixPreset) -> None:
    for seed in range(5):
        tensor = torch.rand(1, 3, 16, 16)
        assert torch.equal(draw_mix(preset, 1, 16, 16, seeded(seed))(tensor), tensor)


@pytest.mark.parametrize("preset", PRESETS)
def test_boxes_follow_the_generator_alone(preset: CutMixPreset) -> None:
    one, two = (draw_mix(preset, 3, 33, 47, seeded(8)) for _ in range(2))
    assert torch.equal(one.box, two.box)
    assert torch.equal(one.partner, two.partner)
    assert one.box.shape == (3, 33, 47)


def test_none_has_no_box() -> None:
    assert not areas("none").any()


def test_french_covers_half_of_every_crop() -> None:
    assert ((areas("french") - 0.5).abs() < 0.02).all()  # both sides are rounded to pixels


def test_reco_covers_half_of_a_wide_part_in_half_of_the_batches() -> None:
    mixes = draws("reco", 400)
    used = [m for m in mixes if m.box.any()]
    assert 160 < len(used) < 240
    widths = []
    for m in used:
        for box in m.box:
            height, width = sides(box)
            assert width >= 40
            assert height * width == pytest.approx(0.5 * 64 * 80, rel=0.03)
            widths.append(width)
    assert 58 < sum(widths) / len(widths) < 62  # uniform on 40..80


def test_cps_covers_at_most_half_by_three_boxes() -> None:
    covered = areas("cps")
    assert covered.max() <= 0.51
    assert covered.min() > 0.02
    assert 0.15 < covered.mean() < 0.375


def test_each_box_of_cps_has_an_area_of_its_own_and_overlaps_toggle(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [area(box) / (64 * 80) for seed in range(50) for box in _cps(64, 80, random.Random(seed))]
    assert min(shares) == pytest.approx(0.25 / 3, abs=0.01) and max(shares) == pytest.approx(0.5 / 3, abs=0.01)
    alike = [[area(box) for box in _cps(640, 800, random.Random(seed))] for seed in range(50)]
    assert all(max(areas) - min(areas) > 0.005 * min(areas) for areas in alike)
    monkeypatch.setitem(_DRAW, "cps", lambda *_: [(0, 0, 4, 4), (2, 2, 6, 6), (3, 3, 4, 4)])
    box = draw_mix("cps", 2, 8, 8, random.Random(0)).box[0]
    assert box.sum() == 16 + 16 - 2 * 4 + 1
    assert box[0, 0] and box[5, 5] and box[3, 3] and not box[2, 2]


def area(box: tuple[int, int, int, int]) -> int:
    top, left, bottom, right = box
    return (bottom - top) * (right - left)


def test_unimatch_covers_2_to_40_percent_of_every_second_sample() -> None:
    covered = areas("unimatch", 300)
    used = covered[covered > 0]
    assert 0.44 < len(used) / len(covered) < 0.56
    assert used.min() > 0.018
    assert used.max() < 0.41
    shapes = [sides(box) for m in draws("unimatch", 100) for box in m.box if box.any()]
    ratios = [height / width for height, width in shapes]
    assert min(ratios) > 0.25
    assert max(ratios) < 4


def test_large_boxes_of_unimatch_are_squarer_for_they_are_drawn_until_they_fit() -> None:
    """As in the published draw: of 30,000 of its boxes 17 % are more than 2.5 times as high as wide, large or not."""
    boxes = [box for seed in range(4000) for box in _unimatch(320, 320, random.Random(seed))]
    shape = torch.tensor([[(bottom - top) / (right - left), area((top, left, bottom, right)) / 320**2]
                          for top, left, bottom, right in boxes])  # fmt: skip
    high, large = shape[:, 0] > 2.5, shape[:, 1] > 0.3
    assert high.float().mean().item() == pytest.approx(0.166, abs=0.02)
    assert large.float().mean().item() == pytest.approx(0.1 / 0.38, abs=0.025), "how large does not depend on the shape"
    assert (shape[large, 0] > 2).float().mean().item() == pytest.approx(0.166, abs=0.035)
    assert all(bottom - top <= 40 for top, _, bottom, _ in _unimatch(40, 4000, random.Random(0))), "it ends"


def test_augseg_draws_around_half_and_clips_at_the_border() -> None:
    covered = areas("augseg", 300)
    assert 0.2 < covered.mean() < 0.45  # half the crop, less what lies outside
    assert covered.max() < 0.95


@pytest.mark.parametrize(
    ("preset", "partners"),
    [("french", [1, 2, 3, 0]), ("reco", [1, 2, 3, 0]), ("cps", [1, 2, 3, 0]), ("unimatch", [3, 2, 1, 0])],
)
def test_partners(preset: CutMixPreset, partners: list[int]) -> None:
    assert draw_mix(preset, 4, 16, 16, seeded(0)).partner.tolist() == partners


def test_augseg_permutes_the_batch() -> None:
    orders = {tuple(m.partner.tolist()) for m in draws("augseg", 100)}
    assert len(orders) > 10
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)


def test_features_are_mixed_as_the_pixels_they_lie_on() -> None:
    mix = draw_mix("french", 2, 9, 13, random.Random(0))
    small = on_features(mix, (3, 4))
    assert (small.partner.tolist(), small.group) == (mix.partner.tolist(), 2)
    assert torch.equal(small.box, mix.box[:, ::4, ::4])
    assert 0 < small.box.sum() < small.box.numel()
