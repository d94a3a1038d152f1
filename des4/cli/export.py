"""The verbs `des4 export`, `des4 push` and `des4 benchmark`. torch is imported inside them, so that --help is quick."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from des4.cli.arguments import DataSettings, Overwrite, RunArgument, data_and_settings, name_of
from des4.cli.printing import show_warnings

if TYPE_CHECKING:
    from des4.predict import Predictor
    from des4.types import Dataset


def export(
    run: RunArgument,
    settings: DataSettings = None,
    format: Annotated[
        str, typer.Option(metavar="NAMES", help="onnx, int8, openvino, torch, safetensors; several with commas.")
    ] = "onnx",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: export/ in the run folder.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a trained network for other programs; each file is checked against the network it came from.

    int8 reads images of the training data: the run's, or those given by data=FOLDER.
    """
    formats = [name.strip() for name in format.split(",") if name.strip()]
    if settings and "int8" not in formats:
        raise typer.BadParameter(f"{' '.join(settings)}: formats are named with --format, and int8 alone reads data")
    from des4.export import export_model
    from des4.export.formats import CALIBRATION_IMAGES
    from des4.export.side_by_side import training_images
    from des4.predict import Predictor
    from des4.weights import weights_file

    show_warnings()
    weights = weights_file(run)
    images = None
    if "int8" in formats:
        predictor = Predictor(weights, "cpu")
        dataset = _data_of(predictor, weights, settings or [])
        factor = predictor.info.eval.resize
        images = lambda: training_images(dataset, CALIBRATION_IMAGES, factor)  # noqa: E731
    for path in export_model(weights, out or _exports(run), formats, overwrite=overwrite, images=images):
        print(path)


def push(
    run: RunArgument,
    target: Annotated[str, typer.Argument(metavar="hf://OWNER/NAME", help="Where it goes on the Hugging Face hub.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository that everybody can read.")] = False,
    license: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the network, for the card; as the hub calls it: apache-2.0.")
    ] = None,
    samples: Annotated[
        bool, typer.Option("--samples", help="With the run's picture of validation images and predictions.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Push to a repository that holds files.")] = False,
) -> None:
    """Push a trained network to the hub: weights, settings, class names and a model card, and nothing else of the run.

    A new repository is private. To see first what goes there: des4 export RUN --format safetensors.
    """
    from des4.export import publish

    show_warnings()
    address, private, files = publish(run, target, public=public, licence=license, samples=samples, overwrite=overwrite)
    print(f"pushed to {address} ({'private' if private else 'public'}): {', '.join(files)}")
    print(f"next    des4 predict {address} IMAGES")


def benchmark(
    run: RunArgument,
    settings: DataSettings = None,
    exported: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With the exported files; default: export/ in the run folder.")
    ] = None,
    images: Annotated[int, typer.Option(metavar="N", min=1, help="Validation images, the first ones.")] = 20,
    threads: Annotated[int, typer.Option(metavar="N", min=0, help="Of each library; 0 = its own choice.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Measure a network and its exported files side by side, on the CPU: images/s, MB, mIoU, equal labels."""
    from des4.export import measure
    from des4.predict import Predictor
    from des4.weights import weights_file

    show_warnings()
    weights = weights_file(run)
    dataset = _data_of(Predictor(weights, "cpu"), weights, settings or [])
    console = Console(stderr=True)
    rows = measure(
        weights,
        exported or _exports(run),
        dataset,
        images,
        threads=threads,
        progress=lambda names: track(list(names), "measuring", console=console, disable=not console.is_terminal),
    )
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    table = Table("format", *(Column(name, justify="right") for name in ("MB", "images/s", "mIoU", "as torch")))
    for row in rows:
        shown = (
            f"{row.megabytes:.1f}",
            f"{row.images_per_second:.2f}",
            f"{100 * row.miou:.2f}",
            f"{100 * row.equal:.2f}",
        )
        table.add_row(row.name, *shown)
    Console().print(table)
    if images < len(dataset.val):
        print(f"on the first {images} of {len(dataset.val)} validation images; more: --images N")


def _data_of(predictor: Predictor, weights: Path, settings: Sequence[str]) -> Dataset:
    """Open the run's data, or those that settings name. Raises ConfigError for settings of anything else."""
    from des4 import api
    from des4.config import given_settings
    from des4.types import ConfigError

    data, others = data_and_settings(settings)
    if strange := [key for key in given_settings({}, others) if not key.startswith("data.")]:
        raise ConfigError(f"{', '.join(strange)}: settings of data alone are known here")
    return api.data_of(predictor, weights, data, others)[0]


def _exports(run: Path) -> Path:
    """Return the folder for the exported files of a run, of a weights file or a checkpoint, or of a repository."""
    from des4 import hub
    from des4.runlog import EXPORTS

    if hub.is_address(run):
        return Path(f"{name_of(run)}-{EXPORTS}")
    if run.parent.name in ("weights", "checkpoints"):
        return run.parent.parent / EXPORTS
    return run / EXPORTS if run.is_dir() else run.with_name(f"{run.stem}-{EXPORTS}")
