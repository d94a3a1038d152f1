"""The picture of the README: four masks, 200 images without one, and what two methods make of them.

python examples/readme_picture.py [KEY=VALUE ...] [--runs FOLDER] [--out FILE]

Two runs on the built-in scenes, so no data is needed: supervised training and des4_committee, both for 600 steps of the
same settings. It took a quarter of an hour on one CPU core. A run that FOLDER holds already (default:
runs/readme_picture) is not trained again. The rows are the first validation scenes; the numbers are mIoU over all of
them. FILE is docs/pictures/few_masks.webp by default. KEY=VALUE: settings of both runs, such as steps=20 for a try.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image

import des4
from des4 import comparing
from des4.config import load_config
from des4.runlog import RunFolder

ROOT = Path(__file__).parents[1]
SETTINGS = (
    "data.size=256", "data.unlabeled=200", "crop_size=160", "scale=[0.6,1.2]",
    "steps=600", "eval_every=0", "guard.truth_images=0",
)  # fmt: skip
METHODS = ("supervised", "des4_committee")
ROWS = ("val/00000", "val/00001", "val/00002")


def main() -> None:
    """Train what is missing, and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=Path("runs/readme_picture"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs/pictures/few_masks.webp")
    given = parser.parse_args()
    runs = {}
    for method in METHODS:
        folder = given.runs / method
        if not (folder / "results.json").exists():
            own = [f"method={method}", f"out={folder}"]
            des4.train(load_config(ROOT / "des4/configs/demo.yaml", [*SETTINGS, *own, *given.settings]))
        run = RunFolder.open(folder)
        runs[f"{method}: {100 * run.results()['miou']:.1f} %"] = run
    draw(runs, given.out)


def draw(runs: dict[str, RunFolder], path: Path) -> None:
    """Draw image, truth and predictions, label → run, into a WebP file."""
    sheet = io.BytesIO()
    comparing.draw(runs, sheet, ROWS)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(sheet).save(path, quality=88, method=6)
    print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
