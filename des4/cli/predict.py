"""The verb `des4 predict`. torch is imported inside it, so that --help is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from des4.cli.arguments import Overwrite, RunArgument, name_of
from des4.cli.printing import bar, show_notes, show_warnings, teller


def predict(
    run: RunArgument,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATHS",
            help="Images, folders, patterns such as 'photos/**/*.jpg', - for a list on standard input; "
            "and settings such as mirror=true, resize=1.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where results go; default: predictions/<run>, or the next free.")
    ] = None,
    overlays: Annotated[bool, typer.Option(help="Write pictures under the classes' colours.")] = True,
    entropy: Annotated[bool, typer.Option("--entropy", help="Write each pixel's entropy, as grey PNG.")] = False,
    probs: Annotated[bool, typer.Option("--probs", help="Write probabilities, (C, H, W) float16, as .npy.")] = False,
    tile: Annotated[
        int | None, typer.Option(metavar="PIXELS", min=65, help="Side of the tiles of large images; default: 1024.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Images of one size, or tiles, at a time.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, or cuda:1, the second GPU.")] = "auto",
    devices: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Several, which share the images: GPUs as 0,1 or all; cpu,cpu."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a prediction that was stopped.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Segment images: index PNGs, overlays, a table and JSON. Unreadable files are named, the others go on.

    Exit code: 1 if a file was skipped, else 0.
    """
    if devices is not None and device != "auto":
        raise typer.BadParameter("--device names one, --devices several; give one of the two")
    from des4.engine.process import prepare_process
    from des4.predict import Outputs, Predictor, predict_files
    from des4.predict.devices import several_devices
    from des4.predict.files import free_folder
    from des4.predict.predictor import usual_batch

    console = show_warnings()
    prepare_process()
    settings = [path for path in paths if _is_setting(path)]
    files = [path for path in paths if path not in settings and path != "-"]
    several = several_devices(devices) if devices is not None else []
    predictor = Predictor(run, "cpu" if several else device)  # of several, each has its own network
    predictor.configure(settings)
    predictor.tile = tile or predictor.tile
    predictor.batch = batch or max(map(usual_batch, several or [predictor.device]))
    place = out or free_folder(name_of(run), continued=resume or overwrite)
    tell = teller(console)
    if (note := predictor.note_on_resize()) is not None:
        tell(note)
    with _saying_how_to_go_on(console, place), bar("predicting", console) as (expect, progress):
        summary = predict_files(
            predictor,
            files,
            place,
            outputs=Outputs(overlays, entropy, probs),
            lines=sys.stdin if "-" in paths else (),
            overwrite=overwrite,
            resume=resume,
            expect=expect,
            progress=progress,
            tell=tell,
            devices=several,
        )
    show_notes(console, (), summary.skipped.values())
    print(f"{summary.done} images, written to {summary.out}")
    if summary.skipped:
        raise typer.Exit(1)


def _is_setting(text: str) -> bool:
    """Whether an argument is key=value, and names no file, be it one that is missing."""
    key, equals, value = text.partition("=")
    file = os.path.exists(text) or Path(value).suffix[1:2].isalpha()  # noqa: PTH110  # Path's raises where it is too long
    return bool(equals) and key.replace(".", "").isidentifier() and not file


@contextmanager
def _saying_how_to_go_on(console: Console, place: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if place.is_dir():
            console.print(Text(f"stopped; {place} has what is done, and --resume goes on", style="yellow"))
        raise
