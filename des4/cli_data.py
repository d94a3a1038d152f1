"""`des4 data …`: what is done with data before a training. torch is imported inside the verbs, as in `cli.py`."""

from __future__ import annotations

import typer

app = typer.Typer(name="data", no_args_is_help=True, help="Check, split, download and pack data.")
