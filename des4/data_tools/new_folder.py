"""A folder that appears as a whole, or not at all, and never in the place of anything: drawn lists, drawn masks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from des4.datasets.files import FileDataset
from des4.types import DataError


def refuse_place(out: Path, dataset: FileDataset, *sources: Path) -> None:
    """Raise DataError if the folder holds something, or lies inside the data or the sources they were imported from."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is there already, and nothing is overwritten; give another folder with --out")
    if any(out.resolve().is_relative_to(root.resolve()) for root in (dataset.root, *sources)):
        raise DataError(f"{out}: lies inside the data, into which nothing is written; give another folder with --out")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to fill, which lies beside `out` and takes its place when the block ends.

    What the block raises leaves nothing behind. Raises DataError, also for an OSError of the block: a full disk.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            yield partial
            partial.chmod(0o755)  # mkdtemp makes it its owner's alone
            partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror or error}); make room, or give another folder with --out"
        ) from error
