"""Random intensity augmentation: what is drawn, and what each operation does to an image."""

import random
from collections import Counter

import pytest
import torch
import torchvision.transforms.functional as reference

from des4.data.operations import STRENGTHS, Operations, draw_operations, operated
from des4.data.views import Photometric, draw_photometric, strong_view


def rng(seed):
    return random.Random(seed)


def apply(name, strength, image):
    return operated(image[None], [Operations(((name, strength),))])[0]


def test_one_to_three_operations_are_drawn_each_as_often_in_its_range():
    draws = [draw_operations(rng(seed)) for seed in range(3000)]
    lengths = Counter(len(draw.steps) for draw in draws)
    assert all(lengths[k] / 3000 == pytest.approx(1 / 3, abs=0.03) for k in (1, 2, 3))
    steps = [step for draw in draws for step in draw.steps]
    assert all(
        count / len(steps) == pytest.approx(1 / 11, abs=0.015) for count in Counter(n for n, _ in steps).values()
    )
    assert {name for name, _ in steps} == STRENGTHS.keys()
    assert all(STRENGTHS[name][0] <= strength <= STRENGTHS[name][1] for name, strength in steps)
    bits = Counter(round(strength) for name, strength in steps if name == "posterise")
    assert set(bits) == {4, 5, 6, 7}  # eight would change nothing
    assert min(bits.values()) / bits.total() == pytest.approx(1 / 4, abs=0.06)
    assert {strength > 0 for name, strength in steps if name == "hue"} == {True, False}
    assert any(len(set(draw.steps)) > len({name for name, _ in draw.steps}) for draw in draws)  # with replacement
    assert draw_photometric("augseg", rng(7)) == draw_operations(rng(7))


@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (33, 33)])
def test_every_operation_takes_images_of_any_size_to_images(name, size):
    image = torch.rand(3, *size)
    for strength in STRENGTHS[name]:
        out = apply(name, strength, image)
        assert out.shape == image.shape
        assert out.dtype == torch.float32
        assert 0 <= out.min() <= out.max() <= 1
    if name == "identity":
        assert torch.equal(out, image)
    elif size == (33, 33) and name != "solarise":  # which inverts nothing at the upper end of its range
        assert not torch.equal(out, image)


def test_what_the_operations_do():
    image = torch.rand(3, 16, 16) * 0.5 + 0.2
    stretched = apply("autocontrast", 0, image)
    assert stretched.amin((1, 2)).tolist() == pytest.approx([0] * 3, abs=1e-6)
    assert stretched.amax((1, 2)).tolist() == pytest.approx([1] * 3, abs=1e-6)
    assert torch.allclose(apply("brightness", 0.5, image), image / 2)
    assert apply("contrast", 0.05, image).std() < 0.1 * image.std()
    grey = apply("colour", 0.0, image)
    assert torch.allclose(grey[0], grey[1], atol=1e-3)
    assert len(apply("posterise", 1, image).unique()) == 2
    assert torch.allclose(apply("solarise", 0.0, image), 1 - image)
    assert torch.allclose(apply("solarise", 1.0, image), image)
    assert apply("blur", 2.0, image).std() < 0.5 * image.std()
    levels = apply("equalise", 0, torch.linspace(0.4, 0.6, 4096).view(1, 64, 64).expand(3, 64, 64))
    assert (levels.min(), levels.max()) == (0, 1)
    pale = 0.5 + 0.1 * (image - 0.5)
    assert torch.allclose(apply("hue", 0.5, apply("hue", 0.5, pale)), pale, atol=1e-4)
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose(apply("hue", 0.25, pale).movedim(0, -1) @ luma, pale.movedim(0, -1) @ luma, atol=1e-4)
    assert torch.allclose(apply("sharpness", 0.3, image), reference.adjust_sharpness(image, 0.3), atol=1e-5)


def test_images_have_operations_of_their_own_in_order():
    images = torch.rand(2, 3, 8, 8)
    draws = [Operations((("brightness", 0.5), ("solarise", 0.0))), Operations((("identity", 0.0),))]
    out = strong_view(images, draws)
    assert torch.allclose(out[0], 1 - images[0] / 2)
    assert torch.equal(out[1], images[1])
    assert strong_view(images, [Photometric()] * 2) is images
