"""The command line: its verbs put together. Nothing here imports torch; the verbs do when they run."""

from __future__ import annotations

import errno
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import des4
from des4.cli.compare import compare
from des4.cli.curve import curve
from des4.cli.data import app as data_app
from des4.cli.doctor import doctor
from des4.cli.evaluate import eval
from des4.cli.export import benchmark, export, push
from des4.cli.methods import methods
from des4.cli.next import next_
from des4.cli.predict import predict
from des4.cli.printing import complain
from des4.cli.probe import probe
from des4.cli.report import report
from des4.cli.serve import serve
from des4.cli.train import demo, train

OF_PLACES = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST
)  # fmt: skip
"""What is wrong with a place that nothing can be read from or written to, wherever a verb finds it out."""


class Verbs(TyperGroup):
    """The verbs; a mistake of the user's ends in one red line and exit code 2, a stopped training in its own code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BaseException as error:  # a stopped training is no Exception
            if type(error).__name__ == "NoSuchOption":  # click's, or that of the click within typer
                option = str(getattr(error, "option_name", ""))
                setting = option.lstrip("-").replace("-", "_")
                text = f"there is no option {option}; settings are written without dashes: {setting}=VALUE"
                raise typer.BadParameter(text, ctx=getattr(error, "ctx", None)) from None
            if "des4.types" not in sys.modules:  # then it is none of ours, and asking would cost the import of torch
                raise
            from des4.engine import Interrupted
            from des4.types import UserError

            if isinstance(error, OSError) and error.filename and error.errno in OF_PLACES:
                complain(f"error: {error.filename}: {error.strerror}; mend its rights, free some disk space, or name "
                         "another place", "red")  # fmt: skip
                raise typer.Exit(2) from None
            if isinstance(error, Interrupted):
                complain(str(error), "yellow")
                raise typer.Exit(error.code) from None
            if isinstance(error, UserError):
                complain(f"error: {error}", "red")
                raise typer.Exit(2) from None
            raise


app = typer.Typer(cls=Verbs, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def des4_(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Semi-supervised semantic segmentation: many images, few masks, imbalanced classes."""
    if version:
        print(des4.__version__)
        raise typer.Exit


app.add_typer(data_app)
app.command()(demo)
app.command()(train)
app.command()(doctor)
app.command()(eval)
app.command()(predict)
app.command()(serve)
app.command("next")(next_)
app.command()(export)
app.command()(push)
app.command()(benchmark)
app.command()(probe)
app.command()(compare)
app.command()(curve)
app.command()(report)
app.command()(methods)


def main() -> None:
    """Run the command line."""
    app()
