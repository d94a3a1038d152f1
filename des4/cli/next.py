"""The verb `des4 next`. torch is imported inside it, so that --help is quick."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from des4.cli.arguments import RunArgument
from des4.cli.printing import bar, show_notes, show_warnings


def next_(
    run: RunArgument,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATHS KEY=VALUE",
            help="Images, folders or patterns to pick from; default: the unlabeled images of the run's data, or of "
            "data=FOLDER. And settings such as eval.mirror=true.",
        ),
    ] = None,
    count: Annotated[int, typer.Option(metavar="N", min=1, help="Images to pick.")] = 20,
    rule: Annotated[
        Literal["balanced", "entropy", "rarity", "diversity", "random"], typer.Option(help="What they are picked by.")
    ] = "balanced",
    seed: Annotated[int, typer.Option(metavar="S", help="Of --rule random.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A new folder; default: next/<run>, or the next free.")
    ] = None,
    shapes: Annotated[
        Literal["polygons", "masks", "none"],
        typer.Option(help="Predicted masks for annotation tools: polygons with few points, or masks to the pixel."),
    ] = "polygons",
    tolerance: Annotated[
        float, typer.Option(metavar="PIXELS", min=0, help="By which outlines of polygons may be moved.")
    ] = 1.0,
    batch: Annotated[int | None, typer.Option(metavar="N", min=1, help="Images of one size at a time.")] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a scoring that was stopped.")] = False,
) -> None:
    """Which images to label next? Pick some that the network is unsure of, with rare classes, unlike the others.

    Writes a folder: lists, scores, a page with the reasons, and predicted masks to correct in labelme, CVAT or Label
    Studio. Unreadable images are named, the others go on; the exit code is 1 then.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter(f"--device {device}: give auto, cpu or cuda")
    from des4.acquisition import Settings, choose_next
    from des4.engine.process import prepare_process
    from des4.predict import Predictor

    console = show_warnings()
    prepare_process()
    given = arguments or []
    data = [text.removeprefix("data=") for text in given if text.startswith("data=")]
    settings = [text for text in given if text.startswith(("eval.", "data.")) and "=" in text]
    paths = [text for text in given if text not in settings and not text.startswith("data=")]
    predictor = Predictor(run, device)
    predictor.batch = batch or predictor.batch
    with bar("scoring", console) as (expect, progress):
        chosen = choose_next(
            predictor,
            paths,
            settings=Settings(count, rule, seed, None if shapes == "none" else shapes, tolerance),
            data=data[-1] if data else None,
            overrides=settings,
            out=out,
            resume=resume,
            expect=expect,
            progress=progress,
        )
    show_notes(console, chosen.notes, chosen.skipped.values())
    print(f"{len(chosen.names)} images to label, best first:")
    for number, name in enumerate(chosen.names, 1):
        print(f"  {number:3d}  {name}")
    print(f"written {chosen.out}\npage    {chosen.out / 'next.html'}")
    print(f"label   labelme {shlex.quote(str(chosen.out / 'images'))}   (or import cvat/ or label_studio/)")
    print(
        f"then    des4 data masks {shlex.quote(str(chosen.out))} --out NEW_MASKS, and put them into your data's masks/"
    )
    print(f"next    {chosen.train}")
    if chosen.skipped:
        raise typer.Exit(1)
