"""Run a notebook and keep what its cells print and show: python tools/run_notebook.py [--page] NOTEBOOK...

The cells are run one after the other in one process, in an empty folder, as Jupyter would run them: what a cell prints
is kept, and its last expression is shown as the richest of picture, HTML, Markdown and text that it offers. Nothing of
Jupyter is needed for it, which would bring two dozen packages for this one file. Magics (`%`, `!`) are not understood.
A cell with the tag `parameters` may be followed by other values, as papermill does it: so a test runs it in a second.

The same is written as a page of the documentation, `NOTEBOOK.md`, with its pictures beside it. --page: this alone, of
what the notebook holds.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

_KINDS = {
    "image/png": "_repr_png_",
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
}
"""What a notebook keeps of an object, beside its text, and the method that makes it."""


def execute(notebook: dict[str, Any], folder: Path, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a notebook with the outputs of its cells, run in a folder. An error of a cell is raised as it is.

    parameters: values that come in the place of those of the cell with that tag.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, number = [], 0
    with _working_in(folder):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                number += 1
                cell = {**cell, "execution_count": number, "outputs": _run("".join(cell["source"]), names, number)}
                if "parameters" in cell["metadata"].get("tags", ()):
                    names.update(parameters or {})
            cells.append(cell)
    return {**notebook, "cells": cells}


def _run(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Run a cell; return its outputs in the form of a notebook."""
    outputs: list[dict[str, Any]] = []
    names["display"] = lambda *shown: outputs.extend({"output_type": "display_data", **_shown(one)} for one in shown)
    body, last = ast.parse(source).body, None
    if body and isinstance(body[-1], ast.Expr) and not source.rstrip().endswith(";"):
        last = ast.Expression(body.pop().value)  # type: ignore[attr-defined]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        where = f"<cell {number}>"
        exec(compile(ast.Module(body, []), where, "exec"), names)  # noqa: S102  # it is what this is for
        value = None if last is None else eval(compile(last, where, "eval"), names)  # noqa: S307
    if printed.getvalue():
        lines = printed.getvalue().splitlines(keepends=True)
        outputs.insert(0, {"output_type": "stream", "name": "stdout", "text": lines})
    if value is not None:
        outputs.append({"output_type": "execute_result", "execution_count": number, **_shown(value)})
    return outputs


def _shown(value: Any) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for kind, method in _KINDS.items():
        made = getattr(value, method)() if hasattr(value, method) else None
        if made is not None:
            data[kind] = base64.b64encode(made).decode() if isinstance(made, bytes) else made.splitlines(keepends=True)
    # where there is more to see, an object's text is no more than its address or all of its numbers
    data["text/plain"] = [f"<{type(value).__name__}>"] if data else repr(value).splitlines(keepends=True)
    return {"data": data, "metadata": {}}


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def read(path: Path) -> dict[str, Any]:
    """Read a notebook."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def page(notebook: Mapping[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and its pictures, file name → PNG. name: of the notebook, without its ending."""
    blocks, pictures = [f"<!-- written by tools/run_notebook.py from {name}.ipynb -->"], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        blocks.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text")})
            kind = next(kind for kind in (*_KINDS, "text/plain") if kind in data)
            text = "".join(data[kind]).rstrip()
            if kind == "image/png":
                file = f"{name}-{len(pictures) + 1}.webp"
                pictures[file] = base64.b64decode(text)
                text = f"![What the cell above shows]({file})"
            blocks.append(f"```text\n{text}\n```" if kind == "text/plain" else text)
    title, _, rest = blocks[1].partition("\n")
    blocks[1] = f"{title}\n\nThis page is a notebook that has been run: [{name}.ipynb]({name}.ipynb).\n{rest}"
    return "\n\n".join(blocks) + "\n", pictures


def write_page(path: Path) -> None:
    """Write the page of a notebook, and its pictures, beside it."""
    text, pictures = page(read(path), path.stem)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    for file, png in pictures.items():
        Image.open(io.BytesIO(png)).convert("RGB").save(path.with_name(file), "WEBP", quality=85)


def main() -> None:
    """Run notebooks and write them back with their outputs, and as pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--page", action="store_true", help="run nothing, write the page alone")
    parser.add_argument("notebooks", nargs="+", type=Path)
    given = parser.parse_args()
    for path in given.notebooks:
        if not given.page:
            with TemporaryDirectory() as folder:
                done = execute(read(path), Path(folder))
            path.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        write_page(path)


if __name__ == "__main__":
    main()
