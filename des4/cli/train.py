"""The verbs `des4 demo` and `des4 train`. torch is imported inside them, so that --help is quick."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from des4.cli import completion
from des4.cli.arguments import Overrides, Overwrite, config_and_settings, file_and_settings
from des4.cli.printing import complain, print_scores


def demo(
    overrides: Overrides = None,
) -> None:
    """Train three methods on built-in pictures and compare them: a few minutes on two CPU cores, no download."""
    from des4.demo import WHAT, scores, verdict
    from des4.demo import demo as run_demo

    folder, runs = run_demo(overrides or [])
    print_scores({name: run.results for name, run in runs.items()})
    print(f"baseline  {WHAT['baseline']} {verdict(scores(runs))}")
    print(f"pictures  {folder / 'comparison.png'}")
    print(f"compared  {folder / 'compare.html'}")
    for run in runs.values():
        print(f"report    {run.dir / 'report.html'}")


def train(
    arguments: Annotated[
        list[str] | None,
        config_and_settings("A YAML file, and settings that override it."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Continue a stopped run where it stood.", autocompletion=completion.run),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Continue even with other settings.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a model: des4 train data=FOLDER minutes=10.

    What is not given is planned from the images and this machine; given a method and a number of steps
    (method=des4 data=FOLDER steps=2000), it is as the paper has it.
    """
    given = arguments or []
    file, overrides = file_and_settings(given)
    if resume is None and not given:
        raise typer.BadParameter("give a config file, or settings such as data=FOLDER minutes=10")
    if resume is None and force:
        raise typer.BadParameter("--force goes with --resume; to replace a run there is --overwrite")
    if resume is not None and overwrite:
        raise typer.BadParameter("--resume continues a run, --overwrite replaces one; give one of the two")
    from des4 import api
    from des4.engine.distributed import is_first_process
    from des4.plan import plan

    if resume is None:
        run = api.train(plan(file or {}, overrides), overwrite=overwrite)
    else:
        run = api.resume(resume, file, overrides, force=force)
    if not is_first_process():
        return
    print_scores({"IoU %": run.results})
    for one in (run.results.get("drift") or {}).get("warned", ()):
        complain(f"caution: pseudo-labels drifted: {one['name']} had {one['ratio']:.2g} times its labeled share at "
                  f"step {one['step']}; the report shows it", "yellow")  # fmt: skip
    print(f"run     {run.dir}\nreport  {run.dir / 'report.html'}")
    print(f"next    des4 predict {shlex.quote(str(run.dir))} IMAGES --out predictions")
