"""`des4 doctor`: is this machine fit to train on, and what would a training cost here? Nothing is written."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from des4.doctor.findings import Finding
from des4.doctor.machine import examine_machine, examine_packages, unfit
from des4.doctor.tables import dry_run_tables, findings_table

if TYPE_CHECKING:
    from des4.doctor.dry_run import DryRun

__all__ = ["Examination", "examine"]


@dataclass(frozen=True)
class Examination:
    """What was found, and what the training would cost; None if none was given or the machine is not fit for one."""

    findings: tuple[Finding, ...]
    dry_run: DryRun | None

    @property
    def exit_code(self) -> int:
        """1 if there is a problem, else 0."""
        return int(unfit(self.findings))

    def as_data(self) -> dict[str, Any]:
        """Return all of it as plain data, for JSON: memory in bytes, times in seconds, rates a second."""
        return asdict(self)

    def tables(self) -> RenderableType:
        """Lay it out for a terminal."""
        found = findings_table(self.findings)
        return Group(found, Text(), dry_run_tables(self.dry_run)) if self.dry_run else found


def examine(
    config: str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    num_steps: int = 5,
    seconds: float = math.inf,
) -> Examination:
    """Look at this machine and, if a config is given and the machine is fit, try the training that it describes.

    config, overrides: as for a training, which may be planned (`des4.plan`). num_steps: that are measured. seconds:
    that all of this may take, about; fewer steps are measured if it has to be. Raises ConfigError, DataError,
    WeightsError.
    """
    deadline = time.perf_counter() + seconds
    if config is None or unfit(examine_packages()):
        return Examination(tuple(examine_machine()), None)
    from des4.doctor.dry_run import dry_run
    from des4.plan import plan

    planned = plan(config, overrides).config
    machine = examine_machine(planned.out or Path("runs"))
    if unfit(machine):
        return Examination(tuple(machine), None)
    done, found = dry_run(planned, num_steps, deadline)
    return Examination((*machine, *found), done)
