"""The command line: one verb a task. torch is imported inside the verbs, so that --help is quick."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from typer.core import TyperGroup

import des4
from des4 import cli_data, cli_export, cli_predict


class Verbs(TyperGroup):
    """The verbs; a mistake of the user's ends in one red line and exit code 2, a stopped training in its own code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except Exception as error:
            if "des4.types" not in sys.modules:  # then it is none of ours, and asking would cost the import of torch
                raise
            from des4.engine import Interrupted
            from des4.types import UserError

            if isinstance(error, Interrupted):
                _complain(str(error), "yellow")
                raise typer.Exit(error.code) from None
            if isinstance(error, UserError):
                _complain(f"error: {error}", "red")
                raise typer.Exit(2) from None
            raise


app = typer.Typer(cls=Verbs, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(cli_data.app)

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a weights file of one.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, e.g. eval.mode=sliding.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier command wrote there.")]


@app.callback(invoke_without_command=True)
def des4_(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Semi-supervised semantic segmentation: many images, few masks, imbalanced classes."""
    if version:
        print(des4.__version__)
        raise typer.Exit


@app.command()
def demo(
    overrides: Overrides = None,
) -> None:
    """Train three methods on built-in pictures and compare them: a few minutes on two CPU cores, no download."""
    from des4.demo import demo as run_demo

    folder, runs = run_demo(overrides or [])
    _print_scores({name: run.results for name, run in runs.items()})
    print(f"pictures  {folder / 'comparison.png'}")
    for run in runs.values():
        print(f"report    {run.dir / 'report.html'}")


@app.command()
def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG KEY=VALUE", help="A YAML file, and settings that override it."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue a stopped run where it stood.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Continue even with other settings.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a model. Without a file, give at least method=NAME and data=FOLDER (or data=scenes)."""
    given = arguments or []
    files, overrides = [a for a in given if "=" not in a], [a for a in given if "=" in a]
    if len(files) > 1:
        raise typer.BadParameter(f"one config file at most, not {' and '.join(files)}; settings are written key=value")
    if resume is None and not given:
        raise typer.BadParameter("give a config file, or settings such as method=des4 data=FOLDER steps=2000")
    from des4 import api
    from des4.config import load_config
    from des4.engine.distributed import is_first_process

    config = load_config(files[0] if files else {}, overrides) if files or (given and not resume) else None
    if resume is None and force:
        raise typer.BadParameter("--force goes with --resume; to replace a run there is --overwrite")
    if resume is None:
        assert config is not None  # noqa: S101  # something was given
        run = api.train(config, overwrite=overwrite)
    elif overwrite:
        raise typer.BadParameter("--resume continues a run, --overwrite replaces one; give one of the two")
    else:
        run = api.resume(resume, config, overrides if config is None else (), force=force)
    if not is_first_process():
        return
    _print_scores({"IoU %": run.results})
    print(f"run     {run.dir}\nreport  {run.dir / 'report.html'}")


@app.command()
def doctor(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG KEY=VALUE", help="A training to try: as for des4 train."),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps that are measured.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Look at this machine and, given a config, at what that training would cost on it. Nothing is written.

    Exit code: 1 if there is a problem, else 0.
    """
    from des4.doctor import examine

    given = arguments or []
    files, overrides = [a for a in given if "=" not in a], [a for a in given if "=" in a]
    if len(files) > 1:
        raise typer.BadParameter(f"one config file at most, not {' and '.join(files)}; settings are written key=value")
    examination = examine(files[0] if files else {}, overrides, steps) if given else examine()
    if as_json:
        print(json.dumps(examination.as_data(), indent=2, ensure_ascii=False))
    else:
        Console().print(examination.tables())
    raise typer.Exit(examination.exit_code)


@app.command()
def eval(run: RunArgument, overrides: Overrides = None) -> None:
    """Score a model on the validation list of its own data, or of other data given by data=FOLDER."""
    from des4 import api

    given = overrides or []
    data = [text.removeprefix("data=") for text in given if text.startswith("data=")]
    settings = [text for text in given if not text.startswith("data=")]
    results = api.evaluate(run, data[-1] if data else None, overrides=settings, progress=_progress("evaluating"))
    figures = {name: getattr(results, name) for name in ("iou", "miou", "tail_miou", "pixel_accuracy")}
    _print_scores({"IoU %": {**figures, "tail_classes": results.tail}})


app.command()(cli_predict.predict)
app.command()(cli_export.export)
app.command()(cli_export.benchmark)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS", help="Run folders.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw the comparison into this file.")] = None,
) -> None:
    """Compare runs: mean ± standard deviation over seeds, and what makes the comparison unfair."""
    from des4.report.compare import compare as compare_runs
    from des4.runlog import RunFolder

    comparison = compare_runs([RunFolder.open(run) for run in runs])
    if markdown:
        print(comparison.markdown(), end="")
    else:
        Console().print(comparison)
    if plot is not None:
        comparison.plot(plot)


@app.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")]) -> None:
    """Draw a run's diagrams and write its report.html once more."""
    from des4.report.page import write_report
    from des4.runlog import RunFolder

    print(write_report(RunFolder.open(run)))


@app.command()
def methods() -> None:
    """List the methods."""
    from des4.methods import METHODS

    table = Table("name", "method", "views", "paper", header_style="bold", border_style="dim")
    for name, cls in METHODS.items():
        table.add_row(name, *(Text(cell) for cell in (_summary(cls), _views(cls), _paper(cls))))
    Console().print(table)


def main() -> None:
    """Run the command line."""
    app()


# ── what verbs print ─────────────────────────────────────────────────────────────────────────────────────────────────


def _complain(text: str, colour: str) -> None:
    Console(stderr=True, soft_wrap=True).print(Text(text, style=colour))


def _progress(what: str) -> Any:
    """Return a function that walks over a sequence and shows a bar, on a terminal."""
    from rich.progress import track

    console = Console(stderr=True)
    return lambda items: track(items, what, console=console, disable=not console.is_terminal)


def _print_scores(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the figures of results.json: IoU by class, the tail marked, and the means; a column for each run."""
    table = Table("class", *(Column(name, justify="right") for name in runs), header_style="bold", border_style="dim")
    first = next(iter(runs.values()))
    for name in first["iou"]:
        mark = " (tail)" if name in first["tail_classes"] else ""
        table.add_row(Text(name + mark), *(_percent(results["iou"][name]) for results in runs.values()))
    table.add_section()
    for label, key in (("mIoU", "miou"), ("tail mIoU", "tail_miou"), ("pixel accuracy", "pixel_accuracy")):
        table.add_row(Text(label, style="bold"), *(_percent(results[key]) for results in runs.values()))
    Console().print(table)


def _percent(value: float | None) -> str:
    return "–" if value is None or value != value else f"{100 * value:.2f}"


def _summary(cls: type) -> str:
    """Return the first line of the docstring of a method's module."""
    return _docstring(cls)[0].rstrip(".")


def _paper(cls: type) -> str:
    """Return authors and year, which open the second paragraph of that docstring where there is a paper."""
    text = " ".join(" ".join(_docstring(cls)[1:]).split())
    found = re.match(r'([\w&. ]+, )(?:"[^"]+", )?(\w+ \d{4})', text)
    return "".join(found.groups()) if found else "–"


def _docstring(cls: type) -> list[str]:
    return (sys.modules[cls.__module__].__doc__ or "").strip().split("\n\n")


def _views(cls: Any) -> str:
    strong = cls.VIEWS.strong
    return f"weak, {strong} strong" if strong else "labelled only"
