"""The process that writes one logger: `python -m des4.loggers.serve NAME`, started by `des4.watch.feed`.

It reads JSON objects from its input, one a line, and answers each by one: `{"ok": …, "at": …}` or `{"error": …}`.

    {"do": "open", "run": …, "config": {…}, "step": …, "rows": [{"step": …, "values": {…}}, …]}
    {"do": "row", "step": …, "values": {…}}
    {"do": "picture", "step": …, "png": base64}
    {"do": "end", "status": "finished" | "stopped" | "failed"}

What the library prints goes to `loggers/NAME.log` in the run folder. `loggers/NAME.json` keeps by what name the logger
knows the run, and which lines it has, so that none comes twice however a training ends. When the input ends without an
`end`, the training was killed: the logger is told so.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from des4.loggers.logger import LOGGERS, FirstStep, Logger

_LINGER = 120.0
"""Seconds that are left to a logger whose training was killed."""


class State:
    """What `loggers/NAME.json` keeps: `run`, the logger's own; `sent`, the last step of each kind of line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.run: dict[str, Any] = values.get("run", {})
        self.sent: dict[str, int] = values.get("sent", {})

    def write(self) -> None:
        """Replace the file as a whole."""
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.write_text(json.dumps({"run": self.run, "sent": self.sent}), encoding="utf-8")
        partial.replace(self.path)


class Session:
    """One logger from `open` to `end`."""

    def __init__(self, name: str, run: Path) -> None:
        self.run = run
        module, cls = LOGGERS[name]
        self.state = State(run / "loggers" / f"{name}.json")
        self.logger: Logger = getattr(import_module(module), cls)()

    def open(self, message: Mapping[str, Any]) -> str:
        """Begin a run with the logger, or go on with it, and give it the lines that it lacks; return where it logs."""
        step = message["step"]
        first = FirstStep(message["run"], message["config"], step)
        self.state.run = self.logger.open(self.run, first, dict(self.state.run))
        if self.logger.forgets:  # what lies beyond comes again
            self.state.sent = {kind: min(sent, step) for kind, sent in self.state.sent.items()}
        self.state.write()
        for row in message["rows"]:
            self.row(row)
        return str(self.state.run["at"])

    def row(self, row: Mapping[str, Any]) -> None:
        """Log one line, unless an earlier process has."""
        kind = kind_of(row["values"])
        if row["step"] <= self.state.sent.get(kind, -1):
            return
        self.logger.scalars(row["step"], row["values"])
        self.state.sent[kind] = row["step"]
        self.state.write()

    def picture(self, message: Mapping[str, Any]) -> None:
        """Log the samples of a validation, unless an earlier process has."""
        if message["step"] > self.state.sent.get("picture", -1):
            self.logger.picture(message["step"], base64.b64decode(message["png"]))
            self.state.sent["picture"] = message["step"]
            self.state.write()

    def end(self, message: Mapping[str, Any]) -> None:
        """Close the logger."""
        self.logger.close(message["status"])


def kind_of(values: Mapping[str, Any]) -> str:
    """Return what a line of metrics.jsonl is about: there may be two of a step."""
    return "validation" if any(key.startswith("val/") for key in values) else "training"


def serve(name: str, requests: Iterator[str], answers: TextIO, run: Path) -> None:
    """Answer requests until the end."""
    session: Session | None = None
    for line in requests:
        message = json.loads(line)
        try:
            session = session or Session(name, run)
            answer: dict[str, Any] = {"ok": message["do"], "at": getattr(session, message["do"])(message)}
        except BaseException as error:  # some libraries exit where they should raise
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        print(json.dumps(answer), file=answers, flush=True)
        if message["do"] == "end" or "error" in answer:
            return
    if session is not None:
        session.end({"status": "failed"})


def _leave_after(parent: int) -> None:
    """End this process some time after the training has, even if the logger hangs."""
    while os.getppid() == parent:
        time.sleep(5)
    time.sleep(_LINGER)
    os._exit(1)


def main(name: str, run: Path) -> None:
    """Serve over this process's input and output, which the logger's library gets others in the place of."""
    requests, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    log = os.open(run / "loggers" / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    threading.Thread(target=_leave_after, args=(os.getppid(),), daemon=True).start()
    serve(name, iter(requests.readline, ""), answers, run)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # exit handlers of libraries wait for servers, some without end


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
