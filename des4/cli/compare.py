"""The verb `des4 compare`: runs, campaigns, and the tables of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from des4.cli import completion
from des4.cli.printing import complain

if TYPE_CHECKING:
    from des4.report.paper import PaperReport


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

    if html is not None or plot is not None:
        from des4 import comparing

        _check_places(html, plot)
    comparison = compare_runs([RunFolder.open(run) for run in runs])
    if markdown:
        print(comparison.markdown(), end="")
    else:
        Console().print(comparison)
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        comparison.plot(plot)
        print(f"plot    {plot}")
    if html is not None:
        comparing.write_page(comparison, html)
        print(f"page    {html}")


def _check_places(html: Path | None, plot: Path | None) -> None:
    """Raise RunError, before the work, where a page or a picture would take the place of something else."""
    from des4 import comparing

    if html is not None:
        comparing.check_page(html)
    if plot is not None:
        comparing.check_plot(plot)


def _campaign(
    file: Path, overrides: list[str], jobs: int, threads: int | None, markdown: bool, plot: Path | None, *, train: bool
) -> None:
    """Train what is missing of a campaign, then print and write its report."""
    from des4 import campaign, comparing

    settings = campaign.read_campaign(file)
    planned = campaign.plan(settings, overrides)
    page = settings.reports / "campaign.html"
    comparing.check_reports(settings.reports)  # before hours of training
    _check_places(None, plot)
    failures = campaign.run_campaign(planned, jobs, threads) if train else []
    for line in failures:
        complain(f"failed: {line}", "red")
    found = campaign.report(settings, planned)
    settings.reports.mkdir(parents=True, exist_ok=True)
    found.write(settings.reports)
    comparing.write_campaign(found, page)
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        found.plot(plot)
    if markdown:
        print(found.markdown(), end="")
    else:
        Console().print(found)
    if settings.table is not None:
        from des4 import paper

        _print_paper(paper.report(paper.find_runs([settings.out]), [settings.table]), markdown)
    print(f"written to {settings.reports}: campaign.md, campaign.json and campaign.png")
    print(f"page    {page}" + (f"\nplot    {plot}" if plot else ""))
    if failures:
        raise typer.Exit(1)


def _paper_tables(folders: list[Path], markdown: bool, html: Path | None) -> None:
    """Print the paper's tables beside the runs in some folders; without one, in ./runs if that is there."""
    from des4 import paper
    from des4.runlog import write_atomically

    _check_places(html, None)
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
