"""The MATLAB reader against files written from the format's description, and against one that SciPy wrote."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mat_files import CLASSES, element, mat_file, numbers, sbd_mask, struct_array

from des4.data_tools.downloads import matlab
from des4.data_tools.downloads.matlab import read_field
from des4.types import DataError

SCIPY = base64.b64decode(
    "TUFUTEFCIDUuMCBNQVQtZmlsZSBQbGF0Zm9ybTogcG9zaXgsIENyZWF0ZWQgb246IFN1biBOb3YgMjIgMjI6NTg6MTMgMjAyNgAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABSU0PAAAAUwAAAHic42NgYJgAxGxAzAHETAwQwArlMyJhkJh7SHJOMZjN"
    "wsALFQfRwanpual5JYklmfl5IP18QGyBZC4nmrkge5ih+hmgfJBaBhFGpv9ACQDEdQlE"
)
"""scipy.io.savemat of {"GTcls": {"Segmentation": uint8 [[0, 1, 255], [20, 2, 3]]}}, compressed (SciPy 1.17.1)."""

LABELS = np.array([[0, 1, 255], [20, 2, 3]], np.uint8)


def gtcls(content: bytes, **options: object) -> bytes:
    return mat_file(struct_array("GTcls", {"Segmentation": content}), **options)  # type: ignore[arg-type]


def refusal(data: bytes) -> str:
    with pytest.raises(DataError) as error:
        read_field(data, "GTcls", "Segmentation", "file.mat")
    (message,) = str(error.value).splitlines()
    assert message.startswith("file.mat: ")
    return message


def test_a_file_of_scipys() -> None:
    found = read_field(SCIPY, "GTcls", "Segmentation", "x")
    assert found.dtype == np.uint8
    assert found.tolist() == LABELS.tolist()


def test_a_mask_of_sbds_form() -> None:
    assert read_field(sbd_mask(LABELS), "GTcls", "Segmentation", "x").tolist() == LABELS.tolist()
    assert read_field(sbd_mask(LABELS), "GTcls", "CategoriesPresent", "x").tolist() == [[1], [2], [3], [20], [255]]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [True, False])
def test_byte_orders_and_other_variables(order: str, compressed: bool) -> None:
    variables = (
        numbers(np.eye(3), "before", order),
        struct_array("GTcls", {"Segmentation": numbers(LABELS, order=order)}, order),
    )
    data = mat_file(*variables, order=order, compressed=compressed)
    assert read_field(data, "GTcls", "Segmentation", "x").tolist() == LABELS.tolist()


@given(
    st.sampled_from(sorted(CLASSES)).flatmap(
        lambda code: arrays(f"<{code}", st.tuples(*[st.integers(1, 5)] * 2), elements=st.integers(0, 100))
    )
)
def test_every_type_of_numbers(values: np.ndarray) -> None:  # type: ignore[type-arg]
    found = read_field(gtcls(numbers(values)), "GTcls", "Segmentation", "x")
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype


def test_numbers_stored_narrower_than_their_class() -> None:
    values = np.array([[1.0, 2.0, 250.0]])
    assert read_field(gtcls(numbers(values, stored="u1")), "GTcls", "Segmentation", "x").tolist() == values.tolist()


def test_what_is_not_there_or_not_numbers() -> None:
    assert "no MATLAB 5 file" in refusal(b"")
    assert "no MATLAB 5 file" in refusal(b"\x89HDF\r\n\x1a\n" + b"\0" * 200)
    assert "no variable GTcls" in refusal(mat_file())
    assert "no variable GTcls" in refusal(mat_file(struct_array("GTinst", {"Segmentation": numbers(LABELS)})))
    assert "no field Segmentation" in refusal(mat_file(struct_array("GTcls", {"Boundaries": numbers(LABELS)})))
    assert "not a single struct" in refusal(mat_file(numbers(LABELS, "GTcls")))
    assert "not a single struct" in refusal(
        mat_file(struct_array("GTcls", {"Segmentation": numbers(LABELS)}, shape=(1, 2)))
    )
    assert "not an array of numbers" in refusal(gtcls(struct_array("", {})))


def test_damaged_files() -> None:
    data = sbd_mask(LABELS)
    for length in (130, 140, len(data) // 2, len(data) - 1):
        assert "holds no readable" in refusal(data[:length])
    plain = gtcls(numbers(LABELS), compressed=False)
    assert "an element is cut short" in refusal(plain[:-8])
    unchecked = data[:132] + struct.pack("<I", len(data) - 136 - 4) + data[136:-4]  # without zlib's checksum
    assert "a compressed element is cut short" in refusal(unchecked)
    assert "holds no readable" in refusal(data[:150] + bytes([data[150] ^ 1]) + data[151:])


def test_a_variable_that_unpacks_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matlab, "MAX_BYTES", 1000)
    assert "more than 1000 bytes" in refusal(gtcls(numbers(np.zeros((100, 100), np.uint8))))


@given(st.binary(max_size=200), st.booleans())
def test_noise_ends_in_one_line(noise: bytes, compressed: bool) -> None:
    packed = zlib.compress(noise)
    content = struct.pack("<II", 15, len(packed)) + packed if compressed else element(14, noise)
    refusal(mat_file(compressed=False) + content)
