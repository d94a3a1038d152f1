"""Names that were public in `des4.data` before there was `des4.datasets`."""

from __future__ import annotations

import importlib

import pytest

from des4 import data, datasets


@pytest.mark.parametrize("name", ["FolderConfig", "CocoConfig", "open_files", "FORMATS", "DATASETS", "pixel_counts"])
def test_names_that_moved_are_still_found(name: str) -> None:
    assert getattr(data, name) is getattr(datasets, name)


def test_others_are_not() -> None:
    with pytest.raises(AttributeError, match=r"'des4\.data' has no attribute 'nothing'"):
        data.nothing  # noqa: B018  # reading it is the test
    assert "open_files" not in importlib.import_module("des4.data").__all__
