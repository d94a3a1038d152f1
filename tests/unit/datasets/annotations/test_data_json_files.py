import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from des4.datasets.annotations import json_files
from des4.datasets.annotations.json_files import JsonFile, head, read_json
from des4.types import DataError

texts = st.text(st.characters(codec="utf-8"), max_size=8)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def write(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path):
    with pytest.raises(DataError) as error:
        list(JsonFile(path).elements({"a"}))
    message = str(error.value)
    with pytest.raises(DataError):
        read_json(path)
    assert "\n" not in message
    return message


@settings(deadline=None)
@given(
    st.dictionaries(texts, values, max_size=5),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.sampled_from([b"", b"\xef\xbb\xbf", b" \r\n\t"]),
)
def test_a_file_falls_apart_into_what_it_was_made_of(tmp_path_factory, content, escaped, indent, start):
    text = json.dumps(content, ensure_ascii=escaped, indent=indent)
    path = tmp_path_factory.mktemp("json") / "file.json"
    path.write_bytes(start + text.encode())
    spread = set(content)
    file = JsonFile(path)
    found = list(file.elements(spread))
    expected = [(key, one) for key, value in content.items() for one in (value if isinstance(value, list) else [value])]
    assert [(key, value) for key, value, _ in found] == expected
    assert file.parts([span for *_, span in found]) == [value for _, value in expected]
    assert [(key, value) for key, value, _ in file.elements()] == list(content.items())
    assert read_json(path) == content


def test_the_elements_of_a_list_have_the_empty_key(tmp_path):
    path = write(tmp_path, '[1, {"a": "é"}, []]')
    found = list(JsonFile(path).elements())
    assert [(key, value) for key, value, _ in found] == [("", 1), ("", {"a": "é"}), ("", [])]
    (span,) = [span for _, value, span in found if value == {"a": "é"}]
    assert path.read_bytes()[slice(*span)] == '{"a": "é"}'.encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "begins with neither"),
        ("tru", "begins with neither"),
        ("[1", "',' is missing"),
        ("[1,]", "a comma too many"),
        ("[1 2]", "',' is missing"),
        ("[1] 2", "something follows"),
        ('{"a": [1, 2}', "',' is missing"),
        ('{"a" 1}', "':' is missing"),
        ('{1: "a"}', "a key is no text"),
        ('{"a": 1,}', "a comma too many"),
        ('{"a": }', "Expecting value, line 1"),
        ('\n\n{"a": \n"b}', "Unterminated string starting at, line 4"),
        ('{"b": NaN}', "NaN is no number"),
        ('{"a": [-Infinity]}', "-Infinity is no number"),
        ('{"b": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ("[" * 100_000, "nested too deeply"),
        ('{"b": ' + '{"a":' * 100_000, "nested too deeply"),
        (b'["\xff\xfe"]', "not in UTF-8"),
        ('["é"]'.encode("utf-16"), "begins with neither"),
        (b"\x00" * 50, "begins with neither"),
    ],
)
def test_what_is_no_json_is_named(tmp_path, content, reason):
    assert reason in refusal(write(tmp_path, content))


def test_files_that_are_missing_too_large_or_changed_are_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "gone.json", tmp_path, tmp_path / "pipe.json"):
        assert "no such file" in refusal(path)
    path = write(tmp_path, "[1, 2]")
    file = JsonFile(path)
    (*_, span), _ = file.elements()
    write(tmp_path, "[3, 4]")
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match="has changed since"):
        file.parts([span])
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        file.parts([span])
    monkeypatch.setattr(json_files, "MAX_BYTES", 5)
    assert "exceed the limit" in refusal(write(tmp_path, "[1, 2]"))


def test_the_head_is_a_kibibyte_and_never_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert head(write(tmp_path, b"\xef\xbb\xbf{" + b" " * 5000)) == "{" + " " * 1020
    assert head(tmp_path) == head(tmp_path / "gone") == head(tmp_path / "pipe") == ""
