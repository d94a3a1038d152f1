"""`des4 data …`: what is done with data before a training. torch is imported inside the verbs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
    track,
)
from rich.text import Text

from des4.cli.printing import progress

if TYPE_CHECKING:
    from des4.data_tools.checks.inspection import Look
    from des4.data_tools.foreign import Item
    from des4.data_tools.progress import Bar
    from des4.data_tools.splits import Rule
    from des4.datasets.files import FilesConfig

app = typer.Typer(name="data", no_args_is_help=True, help="Check, split, download, import and pack data.")


@app.command()
def check(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder, of any format.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of the data, e.g. labeled=list.txt.")
    ] = None,
    format: Annotated[str | None, typer.Option(metavar="NAME", help="Of the data; else recognised.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not open the unlabeled images.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with pictures.")] = None,
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the suggested config.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End with exit code 1 if there are warnings.")] = False,
) -> None:
    """Find what is wrong with data before a training, and suggest a config. Nothing is changed.

    Exit code: 2 with errors, 1 with warnings and --strict, else 0.
    """
    from des4.data_tools.checks.advice import Machine, as_yaml, suggest
    from des4.data_tools.checks.check import check as check_data
    from des4.data_tools.checks.summary import examples, summarise
    from des4.data_tools.importing import prepared
    from des4.report.data_page import data_page
    from des4.report.data_table import findings, overview
    from des4.runlog import write_atomically

    config = _files_config(root, format, settings or [])
    _refuse_places(root, html, write)
    done = replace(check_data(prepared(config), quick=quick, progress=_looks), config=config)
    suggested = suggest(done, Machine.here())
    summary = summarise(done, suggested)
    text = as_yaml(suggested, f"Where to begin with {root}: suggested by des4 data check") if suggested else ""
    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        console = Console()
        console.print(overview(summary))
        console.print(Text(text), soft_wrap=True)
        console.print(findings(summary))
        if suggested and not done.exit_code():
            given = shlex.join([f"data={root}", *([f"data.name={format}"] if format else []), *(settings or [])])
            print(f"next: des4 train {given} minutes=10")
    errors = Console(stderr=True, soft_wrap=True)
    if html is not None:
        write_atomically(html, data_page(summary, text, examples(done), done.palette))
        errors.print(Text(f"written: {html}"))
    if write is not None and text:
        _refuse_places(root, None, write)  # a file may have come there while the data were read
        write_atomically(write, text)
        errors.print(Text(f"written: {write}; train with: des4 train {shlex.quote(str(write))}"))
    elif write is not None:
        errors.print(Text(f"not written: {write}; no config can be suggested for such data", style="yellow"))
    raise typer.Exit(done.exit_code(strict))


@app.command()
def splits(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A data folder, of any format.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the lists go; a folder that is not there yet.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of the data, e.g. val=list.txt.")
    ] = None,
    fraction: Annotated[
        list[str] | None, typer.Option(metavar="1/8", help="Share of the images with masks; may be repeated.")
    ] = None,
    count: Annotated[list[int] | None, typer.Option(metavar="N", help="Number of images; may be repeated.")] = None,
    preset: Annotated[str | None, typer.Option(help="Sizes of the paper: voc_train, voc_aug or cityscapes.")] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Another seed draws other images.")] = 0,
    stratified: Annotated[
        bool, typer.Option("--stratified", help="Every class occurs, and in its due number of images.")
    ] = False,
    nested: Annotated[bool, typer.Option("--nested", help="Smaller draws are parts of the larger ones.")] = False,
    format: Annotated[str | None, typer.Option(metavar="NAME", help="Of the data; else recognised.")] = None,
) -> None:
    """Draw which images are labeled: lists for every fraction, and a table of the classes in them."""
    from des4.data_tools.importing import prepared
    from des4.data_tools.new_folder import refuse_place
    from des4.data_tools.split_folder import Recipe, write_splits
    from des4.data_tools.splits import counts_of, draw, pool_of, preset_named, read_contents
    from des4.datasets import open_files
    from des4.report.list_tables import draws_table

    dataset = open_files(prepared(_files_config(data, format, settings or [])))
    refuse_place(out, dataset, data)
    wanted = preset_named(preset) if preset else None
    pool = pool_of(dataset, wanted)
    counts = counts_of(len(pool), fraction or (), [*(count or ()), *(wanted.counts if wanted else ())])
    contents = read_contents(dataset, pool, progress("reading masks")) if stratified else None
    draws = draw(dataset, pool, counts, seed=seed, nested=nested, contents=contents)
    if contents is None:
        drawn = sorted({sample_id for one in draws for sample_id in one.labeled})
        contents = read_contents(dataset, drawn, progress("reading masks"))
    given = (("fraction", fraction or []), ("count", count or []), ("preset", [preset] if preset else []))
    sizes = tuple(f"--{option} {value}" for option, values in given for value in values)
    named = [f"--format={format}"] if format else []
    rule: Rule = "stratified" if stratified else "random"
    recipe = Recipe(sizes, rule, nested, seed, len(pool), (*named, *(settings or ())))
    Console().print(draws_table(write_splits(out, dataset, draws, contents, recipe)))
    lists = [f"{kind}={out / draws[0].name / kind}.txt" for kind in ("labeled", "unlabeled")]
    settings = [f"data={data}", *lists, f"val={out / 'val.txt'}"]
    print(f"written to {out}; train with: {shlex.join(settings)}")


@app.command()
def protocols(
    lists: Annotated[
        Path | None, typer.Argument(metavar="LISTS", help="A folder of published lists, to see which are there.")
    ] = None,
) -> None:
    """List the published protocols by family, and which of them a folder holds."""
    from des4.datasets.protocols import FAMILIES, PROTOCOLS, find_all_lists
    from des4.report.list_tables import protocols_table

    found = find_all_lists(lists) if lists else {}
    rows = [
        [name, p.fraction, str(p.labeled), "–" if p.fine is None else str(p.fine), str(p.unlabeled)]
        + ([_held(found.get(name, {}), lists)] if lists else [])
        for name, p in PROTOCOLS.items()
    ]
    sources = {name: f"{family.title}; {' and '.join(family.sources)}" for name, family in FAMILIES.items()}
    Console().print(protocols_table(rows, sources, found=lists is not None))


@app.command()
def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="voc, camvid or cityscapes.")],
    root: Annotated[Path, typer.Argument(metavar="DIR", help="Where the data set is, or is to be.")],
    offline: Annotated[
        bool, typer.Option("--offline", help="Open no connection: unpack the archives in DIR/downloads, and check.")
    ] = False,
) -> None:
    """Fetch a published data set, check it and lay it out; or check the one that is there.

    Goes on where an earlier call stopped. What is there is never overwritten.
    """
    from des4.data_tools.downloads.download import download as download_source
    from des4.data_tools.downloads.sources import source_named

    download_source(source_named(name), root, offline=offline, meter=_meter, say=lambda line: print(line, flush=True))
    print(f"next: des4 data check {shlex.quote(str(root))}")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="A data set in another program's format.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where it goes, a new folder; else FOLDER-imported, here.")
    ] = None,
    format: Annotated[str | None, typer.Option(metavar="NAME", help="Of the data set; else recognised.")] = None,
    background: Annotated[
        Literal["class", "ignore"] | None,
        typer.Option(help="Pixels under no area: the class background, or ignored; else as the format has it."),
    ] = None,
) -> None:
    """Write a data set that another program made as a plain folder: images linked, masks drawn.

    Changes nothing in FOLDER. Reads YOLO segmentation, CVAT for images, COCO panoptic, Mapillary Vistas, KITTI and
    others; needs the extra `formats`.
    """
    from des4.data_tools.importing import import_folder

    out = out or Path(f"{source.resolve().name}-imported")
    done = import_folder(source, out, format=format, uncovered=background, walk=_items)
    for line in done.lines():
        print(line)
    exif = " exif=upright" if done.turned else ""
    print(f"written  {out}\nnext     des4 data check {shlex.quote(str(out))}{exif}")


@app.command()
def masks(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A folder of drawn masks: labelme, Label Studio, CVAT …")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the PNGs go; a folder that is not there yet.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of the data, e.g. data.background=ignore.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Class names in the order of their numbers; else the data's.")
    ] = None,
    format: Annotated[str | None, typer.Option(metavar="NAME", help="Of the data; else recognised.")] = None,
) -> None:
    """Write the masks of a data set in any format as PNGs of class indices. Changes nothing in DATA."""
    from des4.data_tools.mask_folder import write_masks
    from des4.datasets import open_files
    from des4.datasets.class_files import read_classes

    dataset = open_files(_files_config(data, format, settings or []))
    names = read_classes(classes).names if classes else None
    count = write_masks(dataset, out, names, progress("drawing masks"))
    print(f"{count} masks, written to {out}")
    print("next: put them into masks/ of your data, and des4 data check DATA")


@app.command()
def shard(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A folder of images; of a data folder, its images.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the shards go; a new or empty folder.")],
    size: Annotated[int, typer.Option(metavar="MB", min=1, help="Megabytes of images in a shard.")] = 512,
) -> None:
    """Pack images into tar files, so that millions of them need no file each. Changes nothing in SRC.

    Files without a sound image header are named and left out; the exit code is 1 then. Of a data folder, images in
    val/ and test/ are left out too, for what is in shards is trained on.
    """
    from des4.data_tools.shard_writer import write_shards

    packed = write_shards(source, out, size * 10**6, _meter)
    for line in packed.skipped:
        Console(stderr=True, soft_wrap=True).print(Text(f"skipped: {line}", style="red"))
    if packed.spared:
        print(f"{packed.spared} images in folders of val and test left out: shards are trained on")
    print(
        f"{packed.images} images packed, shards: {len(packed.shards)}; train with: {shlex.quote(f'data.shards={out}')}"
    )
    if packed.skipped:
        raise typer.Exit(1)


def _files_config(root: Path, format: str | None, settings: Sequence[str]) -> FilesConfig:
    """Read the settings of data in files as a training reads them. Raises ConfigError or DataError."""
    from des4.config import dump, load_config
    from des4.datasets.files import FilesConfig
    from des4.types import ConfigError, DataError

    if not root.is_dir():
        raise DataError(f"{root}: no such data folder; give the folder that holds images and masks")
    name = [f"data.name={format}"] if format else []
    config = load_config({"method": "supervised", "data.root": str(root)}, [*name, *settings])
    if dump(config) | {"data": None} != dump(load_config({"method": "supervised", "data": "scenes"})) | {"data": None}:
        raise ConfigError(f"{' '.join(settings)}: settings of data alone are known here, such as labeled=list.txt")
    assert isinstance(config.data, FilesConfig)  # noqa: S101  # nothing else has a root
    return config.data


def _refuse_places(root: Path, html: Path | None, write: Path | None) -> None:
    """Raise RunError, before the work, if the page or the config cannot go where it is to go."""
    from des4.report.data_page import is_ours
    from des4.types import RunError

    for path in filter(None, (html, write)):
        if path.resolve().is_relative_to(root.resolve()):
            raise RunError(f"{path}: lies in the data folder, into which nothing is written; choose another place")
        if not path.parent.is_dir() or path.is_dir():
            raise RunError(f"{path}: no file can be made there; give a file name in a folder that exists")
    if html is not None and html.exists() and not is_ours(html):
        raise RunError(f"{html}: is no page of an earlier check, so it is not replaced; choose another name")
    if html is not None and write is not None and html.resolve() == write.resolve():
        raise RunError(f"{write}: is named for the page and for the config; give them two names")
    if write is not None and write.exists():
        raise RunError(f"{write}: exists already and is not replaced; choose another name for the config")


def _looks(looks: Iterator[Look], total: int) -> Iterable[Look]:
    """Walk over the looks and show a bar, on a terminal."""
    console = Console(stderr=True)
    return track(looks, "checking", total, console=console, disable=not console.is_terminal)


def _held(files: Mapping[str, Path], folder: Path) -> str:
    """Say where a folder holds a protocol's two lists: their common place, or each; a dash where one is not there."""
    labeled, unlabeled = (files.get(kind) for kind in ("labeled", "unlabeled"))
    if not files:
        return "–"
    if labeled and unlabeled and labeled.parent == unlabeled.parent:
        return str(labeled.parent.relative_to(folder))
    return " ".join(str(path.relative_to(folder)) if path else "–" for path in (labeled, unlabeled))


def _items(items: Iterable[Item], total: int) -> Iterable[Item]:
    """Walk over the images of an import and show a bar, on a terminal."""
    console = Console(stderr=True)
    return track(items, "importing", total, console=console, disable=not console.is_terminal)


@contextmanager
def _meter(task: str, total: int | None) -> Iterator[Bar]:
    """Show a bar with speed and time left, on a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield _ByteBar(progress, progress.add_task(task, total=total))


@dataclass(frozen=True)
class _ByteBar:
    progress: Progress
    task: TaskID

    def expect(self, total: int) -> None:
        self.progress.update(self.task, total=total)

    def advance(self, count: int) -> None:
        self.progress.update(self.task, advance=count)
