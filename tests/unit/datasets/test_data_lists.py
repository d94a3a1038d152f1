import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from des4.datasets.lists import content_hash, read_list
from des4.types import DataError


def test_a_line_is_a_stem_or_a_pair(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufefftrain/a\r\n\nmy photo\nJPEG/b.jpg Masks/b.png\nJPEG/c d.jpg\tMasks/c d.png".encode())
    assert read_list(path) == (
        ("train/a", None),
        ("my photo", None),
        ("JPEG/b.jpg", "Masks/b.png"),
        ("JPEG/c d.jpg", "Masks/c d.png"),
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b" \n\n", "empty"), (b"a\nb\na\n", "'a' is listed twice"), (b"\xff\xfe\x00", "read")],
)
def test_a_useless_list_is_refused_in_one_line(tmp_path, content, reason):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as error:
        read_list(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt"):
        read_list(tmp_path / "gone.txt")


names = st.text(st.characters(exclude_characters="\n", codec="utf-8"), min_size=1, max_size=9)


@given(st.lists(names, max_size=9, unique=True), st.randoms())
def test_the_hash_names_the_set_of_ids(ids, rng):
    shuffled = ids.copy()
    rng.shuffle(shuffled)
    assert content_hash(ids) == content_hash(shuffled)
    assert content_hash([*ids, "one\nmore"]) != content_hash(ids)


def test_the_hash_is_the_one_of_the_sorted_lines():
    assert content_hash(["b", "a"]) == hashlib.sha256(b"a\nb\n").hexdigest()
