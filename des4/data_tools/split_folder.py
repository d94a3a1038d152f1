"""The folder that `des4 data splits` writes: a list of each kind for every draw, and what was drawn by which rule.

    README.md  splits.json  val.txt  1_8/labeled.txt  1_8/unlabeled.txt  …

It appears as a whole, or not at all, and never in the place of anything.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from des4.data_tools.new_folder import new_folder, refuse_place
from des4.data_tools.splits import Contents, Draw, Rule
from des4.datasets.files import FileDataset
from des4.datasets.lists import content_hash, unquoted
from des4.types import DataError


@dataclass(frozen=True)
class Recipe:
    """What repeats the draws. sizes: the options that asked for them. pool: number of images drawn from.

    settings: of the data, with the option of their format: `labeled=list.txt`.
    """

    sizes: tuple[str, ...]
    rule: Rule
    nested: bool
    seed: int
    pool: int
    settings: tuple[str, ...] = ()

    def command(self) -> str:
        """Write the command that draws the same from the same data."""
        rules = [f"--{name}" for name, on in (("stratified", self.rule == "stratified"), ("nested", self.nested)) if on]
        given = [shlex.quote(setting) for setting in self.settings]
        return " ".join(["des4 data splits DATA", *given, "--out DIR", *self.sizes, f"--seed {self.seed}", *rules])


def write_splits(
    out: Path, dataset: FileDataset, draws: Sequence[Draw], contents: Contents, recipe: Recipe
) -> dict[str, Any]:
    """Write the folder; return what splits.json holds. contents: of the drawn images' masks at least.

    Raises DataError, also if the folder cannot be made.
    """
    refuse_place(out, dataset)
    _refuse_names(dataset.root, (dataset.val, *(ids for draw in draws for ids in (draw.labeled, draw.unlabeled))))
    facts = _facts(dataset, draws, contents, recipe)
    with new_folder(out) as partial:
        _write_lines(partial / "val.txt", dataset.val)
        for draw in draws:
            (partial / draw.name).mkdir()
            _write_lines(partial / draw.name / "labeled.txt", draw.labeled)
            _write_lines(partial / draw.name / "unlabeled.txt", draw.unlabeled)
        (partial / "splits.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (partial / "README.md").write_text(_readme(dataset, draws, contents, recipe), encoding="utf-8")
    return facts


def _refuse_names(root: Path, lists: Iterable[Iterable[str]]) -> None:
    """Raise DataError if a list would be read back with other names: what is around a name on its line is no part."""
    for sample_id in sorted({sample_id for ids in lists for sample_id in ids}):
        if unquoted(sample_id.strip()) != sample_id:
            raise DataError(
                f"{root}: no list can name the image {sample_id!r}, for spaces and quotes around a name are not read "
                "as part of it; rename its file or its folder"
            )


def _write_lines(path: Path, ids: Iterable[str]) -> None:
    path.write_text("".join(f"{sample_id}\n" for sample_id in ids), encoding="utf-8")


def _facts(dataset: FileDataset, draws: Sequence[Draw], contents: Contents, recipe: Recipe) -> dict[str, Any]:
    def about(ids: Sequence[str]) -> dict[str, Any]:
        return {"images": len(ids), "hash": content_hash(ids)}

    def fine(draw: Draw) -> dict[str, int]:
        known = dataset.catalogue.fine
        return {} if known is None else {"fine": len(set(draw.labeled) & set(known))}

    def classes(draw: Draw) -> dict[str, Any]:
        return {name: asdict(part) for name, part in contents.parts(draw.labeled).items()}

    return {
        "des4": version("des4"),
        **asdict(recipe),
        "never_shown": _never_shown(contents) if len(contents.ids) == recipe.pool else None,
        "val": about(dataset.val),
        "draws": {
            draw.name: {
                "labeled": about(draw.labeled) | fine(draw),
                "unlabeled": about(draw.unlabeled),
                "classes": classes(draw),
            }
            for draw in draws
        },
    }


def _never_shown(contents: Contents) -> list[str]:
    return [name for name, part in contents.parts(contents.ids).items() if not part.images]


def _readme(dataset: FileDataset, draws: Sequence[Draw], contents: Contents, recipe: Recipe) -> str:
    nested = "each inside the next larger one" if recipe.nested else "independent of each other"
    parts = [contents.parts(draw.labeled) for draw in draws]
    lists = [
        [f"`{draw.name}`", *(text for ids in (draw.labeled, draw.unlabeled) for text in (f"{len(ids)}", _hash(ids)))]
        for draw in draws
    ]
    classes = [
        [name.replace("|", r"\|"), *(f"{part[name].images} · {100 * part[name].share:.2f} %" for part in parts)]
        for name in contents.classes
    ]
    return "\n".join(
        [
            f"# Labeled images drawn from {dataset.root.resolve().name}",
            "",
            f"Rule: {recipe.rule}, {nested}; seed {recipe.seed}; from {recipe.pool} images with masks.",
            f"Validation: `val.txt`, {len(dataset.val)} images, hash {_hash(dataset.val)}.",
            "",
            f"    {recipe.command()}",
            "",
            "A hash is the SHA-256 of a list's sorted ids, as in a run's `results.json`.",
            "",
            *_markdown(["draw", "labeled", "hash", "unlabeled", "hash"], lists),
            "",
            "How many labeled images show a class, and its share of their pixels:",
            "",
            *_markdown(["class", *(f"`{draw.name}`" for draw in draws)], classes),
            "",
        ]
    )


def _hash(ids: Iterable[str]) -> str:
    return f"`{content_hash(ids)}`"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]
