"""A published table with runs beside it: each row as it was printed and, where there are runs, a second row of them.

What counts as a run of a cell is decided elsewhere (`des4.paper`); here it is only laid out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from des4.report.compare import MARK, Rows, Score, as_table, markdown_rows, markdown_text
from des4.report.templates import render

SOURCE = "Ding et al., Decoupling with Entropy-based Equalization for Semi-Supervised Semantic Segmentation, IJCAI 2023"
NOTHING = "–"


@dataclass(frozen=True)
class PaperRow:
    """A row of a table.

    how: what trains it here, or why nothing does. published: a figure in per cent for each column, None where the
    paper has none. found: scores of the runs that count, for each column, empty where there are none.
    """

    name: str
    how: str
    published: Sequence[float | None]
    found: Sequence[Score]

    @property
    def has_runs(self) -> bool:
        """Whether any cell has a run."""
        return any(score.values for score in self.found)

    @property
    def lines(self) -> list[tuple[str, list[str]]]:
        """The row as printed and, if there are runs, that of them: a name and a text for each column."""
        digits = max([1, *(len(f"{figure:g}".partition(".")[2]) for figure in self.published if figure is not None)])
        printed = [NOTHING if figure is None else f"{figure:.{digits}f}" for figure in self.published]
        ours = [f"{score} ({len(score.values)})" if score.values else NOTHING for score in self.found]
        return [(self.name, printed)] + ([(f"{self.name}, here", ours)] if self.has_runs else [])


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper. unit: of its figures. by_class: its columns are classes, which are laid out as rows."""

    number: int
    title: str
    unit: str
    columns: Sequence[str]
    rows: Sequence[PaperRow]
    notes: Sequence[str] = ()
    by_class: bool = False

    @property
    def heading(self) -> str:
        """What stands above it."""
        return f"Table {self.number}: {self.title}"

    def laid_out(self) -> Rows:
        """Heading and rows as text."""
        lines = [line for row in self.rows for line in row.lines]
        if self.by_class:
            columns = [[name, *cells] for name, cells in lines]
            return [[self.unit, *(column[0] for column in columns)]] + [
                [name, *(column[number] for column in columns)] for number, name in enumerate(self.columns, 1)
            ]
        return [[self.unit, *self.columns], *([name, *cells] for name, cells in lines)]

    @property
    def said(self) -> list[str]:
        """What stands below it: what trains each row here, and notes."""
        return [*(f"{row.name}: {row.how}" for row in self.rows), *self.notes]


@dataclass(frozen=True)
class PaperReport:
    """Tables of the paper with runs beside them.

    left_out: a line for each run that counts in none of their cells. doubts: what is to be known of those that do.
    """

    tables: Sequence[PaperTable]
    left_out: Sequence[str] = ()
    doubts: Sequence[str] = ()

    @property
    def about(self) -> str:
        """What the figures are."""
        return (
            f"Published figures: {SOURCE}. Rows called `here` are runs, mean ± standard deviation over (so many) of "
            "them, that have the data, lists, method and settings of their cell."
        )

    @property
    def warnings(self) -> list[str]:
        """What stands below the tables."""
        return [*self.doubts, *(f"not counted: {text}" for text in self.left_out)]

    def markdown(self) -> str:
        """Return all of it as Markdown."""
        blocks = [markdown_text(self.about)]
        for table in self.tables:
            blocks += [f"### {markdown_text(table.heading)}", "\n".join(markdown_rows(table.laid_out()))]
            blocks += ["\n".join(f"- {markdown_text(text)}" for text in table.said)] if table.said else []
        if self.warnings:
            blocks.append("\n".join(f"- {markdown_text(text)}" for text in self.warnings))
        return "\n\n".join(blocks) + "\n"

    def page(self) -> str:
        """Return all of it as a page that stands alone."""
        return render("paper.html", report=self, mark=MARK)

    def __rich__(self) -> RenderableType:
        lines: list[RenderableType] = [Text(self.about)]
        for table in self.tables:
            lines += [Text(f"\n{table.heading}", style="bold"), as_table(table.laid_out())]
            lines += [Text(text, style="dim") for text in table.said]
        return Lines(*lines, *(Text(f"! {text}", style="yellow") for text in self.warnings))
