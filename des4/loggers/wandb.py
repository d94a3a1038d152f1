"""Weights & Biases. `WANDB_MODE`, `WANDB_PROJECT` and its other variables mean what they mean elsewhere."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # who asks for logs has not asked for that

import wandb

from des4.loggers.logger import PROJECT, FirstStep


class WeightsAndBiases:
    """Logs to one W&B run, however many processes train it."""

    forgets = False

    def open(self, run: Path, first: FirstStep, known: dict[str, Any]) -> dict[str, Any]:
        """Begin a W&B run, or go on with it. Raises where nobody is logged in."""
        key = known.get("id") or secrets.token_hex(4)
        settings = wandb.Settings(
            console="off",  # a terminal is the training's
            silent=True,
            disable_code=True,
            disable_git=True,
            login_timeout=1,  # nobody is there to answer a question
        )
        self._run = wandb.init(
            id=key,
            resume="allow",
            dir=run,
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.environ.get("WANDB_NAME") or first.name,
            config=dict(first.config),
            allow_val_change=True,
            settings=settings,
        )
        folder = Path(self._run.dir).parent
        at = f"{folder}, which `wandb sync` uploads" if self._run.offline else self._run.url
        return {"id": key, "at": at or str(folder)}

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers by key; two lines of one step become one row."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, png: bytes) -> None:
        """Log a picture under `samples`."""
        with TemporaryDirectory() as folder:
            path = Path(folder, "samples.png")
            path.write_bytes(png)
            self._run.log({"samples": wandb.Image(str(path))}, step=step)  # copies the file

    def close(self, status: str) -> None:
        """Deliver what is left; W&B calls a run that was stopped a failed one."""
        self._run.finish(exit_code=0 if status == "finished" else 1)
        wandb.teardown()
