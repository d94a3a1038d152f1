from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from des4.campaign import read_campaign
from des4.types import ConfigError


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reference": "theirs"}, "reference: `theirs` is none of the methods plain, ours"),
        ({"full": "most"}, "full: `most` is none of the lists few, all"),
        ({"methods": {"ours": {"lists": ["some"]}}, "reference": None}, "methods.ours.lists: some is none of few, all"),
        ({"methods": {"plain": {"lists": "few"}}}, "methods.plain.lists: is a list, such as [few]"),
        ({"colour": 1}, "colour: there is no such key; there are out, settings"),
        ({"referense": "plain"}, "referense: there is no such key; did you mean reference?"),
        ({"seeds": 3}, "seeds: is a list of numbers, such as [0, 1, 2]"),
        ({"seeds": [0, 1, 0]}, "seeds: 0 stands twice"),
        ({"lists": {}}, "lists"),
        (
            {"lists": {12: {}}, "full": None},
            "lists: 12 is no text to YAML; write a name that is a number between quotes",
        ),
        ({"methods": {"plain": {"lists": [12]}}}, "methods.plain.lists: 12 is no text to YAML; write a name"),
        ({"methods": {"plain": {"config": 3}}}, "methods.plain.config: is the path of a config file, not 3"),
        ({"lists": {"..": {}, "few": {}}, "full": None}, "lists: `..` cannot be the name of a folder"),
        ({"methods": {"a/b": {}}, "reference": None}, "methods: `a/b` cannot be the name of a folder"),
    ],
)
def test_a_mistake_in_the_file_is_named(file: Path, changed: dict[str, Any], message: str) -> None:
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **changed}, sort_keys=False))
    with pytest.raises(ConfigError) as error:
        read_campaign(file)
    assert message in str(error.value) and str(file) in str(error.value)
