"""The command line: one verb a task. torch is imported inside the verbs, so that --help is quick."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from typer.core import TyperGroup

import des4
from des4.cli import completion
from des4.cli.data import app as data_app
from des4.cli.export import benchmark, export, push
from des4.cli.next import next_
from des4.cli.predict import RunArgument, predict, show_warnings
from des4.cli.probe import probe
from des4.cli.serve import serve

if TYPE_CHECKING:
    from des4.report.paper import PaperReport


WIDE = 120
"""Columns of a terminal that holds a table with a line or two a method."""


class Verbs(TyperGroup):
    """The verbs; a mistake of the user's ends in one red line and exit code 2, a stopped training in its own code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except Exception as error:
            if type(error).__name__ == "NoSuchOption":  # click's, or that of the click within typer
                option = str(getattr(error, "option_name", ""))
                setting = option.lstrip("-").replace("-", "_")
                text = f"there is no option {option}; settings are written without dashes: {setting}=VALUE"
                raise typer.BadParameter(text, ctx=getattr(error, "ctx", None)) from None
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


app = typer.Typer(cls=Verbs, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(data_app)


def _config_and_settings(help: str) -> Any:
    return typer.Argument(metavar="CONFIG KEY=VALUE", help=help, autocompletion=completion.config_or_settings)


Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings, e.g. eval.mode=sliding.", autocompletion=completion.settings),
]
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
    from des4.demo import WHAT, scores, verdict
    from des4.demo import demo as run_demo

    folder, runs = run_demo(overrides or [])
    _print_scores({name: run.results for name, run in runs.items()})
    print(f"baseline  {WHAT['baseline']} {verdict(scores(runs))}")
    print(f"pictures  {folder / 'comparison.png'}")
    print(f"compared  {folder / 'compare.html'}")
    for run in runs.values():
        print(f"report    {run.dir / 'report.html'}")


@app.command()
def train(
    arguments: Annotated[
        list[str] | None,
        _config_and_settings("A YAML file, and settings that override it."),
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
    files, overrides = [a for a in given if "=" not in a], [a for a in given if "=" in a]
    if len(files) > 1:
        raise typer.BadParameter(f"one config file at most, not {' and '.join(files)}; settings are written key=value")
    if resume is None and not given:
        raise typer.BadParameter("give a config file, or settings such as data=FOLDER minutes=10")
    if resume is None and force:
        raise typer.BadParameter("--force goes with --resume; to replace a run there is --overwrite")
    if resume is not None and overwrite:
        raise typer.BadParameter("--resume continues a run, --overwrite replaces one; give one of the two")
    from des4 import api
    from des4.config import load_config
    from des4.engine.distributed import is_first_process
    from des4.plan import plan

    if resume is None:
        run = api.train(plan(files[0] if files else {}, overrides), overwrite=overwrite)
    else:
        config = load_config(files[0], overrides) if files else None
        run = api.resume(resume, config, overrides if config is None else (), force=force)
    if not is_first_process():
        return
    _print_scores({"IoU %": run.results})
    for one in (run.results.get("drift") or {}).get("warned", ()):
        _complain(f"caution: pseudo-labels drifted: {one['name']} had {one['ratio']:.2g} times its labeled share at "
                  f"step {one['step']}; the report shows it", "yellow")  # fmt: skip
    print(f"run     {run.dir}\nreport  {run.dir / 'report.html'}")
    print(f"next    des4 predict {shlex.quote(str(run.dir))} IMAGES --out predictions")


@app.command()
def doctor(
    arguments: Annotated[
        list[str] | None,
        _config_and_settings("A training to try: as for des4 train."),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps that are measured.")] = 5,
    seconds: Annotated[
        float, typer.Option(metavar="S", min=1, help="Time for it, about; large networks are measured in part.")
    ] = 20,
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
    examination = examine(files[0] if files else {}, overrides, steps, seconds) if given else examine()
    if as_json:
        print(json.dumps(examination.as_data(), indent=2, ensure_ascii=False))
    else:
        Console().print(examination.tables())
        if given and not examination.exit_code:
            print(f"next    des4 train {shlex.join(given)}")
    raise typer.Exit(examination.exit_code)


@app.command()
def eval(run: RunArgument, overrides: Overrides = None) -> None:
    """Score a model on the validation list of its own data, or of other data given by data=FOLDER."""
    from des4 import api
    from des4.training import cautions
    from des4.weights import weights_file, weights_info

    show_warnings()
    weights = weights_file(run)
    given = overrides or []
    data = [text.removeprefix("data=") for text in given if text.startswith("data=")]
    settings = [text for text in given if not text.startswith("data=")]
    images: list[str] = []

    def watch(ids: Any) -> Any:
        images.extend(ids)
        return _progress("evaluating")(images)

    results = api.evaluate(weights, data[-1] if data else None, overrides=settings, progress=watch)
    figures = {name: getattr(results, name) for name in ("iou", "miou", "tail_miou", "pixel_accuracy")}
    caution = cautions(weights_info(weights).oracle, len(images))
    _print_scores({"IoU %": {**figures, "tail_classes": results.tail, "caution": caution}})


app.command()(predict)
app.command()(serve)
app.command("next")(next_)
app.command()(export)
app.command()(push)
app.command()(benchmark)
app.command()(probe)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUNS",
            help="Run folders; or a campaign file and settings of all its runs; or `paper` and folders of runs.",
            autocompletion=completion.runs_or_campaign,
        ),
    ],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw the comparison into this file.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="PAGE", help="Write the comparison as a page, pictures included.")
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Runs of a campaign that train at a time.")] = 1,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="CPU threads of each; default: the cores, shared out.")
    ] = None,
    no_training: Annotated[bool, typer.Option("--no-training", help="Report on what a campaign has so far.")] = False,
) -> None:
    """Compare runs: mean ± standard deviation over seeds, and what makes the comparison unfair.

    Given a campaign (a YAML file of methods × lists × seeds), train what is missing of it first. `des4 compare paper`
    prints the tables of the paper with the runs below ./runs, or below the folders given, that belong into them.
    """
    files, overrides = [run for run in runs if "=" not in run], [run for run in runs if "=" in run]
    if runs[0] == "paper":
        if plot is not None or overrides:
            raise typer.BadParameter("paper: takes folders of runs, --markdown and --html; no settings, no --plot")
        _paper_tables([Path(folder) for folder in files[1:]], markdown, html)
        return
    if any(file.endswith((".yaml", ".yml")) for file in files):
        if len(files) > 1:
            raise typer.BadParameter(f"one campaign file at a time, not {' and '.join(files)}")
        if html is not None:
            raise typer.BadParameter(
                "--html: a campaign has a page, campaign.html, beside its tables; leave --html out"
            )
        _campaign(Path(files[0]), overrides, jobs, threads, markdown, plot, train=not no_training)
        return
    from des4.report.compare import compare as compare_runs
    from des4.runlog import RunFolder

    if html is not None:
        from des4 import comparing

        comparing.check_page(html)
    comparison = compare_runs([RunFolder.open(run) for run in runs])
    if markdown:
        print(comparison.markdown(), end="")
    else:
        Console().print(comparison)
    if plot is not None:
        comparison.plot(plot)
    if html is not None:
        comparing.write_page(comparison, html)
        print(f"page    {html}")


@app.command()
def curve(
    arguments: Annotated[
        list[str],
        _config_and_settings("Data and settings: as for des4 train."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where lists, runs and the curve go.")] = Path("runs/curve"),
    masks: Annotated[list[int] | None, typer.Option(metavar="N", help="Labeled images; may be repeated.")] = None,
    seed: Annotated[list[int] | None, typer.Option(metavar="S", help="Seed; may be repeated. Default: 0.")] = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Runs that train at a time.")] = 1,
) -> None:
    """Would more masks help, or unlabeled images? Train with ever more of the masks you have, and draw the curve."""
    from des4 import campaign, comparing
    from des4.plan import plan, within_budget

    files, overrides = [a for a in arguments if "=" not in a], [a for a in arguments if "=" in a]
    if len(files) > 1:
        raise typer.BadParameter(f"one config file at most, not {' and '.join(files)}; settings are written key=value")
    decided = within_budget(plan(files[0] if files else {"method": "supervised"}, overrides))
    for line in decided.lines():
        print(line)
    config = decided.config
    settings = campaign.curve(config, out, masks or (), seed or (0,))
    planned = campaign.plan(settings)
    page = out / "campaign.html"
    comparing.check_page(page)
    failures = campaign.run_campaign(planned, jobs)
    for line in failures:
        _complain(f"failed: {line}", "red")
    found = campaign.report(settings, planned)
    found.write(out)
    comparing.write_campaign(found, page)
    Console().print(found)
    for line in found.verdict(config.method.name):
        print(line)
    print(f"curve   {out / 'curve.png'}\npage    {page}")
    if failures:
        raise typer.Exit(1)


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUNS", help="Finished run folders.", autocompletion=completion.run),
    ],
    html: Annotated[
        Path | None,
        typer.Option(metavar="PAGE", help="Of several runs: lay them side by side too, as des4 compare does."),
    ] = None,
) -> None:
    """Draw the diagrams of runs, and write the report.html of each once more.

    What several runs are to be seen in together, such as the shares of the classes in truth and pseudo-labels (the
    paper's figure 3), is on the page that `--html` or `des4 compare` writes.
    """
    from des4.report.page import write_report
    from des4.runlog import RunFolder

    folders = [RunFolder.open(run) for run in runs]
    if html is not None:
        from des4 import comparing

        if len(runs) == 1:
            raise typer.BadParameter("--html: takes several runs; of one, report.html in its folder is the page")
        comparing.check_page(html)
    for folder in folders:
        print(write_report(folder))
    if html is not None:
        from des4.report.compare import compare as compare_runs

        comparing.write_page(compare_runs(folders), html)
        print(html)
    elif len(runs) > 1:
        print(f"together  des4 compare {shlex.join(map(str, runs))} --html compare.html")


@app.command()
def methods() -> None:
    """List the methods."""
    from des4.methods import METHODS

    console = Console()
    if console.width >= WIDE:
        table = Table("name", "method", "views", "paper", header_style="bold", border_style="dim")
        for name, cls in METHODS.items():
            table.add_row(name, *(Text(cell) for cell in (_summary(cls), _views(cls), _paper(cls))))
    else:  # one below the other, else the columns are a few words wide
        table = Table(Column(style="bold", no_wrap=True), Column(), box=None, show_header=False, pad_edge=False)
        for name, cls in METHODS.items():
            facts = " · ".join(cell for cell in (_paper(cls), f"views: {_views(cls)}") if cell != "–")
            table.add_row(name, Text(_summary(cls)) + Text(f"\n{facts}", style="dim"))
    console.print(table)


def _campaign(
    file: Path, overrides: list[str], jobs: int, threads: int | None, markdown: bool, plot: Path | None, *, train: bool
) -> None:
    """Train what is missing of a campaign, then print and write its report."""
    from des4 import campaign, comparing

    settings = campaign.read_campaign(file)
    planned = campaign.plan(settings, overrides)
    page = settings.reports / "campaign.html"
    comparing.check_page(page)  # before hours of training
    failures = campaign.run_campaign(planned, jobs, threads) if train else []
    for line in failures:
        _complain(f"failed: {line}", "red")
    found = campaign.report(settings, planned)
    settings.reports.mkdir(parents=True, exist_ok=True)
    found.write(settings.reports)
    comparing.write_campaign(found, page)
    if plot is not None:
        found.plot(plot)
    if markdown:
        print(found.markdown(), end="")
    else:
        Console().print(found)
    if settings.table is not None:
        from des4 import paper

        _print_paper(paper.report(paper.find_runs([settings.out]), [settings.table]), markdown)
    print(f"written to {settings.reports}: campaign.md, campaign.json and campaign.png")
    print(f"page    {page}")
    if failures:
        raise typer.Exit(1)


def _paper_tables(folders: list[Path], markdown: bool, html: Path | None) -> None:
    """Print the paper's tables beside the runs in some folders; without one, in ./runs if that is there."""
    from des4 import paper
    from des4.runlog import write_atomically

    default = [Path("runs")] if Path("runs").is_dir() else []
    found = paper.report(paper.find_runs(folders or default))
    _print_paper(found, markdown)
    if html is not None:
        write_atomically(html, found.page())
        print(f"page    {html}")


def _print_paper(found: PaperReport, markdown: bool) -> None:
    if markdown:
        print(found.markdown(), end="")
    else:
        Console().print(found)


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
    for caution in dict.fromkeys(filter(None, (results.get("caution") for results in runs.values()))):
        _complain(f"caution: {caution}", "yellow")


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
    return f"weak, {strong} strong" if strong else "labeled only"
