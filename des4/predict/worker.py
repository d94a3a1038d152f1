"""The process that segments a share of the files: `python -m des4.predict.worker`, started by `processes`.

It reads JSON objects from its input, one a line: first what it is to do, then chunks of files until the input ends.

    {"weights": …, "device": …, "threads": …, "eval": {…}, "fitted": …, "tile": …, "batch": …, "out": …, "outputs": {…}}
    {"jobs": [[file, place], …], "done": [frame, …]}

It says, one a line too: `{"progress": share}`, `{"file": …, "row" | "skipped" | "note": …}`, `{"warning": …}`, and
after each chunk `{"chunk": "done"}`. The last word may be `{"error": …}`, for the user, or `{"bug": traceback}`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from des4.engine import EvalConfig
from des4.engine.process import is_out_of_memory, prepare_process
from des4.predict.predictor import Predictor
from des4.predict.segmenting import Segmenting
from des4.predict.sources import Job
from des4.predict.writing import Outputs
from des4.types import UserError

Say = Callable[[dict[str, Any]], None]


def serve(requests: Iterator[str], say: Say) -> None:
    """Segment what is asked for, until there is no more."""
    task = json.loads(next(requests))
    try:
        _segment(task, requests, say)
    except UserError as error:
        say({"error": str(error)})
    except OSError:  # whoever asked is gone
        raise
    except Exception as error:
        if is_out_of_memory(error):
            remedy = "free some, or leave this device out, and go on with --resume"
            say({"error": f"{task['device']}: out of memory; {remedy}"})
        else:
            say({"bug": traceback.format_exc()})


def _segment(task: dict[str, Any], requests: Iterator[str], say: Say) -> None:
    if task["threads"] is not None:
        torch.set_num_threads(task["threads"])
    with warnings.catch_warnings():  # whoever asked has loaded the same weights, and said what is to be said of them
        warnings.simplefilter("ignore")
        predictor = Predictor(task["weights"], task["device"])
    predictor.eval = EvalConfig.model_validate(task["eval"])
    predictor.fitted, predictor.tile, predictor.batch = task["fitted"], task["tile"], task["batch"]
    done: set[str] = set()

    def chunks() -> Iterator[list[Job]]:
        for line in requests:
            chunk = json.loads(line)
            done.update(chunk["done"])
            yield [Job(Path(file), Path(place)) for file, place in chunk["jobs"]]

    segmenting = Segmenting(
        predictor, Path(task["out"]), Outputs(**task["outputs"]), done, lambda share: say({"progress": share})
    )
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *place: say({"warning": str(message)})
        for outcomes in segmenting.chunks(chunks()):
            for outcome in outcomes:
                say({key: value for key, value in vars(outcome).items() if value is not None})
            say({"chunk": "done"})


def main() -> None:
    """Serve over this process's input and output. What a library prints goes where errors go."""
    requests, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by an exception, which takes half-written files away
    prepare_process()

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    with suppress(BrokenPipeError):
        serve(iter(requests.readline, ""), say)


if __name__ == "__main__":
    main()
