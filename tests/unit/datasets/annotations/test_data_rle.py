"""Run-length codes: against the COCO API, against published examples, and against encoders written from the formats."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_api

from des4.datasets.annotations.regions import RegionError, counted_runs, painted
from des4.datasets.annotations.rle import counts_of_text, unpacked_words


def packed(words, length_sizes=(3, 4, 8, 16), chunk=1):
    """Pack bytes as @thi.ng/rle-pack describes it. chunk: words of a chunk that is not repeated, at most."""
    bits = f"{len(words):032b}{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in length_sizes)

    def begin(kind, length):
        choice = next(place for place, size in enumerate(length_sizes) if length <= 1 << size)
        return f"{kind}{choice:02b}{length - 1:0{length_sizes[choice]}b}"

    place = 0
    while place < len(words):
        run = 1
        while run < 1 << max(length_sizes) and place + run < len(words) and words[place + run] == words[place]:
            run += 1
        if run > 1:
            bits += f"{begin(1, run)}{words[place]:08b}"
        else:
            run = min(chunk, len(words) - place)
            bits += begin(0, run) + "".join(f"{word:08b}" for word in words[place : place + run])
        place += run
    bits += "0" * (-len(bits) % 8)
    return np.array([int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)], np.uint8)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1), st.integers(0, 9), st.booleans())
def test_compressed_counts_are_those_of_the_coco_api(height, width, seed, tenths, coarse):
    bitmap = np.random.default_rng(seed).random((height, width)) < tenths / 9
    if coarse:
        bitmap[:, : width // 2] = tenths < 5
    coded = coco_api.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    counts = counts_of_text(coded["counts"].decode())
    assert (painted([(counted_runs(counts, height, width), 1)], height, width, 0).numpy() == bitmap).all()


def text_of(counts):
    """Write counts as the COCO API does: the fourth on as differences to the last but one, in groups of five bits."""
    text = ""
    for place, count in enumerate(counts):
        rest, more = count - (counts[place - 2] if place > 2 else 0), True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 2**24 - 1), min_size=1, max_size=12))  # above, the API writes beyond its memory
def test_counts_survive_the_coco_apis_text(counts):
    text = coco_api.frPyObjects([{"size": [sum(counts) or 1, 1], "counts": counts}], sum(counts) or 1, 1)[0]["counts"]
    assert text.decode() == text_of(counts) and counts_of_text(text.decode()).tolist() == counts


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12))
def test_counts_of_any_size_survive_their_text(counts):
    assert counts_of_text(text_of(counts)).tolist() == counts


def test_compressed_counts_by_hand():
    assert counts_of_text("").tolist() == []
    assert counts_of_text("0").tolist() == [0]
    assert counts_of_text("?").tolist() == [15]
    assert counts_of_text("`0").tolist() == [16]  # groups 16 and 0: the sign bit must not be the last group's
    assert counts_of_text("1234").tolist() == [1, 2, 3, 6]  # 4 is the difference to 2
    assert counts_of_text("5553O").tolist() == [5, 5, 5, 8, 4]  # O is −1


@pytest.mark.parametrize("text", ["a", "0\x10", "0 0", "é", "\udc80", "p" * 12 + "0"])
def test_texts_that_are_no_counts_are_refused(text):
    with pytest.raises(RegionError, match="the counts hold"):
        counts_of_text(text)


PUBLISHED = {
    # label-studio-converter, tests/test_brush.py (Apache-2.0)
    (1, 1, 1, 1, 2, 3, 5, 6, 7, 8, 4, 4, 4, 4, 4, 4, 4, 4): [
        *(0, 0, 0, 18, 57, 27, 252, 96, 32, 1, 0, 6, 0, 40, 0, 192, 3, 128, 17, 56, 32),
    ],
    # thi.ng/umbrella, tests of packages/column-store (Apache-2.0)
    (0, 0, 0, 10, 10, 20): [0, 0, 0, 6, 57, 27, 252, 64, 16, 133, 64, 40],
}


@pytest.mark.parametrize("words", PUBLISHED, ids=len)
def test_published_streams_are_read(words):
    assert unpacked_words(np.array(PUBLISHED[words], np.uint8), len(words)).tolist() == list(words)


def test_the_encoder_of_these_tests_writes_what_label_studios_does():
    words, stream = next(iter(PUBLISHED.items()))
    assert packed(words).tolist() == stream


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(1, 300)), min_size=1, max_size=20),
    st.lists(st.integers(1, 16), min_size=3, max_size=3),
    st.integers(1, 9),
)
def test_streams_are_unpacked(runs, sizes, chunk):
    words = [word for word, length in runs for _ in range(length)]
    stream = packed(words, (*sizes, 16), chunk)
    assert unpacked_words(stream, len(words)).tolist() == words


def test_long_chunks_are_unpacked_from_any_bit():
    words = np.random.default_rng(0).integers(0, 256, 100_000).tolist()
    for first in range(3):
        assert unpacked_words(packed(words[first:], chunk=1 << 16), len(words) - first).tolist() == words[first:]


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 100))
def test_broken_streams_are_refused(data, num_words):
    header = packed(list(range(num_words)))[:7]
    for stream in (np.frombuffer(data, np.uint8), np.append(header, np.frombuffer(data, np.uint8))):
        try:
            assert len(unpacked_words(stream, num_words)) == num_words
        except RegionError as error:
            assert "brush mask" in str(error)


def test_streams_of_another_size_are_refused():
    stream = packed([1, 2, 3, 4])
    with pytest.raises(RegionError, match="holds 4 words of 8 bits, not 8 of 8"):
        unpacked_words(stream, 8)
    with pytest.raises(RegionError, match="breaks off"):
        unpacked_words(stream[:-2], 4)
