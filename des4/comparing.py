"""The page of a comparison of runs, with its picture of images, truth and what each run predicts (figure 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from des4 import api, build
from des4.config import load_config
from des4.datasets import pixel_counts
from des4.ops.pixels import picture
from des4.report.campaign import CampaignReport
from des4.report.campaign_page import campaign_page, first_runs, shown_list
from des4.report.compare import MARK, Comparison
from des4.report.compare_page import MOST_PICTURED, Pictures, compare_page
from des4.report.pictures import grid
from des4.report.plots.style import is_ours
from des4.runlog import RunFolder, read_json, write_atomically
from des4.types import Dataset, RunError, UserError

NUM_IMAGES = 6
NUM_LOOKED_AT = 100
"""Masks that the images are chosen from, evenly spaced in the validation list."""


def write_page(
    comparison: Comparison, path: Path, about: Mapping[str, str] | None = None, keep: Path | None = None
) -> None:
    """Write the page of a comparison to `path`.

    about: what is compared, name → text. keep: a file for the picture, of a comparison of one family.

    Pictures need the data and the weights; where one of them is gone, the page says so instead. Raises RunError where
    `path` holds something that is no such page.
    """
    check_page(path)
    with TemporaryDirectory() as folder:
        pictures = {}
        for number, (family, groups) in enumerate(comparison.families.items()):
            file = keep or Path(folder, f"{number}.png")
            try:
                draw({group.label: group.runs[0] for group in groups[:MOST_PICTURED]}, file)
            except UserError as error:
                pictures[family] = Pictures(None, str(error))
            else:
                pictures[family] = Pictures(file)
        page = compare_page(comparison, pictures, about)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)


def write_campaign(report: CampaignReport, path: Path) -> None:
    """Write the page of a campaign to `path`, with a picture of what the methods predict if data and weights are there.

    Raises RunError where `path` holds something that is no such page.
    """
    check_page(path)
    runs = dict(list(first_runs(report, shown_list(report)).items())[:MOST_PICTURED])
    with TemporaryDirectory() as folder:
        file = Path(folder, "pictures.png")
        try:
            draw(runs, file)
        except UserError as error:
            pictures = Pictures(None, str(error))
        else:
            pictures = Pictures(file)
        page = campaign_page(report, path.resolve().parent.name, pictures)
    write_atomically(path, page)


def check_page(path: Path) -> None:
    """Raise RunError where `path` holds something that is not a page of an earlier comparison."""
    if not path.exists():
        return
    if path.is_dir():
        raise RunError(f"{path} is a folder; name a file for the page, such as {path / 'compare.html'}")
    with path.open(encoding="utf-8", errors="replace") as file:
        if MARK not in file.read(1024):
            raise RunError(f"{path} is no page of des4 compare, so it is left alone; name another file")


def check_plot(path: Path) -> None:
    """Raise RunError where a comparison cannot be drawn into `path`: no PNG, or a file that is not ours."""
    if path.suffix.lower() != ".png":
        raise RunError(f"{path}: the picture is a PNG; name a file that ends in .png")
    if path.exists() and not is_ours(path):
        raise RunError(f"{path} is no picture of des4 compare, so it is left alone; name another file")


def check_reports(folder: Path) -> None:
    """Raise RunError where reports cannot go into a folder.

    It is a file, or it holds files under the names of a campaign's that no campaign has written.
    """
    place = next(each for each in (folder, *folder.parents) if each.exists())
    if not place.is_dir():
        raise RunError(f"{place} is a file; name a folder by out: or report: in the campaign file")
    check_page(folder / "campaign.html")
    figures = folder / "campaign.json"
    if figures.exists():
        try:
            foreign = [] if isinstance(read_json(figures).get("runs"), list) else [figures]
        except RunError:
            foreign = [figures]
    else:  # which every campaign has
        pictures = [picture for name in ("campaign.png", "curve.png") if not is_ours(picture := folder / name)]
        foreign = [path for path in (folder / "campaign.md", *pictures) if path.exists()]
    if foreign:
        raise RunError(f"{foreign[0]} is of no campaign, so it is left alone; name another folder, by report: in the "
                       "campaign file")  # fmt: skip


def draw(runs: Mapping[str, RunFolder], path: Path | IO[bytes], ids: Sequence[str] = ()) -> None:
    """Draw a picture: image, truth, and the prediction of each run, label → run, with its last weights.

    ids: of the validation images to show; without any they are chosen by their masks, not by predictions: those with
    most pixels of rare classes. Raises DataError, RunError or WeightsError.
    """
    folders = list(runs.values())
    first = folders[0].results()
    for run in folders[1:]:
        if run.results()["data"]["val_hash"] != first["data"]["val_hash"]:
            raise RunError(f"{folders[0].path} and {run.path} have different validation lists")
    predictors = [api.load(run.path) for run in folders]
    dataset = build.dataset(load_config(folders[0].config()), ("val",), predictors[0].info.bands)
    for run, predictor in zip(folders, predictors, strict=True):
        if tuple(dataset.classes) != predictor.classes:
            raise RunError(f"{run.path} knows other classes than {folders[0].path}")
    rows: list[list[Any]] = []
    chosen = list(ids) or _rarest(dataset, first["tail_classes"])
    for sample_id in chosen:
        image = dataset.image(sample_id)
        shown = picture(image.permute(1, 2, 0).numpy(), dataset.bands)
        predicted = [predictor.predict(image) for predictor in predictors]
        rows.append([shown, dataset.label(sample_id).numpy(), *predicted])
    grid(rows, ["image", "truth", *runs], dataset.palette, dataset.classes, path, chosen)


def _rarest(dataset: Dataset, tail: Sequence[str]) -> list[str]:
    """Validation images with most pixels of the tail classes."""
    step = max(1, len(dataset.val) // NUM_LOOKED_AT)
    numbers = [dataset.classes.index(name) for name in tail]
    looked_at = dataset.val[::step]
    return sorted(looked_at, key=lambda i: -int(pixel_counts(dataset, [i])[numbers].sum()))[:NUM_IMAGES]
