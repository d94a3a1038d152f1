"""A learning curve is a campaign: supervised training with ever more of the masks that there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from des4.campaign.config import CampaignConfig
from des4.config import RunConfig, dump
from des4.data_tools.importing import prepared
from des4.data_tools.split_folder import Recipe, write_splits
from des4.data_tools.splits import counts_of, draw, pool_of, read_contents
from des4.datasets import open_files
from des4.datasets.files import FilesConfig
from des4.datasets.lists import content_hash
from des4.methods import METHODS
from des4.runlog import read_json
from des4.types import ConfigError, RunError


def curve(config: RunConfig, out: Path, masks: Sequence[int], seeds: Sequence[int]) -> CampaignConfig:
    """Make the campaign of a learning curve: supervised training with ever more of the masks that there are.

    config: of data in files and a method that reads no unlabeled image. masks: numbers of labeled images; none = all
    of them, and a half, a quarter and an eighth. The lists are drawn into `out`/lists once, stratified and each inside
    the next larger one. Raises ConfigError or DataError.
    """
    if METHODS[config.method.name].VIEWS.reads_unlabeled:
        raise ConfigError(
            f"method={config.method.name}: a learning curve is of supervised training; leave method out, or give "
            "method=supervised"
        )
    if not isinstance(config.data, FilesConfig):
        raise ConfigError("data: a learning curve is drawn of data in files; give data=FOLDER")
    dataset = open_files(prepared(config.data))
    pool = pool_of(dataset)
    numbers = sorted(set(masks)) or sorted({n for n in (len(pool) >> shift for shift in range(4)) if n >= 2})
    counts = counts_of(len(pool), (), [*numbers, *([len(pool)] if len(pool) not in numbers else [])], "--masks")
    recipe = Recipe(tuple(f"--count {name}" for name in counts), "stratified", nested=True, seed=0, pool=len(pool))
    lists = out / "lists"
    if not lists.exists():
        contents = read_contents(dataset, pool)
        write_splits(lists, dataset, draw(dataset, pool, counts, nested=True, contents=contents), contents, recipe)
    else:
        _refuse_other_lists(lists, recipe, {str(len(pool)): pool, "val": dataset.val})
    return CampaignConfig(
        out=out,
        settings=dump(config),
        methods={config.method.name: {}},
        lists={
            name: {f"data.{kind}": str(lists / name / f"{kind}.txt") for kind in ("labeled", "unlabeled")}
            | {"data.val": str(lists / "val.txt")}
            for name in counts
        },
        seeds=tuple(seeds),
        reference=config.method.name,
        full=str(len(pool)),
    )


def _refuse_other_lists(lists: Path, recipe: Recipe, now: Mapping[str, Sequence[str]]) -> None:
    """Raise RunError if lists that were drawn before are of other sizes or other images. now: the largest, and val."""
    drawn = read_json(lists / "splits.json")
    if tuple(drawn.get("sizes", ())) != recipe.sizes:
        raise RunError(f"{lists} holds lists of other sizes; give another folder with --out, or the same --masks")
    for name, ids in now.items():
        had = drawn["val"] if name == "val" else drawn["draws"][name]["labeled"]
        if had["hash"] != content_hash(ids):
            what = "val images" if name == "val" else "images with masks"
            raise RunError(f"{lists} was drawn from other {what} than are there now; give another folder with --out")
