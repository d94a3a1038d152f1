"""The command line: `des4 VERB …`. Nothing here imports torch before a verb needs it."""

from des4.cli.verbs import app, main

__all__ = ["app", "main"]
