import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import encode, put

from des4.datasets.masks import ColourMask, IndexMask, TableMask, table_of_colours, table_of_numbers
from des4.types import DataError

RED, GREEN, BLUE, ODD = (255, 0, 0), (0, 255, 0), (0, 0, 255), (1, 2, 3)
COLOURS = table_of_colours({RED: 0, GREEN: 1, BLUE: 255, ODD: 2})

colours = st.lists(st.tuples(*3 * [st.integers(0, 255)]), min_size=1, max_size=8, unique=True)


def refusal(mask):
    with pytest.raises(DataError) as error:
        mask.read()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_colours_become_what_they_stand_for(tmp_path):
    array = np.array([[RED, GREEN, ODD], [BLUE, RED, RED]], np.uint8)
    mask = ColourMask(put(tmp_path / "a.png", encode(array)), COLOURS)
    assert mask.size() == (2, 3)
    assert mask.read().dtype == torch.uint8
    assert mask.read().tolist() == [[0, 1, 2], [255, 0, 0]]


def test_a_palette_of_colours_is_read_by_its_colours(tmp_path):
    indices = np.array([[0, 2], [1, 1]], np.uint8)
    mask = ColourMask(put(tmp_path / "a.png", encode(indices, palette=(BLUE, ODD, GREEN))), COLOURS)
    assert mask.size() == (2, 2)
    assert mask.read().tolist() == [[255, 1], [2, 2]]


def test_a_palette_with_a_colour_that_means_nothing_is_read_by_its_indices(tmp_path):
    path = put(tmp_path / "a.png", encode(np.array([[0, 1]], np.uint8), palette=(ODD, (9, 9, 9))))
    assert TableMask(path, COLOURS).read().tolist() == [[0, 1]]


def test_an_unknown_colour_is_named_with_its_place(tmp_path):
    array = np.full((4, 5, 3), RED, np.uint8)
    array[2, 3] = array[3, 0] = (254, 0, 0)
    mask = ColourMask(put(tmp_path / "a.png", encode(array)), COLOURS)
    message = refusal(mask)
    assert "a.png: the colour (254, 0, 0) at row 2, column 3 stands for no class (2 such pixels)" in message


@settings(max_examples=40, deadline=None)
@given(colours, st.randoms(use_true_random=False))
def test_any_colours_are_told_apart(tmp_path_factory, names, random):
    """Against a plain loop over pixels."""
    indices = np.array([[random.randrange(len(names)) for _ in range(7)] for _ in range(5)])
    array = np.array(names, np.uint8)[indices]
    path = put(tmp_path_factory.mktemp("colours") / "a.png", encode(array))
    label = ColourMask(path, table_of_colours({colour: index for index, colour in enumerate(names)})).read()
    expected = [[names.index(tuple(pixel)) for pixel in row] for row in array.tolist()]
    assert label.tolist() == expected


def test_masks_without_colours_are_refused_by_colour_masks_and_the_reverse(tmp_path):
    grey = put(tmp_path / "grey.png", encode(np.zeros((2, 2), np.uint8)))
    assert "mode L of 8 bits, not colours" in refusal(ColourMask(grey, COLOURS))
    with pytest.raises(DataError, match="mode L"):
        ColourMask(grey, COLOURS).size()
    for opaque in (0, 128):
        alpha = put(tmp_path / "alpha.png", encode(np.full((2, 2, 4), (*RED, opaque), np.uint8)))
        assert "transparent pixels" in refusal(ColourMask(alpha, COLOURS))
    jpeg = put(tmp_path / "a.jpg", encode(np.zeros((2, 2, 3), np.uint8), ".jpg"))
    assert "JPEG file" in refusal(ColourMask(jpeg, COLOURS))
    colours = encode(np.full((2, 2, 3), (0, 9, 9), np.uint8))
    assert "in colour" in refusal(IndexMask(put(tmp_path / "c.png", colours)))


def test_a_truncated_colour_mask_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    path = put(tmp_path / "a.png", encode(noise)[:900])
    assert "a.png: cannot be read" in refusal(ColourMask(path, COLOURS))


def test_numbers_become_what_they_stand_for_and_unknown_ones_are_named(tmp_path):
    table = table_of_numbers({7: 0, 26: 1, 0: 255})
    mask = IndexMask(put(tmp_path / "a.png", encode(np.array([[7, 26], [0, 7]], np.uint8))), table)
    assert mask.read().tolist() == [[0, 1], [255, 0]]
    wrong = IndexMask(put(tmp_path / "b.png", encode(np.array([[7, 34], [0, 7]], np.uint8))), table)
    assert "b.png: the number 34 at row 0, column 1 stands for no class (1 such pixels)" in refusal(wrong)


def test_what_a_mask_gives_can_be_written_to(tmp_path):
    """Tensors of read-only memory warn, and break what works in place."""
    for mask in (
        IndexMask(put(tmp_path / "i.png", encode(np.zeros((2, 2), np.uint8)))),
        IndexMask(tmp_path / "i.png", table_of_numbers({0: 3})),
        ColourMask(put(tmp_path / "c.png", encode(np.full((2, 2, 3), RED, np.uint8))), COLOURS),
    ):
        assert mask.read().fill_(1).sum() == 4


def test_a_mask_of_sixteen_bits_is_read_where_its_labels_fit(tmp_path):
    Image.fromarray(np.array([[1, 200]], np.uint16)).save(tmp_path / "a.png")
    assert IndexMask(tmp_path / "a.png").read().tolist() == [[1, 200]]
