import random

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from des4.data.views import (
    CropBox,
    Photometric,
    ViewsConfig,
    crop_image,
    crop_label,
    draw_crop,
    draw_photometric,
    padded_views,
    strong_view,
)
from des4.types import IGNORE

FILL = (0.2, 0.4, 0.6)


def rng(seed):
    return random.Random(seed)


def view_of(image, box, config):
    """The view of a single image, and where it is no padding."""
    views, valid = padded_views(crop_image(image, box, config)[None], [box], FILL)
    return views[0], valid[0]


side = st.integers(1, 90)


@given(side, side, side, side, st.floats(0.3, 3), st.integers())
def test_any_image_gives_a_full_crop_and_padding_is_told_apart(height, width, crop_height, crop_width, scale, seed):
    config = ViewsConfig(crop_size=(crop_height, crop_width), scale=(scale, scale))
    box = draw_crop(config, height, width, rng(seed))
    image, label = torch.full((3, height, width), 255, dtype=torch.uint8), torch.ones(height, width, dtype=torch.uint8)
    cropped = crop_label(label, box, config)
    view, valid = view_of(image, box, config)
    assert view.shape == (3, crop_height, crop_width)
    assert (view.dtype, cropped.dtype) == (torch.float32, torch.uint8)
    assert view.is_contiguous()
    assert (view[:, valid] == 1).all()
    assert torch.equal(view[:, ~valid], torch.tensor(FILL)[:, None].expand(3, int((~valid).sum())))
    assert torch.equal(cropped, torch.where(valid, 1, IGNORE))
    if height >= crop_height / scale + 1 and width >= crop_width / scale + 1:
        assert valid.all()


@pytest.mark.parametrize("seed", range(12))
def test_image_and_mask_stay_aligned_within_half_a_pixel(seed):
    """The mask as a picture: after the same crop, thresholding the picture gives the mask but at pixels on its edge."""
    rows, columns = torch.meshgrid(torch.arange(120.0), torch.arange(150.0), indexing="ij")
    mask = (((rows - 60) ** 2 + (columns - 75) ** 2) < 40**2).to(torch.uint8)
    config = ViewsConfig(crop_size=96)
    box = draw_crop(config, 120, 150, rng(seed))
    crop, label = crop_image(mask.expand(3, -1, -1) * 255, box, config), crop_label(mask, box, config)
    view = padded_views(crop[None], [box], (0, 0, 0))[0][0]
    wrong = (view[0] > 0.5) != (label == 1)
    edge = (view[0] > 0.02) & (view[0] < 0.98)
    assert not (wrong & ~edge).any()

    def centroid(weight):  # a constant shift would show here, however small
        ys, xs = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
        return torch.stack([(ys * weight).sum(), (xs * weight).sum()]) / weight.sum()

    if (label == 1).any():
        assert (centroid(view[0]) - centroid((label == 1).float())).abs().max() < 0.25


def test_without_scaling_a_crop_is_a_cut():
    config = ViewsConfig(crop_size=16, scale=(1, 1), flip=1)
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    box = draw_crop(config, 40, 50, rng(1))
    cut = image[:, box.top : box.top + 16, box.left : box.left + 16].flip(-1) / 255
    assert torch.equal(view_of(image, box, config)[0], cut)


@given(side, side, st.integers(1, 40), st.floats(0.3, 3), st.integers())
def test_the_layout_of_the_memory_changes_nothing(height, width, crop, scale, seed):
    config = ViewsConfig(crop_size=crop, scale=(scale, scale))
    image = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed % 99)).byte()
    decoded = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    box = draw_crop(config, height, width, rng(seed))
    assert torch.equal(crop_image(image, box, config), crop_image(decoded, box, config))


@pytest.mark.parametrize("scale", [0.6, 1.7])
def test_a_crop_is_the_resized_part_to_the_grey_level(scale):
    config = ViewsConfig(crop_size=64, scale=(scale, scale), flip=1)
    image = torch.randint(0, 256, (3, 150, 170), generator=torch.Generator().manual_seed(0)).byte()
    box = draw_crop(config, 150, 170, rng(4))
    part = image[:, box.top : box.top + box.height, box.left : box.left + box.width].float()
    exact = reference.resize(part, [64, 64], antialias=True).flip(-1)
    assert (view_of(image, box, config)[0] * 255 - exact).abs().max() <= 1


def test_samples_of_a_batch_are_padded_each_by_its_own_box():
    config = ViewsConfig(crop_size=40, scale=(0.5, 2.0))
    images = [torch.randint(0, 256, (3, 50, 30 + 7 * n), dtype=torch.uint8) for n in range(5)]
    boxes = [draw_crop(config, *image.shape[1:], rng(n)) for n, image in enumerate(images)]
    crops = [crop_image(image, box, config) for image, box in zip(images, boxes, strict=True)]
    views, valid = padded_views(torch.stack(crops), boxes, FILL)
    for n, box in enumerate(boxes):
        view, inside = view_of(images[n], box, config)
        assert torch.equal(views[n], view)
        assert torch.equal(valid[n], inside)
        assert inside.sum() == box.out_height * box.out_width
    assert 0 < (~valid).sum() < valid.numel()


def test_scale_and_place_are_uniform_over_their_ranges():
    config = ViewsConfig(crop_size=50, scale=(0.5, 2.0))
    boxes = [draw_crop(config, 400, 400, rng(seed)) for seed in range(2000)]
    factors = torch.tensor([50 / box.height for box in boxes])
    assert factors.min() >= 0.49
    assert factors.max() <= 2.01
    assert factors.mean() == pytest.approx(1.25, abs=0.04)
    assert sum(box.flip for box in boxes) / 2000 == pytest.approx(0.5, abs=0.05)
    tops = torch.tensor([box.top / (400 - box.height) for box in boxes])
    assert tops.mean() == pytest.approx(0.5, abs=0.03)
    small = [draw_crop(ViewsConfig(crop_size=50, scale=(1, 1)), 20, 30, rng(seed)) for seed in range(2000)]
    assert {(box.out_height, box.out_width) for box in small} == {(20, 30)}
    assert sum(box.out_top for box in small) / 2000 == pytest.approx(15, abs=1)
    assert sum(box.out_left for box in small) / 2000 == pytest.approx(10, abs=1)


def test_settings_are_checked():
    assert ViewsConfig(crop_size=(3, 4)).crop == (3, 4)
    assert ViewsConfig(crop_size=513).crop == (513, 513)
    for wrong in ({"crop_size": 0}, {"scale": (2, 1)}, {"scale": (0, 1)}, {"flip": 2}, {"cutmix": "yes"}):
        with pytest.raises(ValidationError):
            ViewsConfig(**wrong)


def test_no_draw_changes_nothing_and_copies_nothing():
    images = torch.rand(2, 3, 8, 8)
    assert strong_view(images, [draw_photometric("none", rng(i)) for i in range(2)]) is images


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (Photometric(brightness=0.7), lambda x: reference.adjust_brightness(x, 0.7)),
        (Photometric(contrast=0.6), lambda x: reference.adjust_contrast(x, 0.6)),
        (Photometric(saturation=0.5), lambda x: reference.adjust_saturation(x, 0.5)),
        (Photometric(grey=1.0), lambda x: reference.rgb_to_grayscale(x, 3)),
        (
            Photometric(brightness=0.8, contrast=0.7, saturation=0.6),
            lambda x: reference.adjust_saturation(
                reference.adjust_contrast(reference.adjust_brightness(x, 0.8), 0.7), 0.6
            ),
        ),
    ],
)
def test_the_fused_colours_are_those_of_torchvision(draw, expected):
    images = torch.rand(2, 3, 9, 7)
    assert torch.allclose(strong_view(images, [draw, Photometric()])[0], expected(images[0]), atol=2e-3)
    assert torch.allclose(strong_view(images, [Photometric(), draw])[0], images[0], atol=1e-5)


def test_hue_turns_colour_and_keeps_luma():
    images = 0.4 + 0.2 * torch.rand(1, 3, 9, 7)
    luma = torch.tensor([0.299, 0.587, 0.114])
    turned = strong_view(images, [Photometric(hue=0.25)])
    assert not torch.allclose(turned, images, atol=0.02)
    assert torch.allclose(torch.einsum("bchw,c->bhw", turned - images, luma), torch.zeros(1, 9, 7), atol=1e-4)
    assert torch.allclose(strong_view(turned, [Photometric(hue=-0.25)]), images, atol=1e-4)


def test_blur_is_a_gaussian_of_its_own_sigma():
    images = torch.rand(3, 3, 32, 24)
    out = strong_view(images, [Photometric(sigma=1.3), Photometric(), Photometric(sigma=0.4)])
    for sample, sigma in ((0, 1.3), (2, 0.4)):
        expected = reference.gaussian_blur(images[sample], [13, 13], [sigma, sigma])
        assert torch.allclose(out[sample, :, 8:-8, 8:-8], expected[:, 8:-8, 8:-8], atol=1e-5)
    assert torch.allclose(out[1], images[1], atol=1e-5)
    assert strong_view(torch.full((1, 3, 4, 3), 0.5), [Photometric(sigma=2.0)]).sub(0.5).abs().max() < 1e-5
    both = strong_view(images[:1], [Photometric(brightness=0.6, sigma=1.3)])[0]  # a blur is of the changed colours
    assert torch.allclose(both, 0.6 * out[0], atol=1e-5)


@pytest.mark.parametrize(
    ("preset", "strength", "saturation", "hue", "blur", "changed", "grey"),
    [
        ("unimatch", 0.5, 0.5, 0.25, 0.5, 0.8, 0.2),
        ("french", 0.4, 0.4, 0.1, 0.0, 0.8, 0.2),
        ("pseudoseg", 0.5, 0.5, 0.25, 0.0, 1.0, 0.0),
        ("cmb", 0.25, 0.125, 1 / 12, 0.2, 0.8, 0.0),
    ],
)
def test_presets_draw_from_their_ranges(preset, strength, saturation, hue, blur, changed, grey):
    draws = [draw_photometric(preset, rng(seed)) for seed in range(3000)]
    jittered = [draw for draw in draws if draw.brightness != 1]
    assert len(jittered) / 3000 == pytest.approx(changed, abs=0.03)
    assert sum(draw.grey for draw in draws) / 3000 == pytest.approx(grey, abs=0.03)
    assert sum(draw.sigma > 0 for draw in draws) / 3000 == pytest.approx(blur, abs=0.03)
    assert max(abs(draw.contrast - 1) for draw in jittered) == pytest.approx(strength, abs=0.02)
    assert max(abs(draw.saturation - 1) for draw in jittered) == pytest.approx(saturation, abs=0.02)
    assert max(abs(draw.hue) for draw in jittered) == pytest.approx(hue, abs=0.02)
    assert all(0.1 <= draw.sigma <= (1.5 if preset == "cmb" else 2) for draw in draws if draw.sigma)


def test_a_box_can_be_written_by_hand():
    box = CropBox(top=0, left=0, height=2, width=2, out_height=4, out_width=4, out_top=1, out_left=0, flip=False)
    config = ViewsConfig(crop_size=5)
    label = crop_label(torch.tensor([[0, 1], [2, 3]], dtype=torch.uint8), box, config)
    assert label.tolist() == [
        [255, 255, 255, 255, 255],
        [0, 0, 1, 1, 255],
        [0, 0, 1, 1, 255],
        [2, 2, 3, 3, 255],
        [2, 2, 3, 3, 255],
    ]


def test_images_of_bands_are_cut_padded_and_resized_as_bytes_are():
    config = ViewsConfig(crop_size=(40, 30), scale=(0.7, 0.7))
    box = draw_crop(config, 33, 29, rng(0))
    image = torch.rand(33, 29, 5).permute(2, 0, 1)
    fill = (0.1, 0.2, 0.3, 0.4, 0.5)
    crop = crop_image(image, box, config)
    views, valid = padded_views(crop[None].clone(), [box], fill)
    assert (views.shape, views.dtype) == ((1, 5, 40, 30), torch.float32)
    assert views[0][:, ~valid[0]].unique(dim=1).flatten().tolist() == pytest.approx(fill)
    bands = crop_image((image[:3] * 255).round().to(torch.uint8), box, config)
    assert (bands.float() / 255 - crop[..., :3]).abs().max() < 0.01


def test_bands_have_brightness_contrast_and_blur_but_no_colour():
    images = torch.rand(3, 5, 16, 16)
    draws = [Photometric(0.8, 0.5, 0.3, 0.2, 1.0, 0.0), Photometric(saturation=0.1, hue=0.2, grey=1.0), Photometric()]
    out = strong_view(images, draws, colour=False)
    mean = images[0].mean((1, 2), keepdim=True)
    assert torch.allclose(out[0], (0.8 * (mean + 0.5 * (images[0] - mean))).clamp(0, 1), atol=1e-5)
    assert torch.allclose(out[1:], images[1:], atol=1e-6)
    blurred = strong_view(images, [Photometric(sigma=1.0)] * 3, colour=False)
    assert blurred.std() < 0.5 * images.std()
