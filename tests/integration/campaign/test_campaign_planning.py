from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from des4 import campaign
from des4.types import ConfigError


def test_a_wrong_setting_is_found_before_anything_is_trained(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    content["methods"]["ours"]["treshold"] = 0.5
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError, match="treshold"):
        campaign.plan(campaign.read_campaign(file))


def test_a_setting_nearer_to_a_run_wins(file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(file.read_text())
    (tmp_path / "own.yaml").write_text("optim: {lr: 0.1, weight_decay: 0.1}")
    content["settings"]["optim"] = {"lr": 0.2}
    content["lists"]["few"]["optim.lr"] = 0.3
    content["methods"]["plain"]["config"] = str(tmp_path / "own.yaml")
    content["methods"]["ours"]["optim.lr"] = 0.4
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    runs = campaign.plan(campaign.read_campaign(file))
    rates = {(run.method, run.lists): run.config.optim.lr for run in runs}
    assert rates == {("plain", "few"): 0.3, ("ours", "few"): 0.4, ("plain", "all"): 0.2}
    assert [run.config.optim.weight_decay for run in runs if run.method == "plain"] == [0.1, 0.1]
    assert {run.config.optim.lr for run in campaign.plan(campaign.read_campaign(file), ["lr=0.5"])} == {0.5}


@pytest.mark.parametrize("own", [{"data.labeled": 3}, {"data": {"val": 2}}, {"unlabeled": 3}])
def test_a_method_has_no_lists_of_its_own(file: Path, own: dict[str, Any]) -> None:
    content = yaml.safe_load(file.read_text())
    content["methods"]["ours"] |= own
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError, match=r"methods\.ours: data\.\w+ cannot be a method's own.*write it under lists"):
        campaign.plan(campaign.read_campaign(file))


def test_the_file_of_a_method_brings_no_other_lists(file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(file.read_text())
    (tmp_path / "own.yaml").write_text("data: {name: scenes, unlabeled: 3, val: 2}")
    content["methods"]["ours"]["config"] = str(tmp_path / "own.yaml")
    del content["settings"]["data"]["val"]
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError, match=r"lists\.few: data\.val is 64 for plain and 2 for ours"):
        campaign.plan(campaign.read_campaign(file))
    del content["methods"]["plain"]  # alone it may
    content["reference"] = None
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    assert len(campaign.plan(campaign.read_campaign(file))) == 1


@pytest.mark.parametrize(
    ("override", "place"),
    [("seed=5", "seeds"), ("out=here", "out"), ("data.labeled=3", "lists"), ("method=des4", "methods")],
)
def test_an_override_does_not_make_one_run_of_several(file: Path, override: str, place: str) -> None:
    """With one seed for all, runs would be counted as independent that are the same."""
    with pytest.raises(ConfigError, match=rf"tells the runs .* apart.*change {place} in the campaign file"):
        campaign.plan(campaign.read_campaign(file), [override])
    content = yaml.safe_load(file.read_text())
    content["settings"]["method"] = "supervised"
    content["methods"] = {"plain": {}, "slow": {"optim.lr": 0.1}}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    if place == "methods":  # which no method says for itself: then it is like any setting
        assert {r.config.method.name for r in campaign.plan(campaign.read_campaign(file), [override])} == {"des4"}
