"""Memory and time of predicting one image, by its size: python benchmarks/prediction.py 2000 8000 20000

Each size is predicted by a process of its own, from a grey PNG of so many pixels a side, which is read by windows above
50 megapixels. The network is random and small, so that the time is that of everything else. Settings such as
`eval.resize=0.5` may be given too. Scratch is what was kept in files for scores; the time is that of the processor.
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ENCODER = "test_efficientnet"
CLASSES = 11


def make_image(path: Path, side: int) -> None:
    from des4.predict.png import PngWriter

    rng = np.random.default_rng(0)
    writer = PngWriter(path, (side, side))
    for top in range(0, side, 50):
        coarse = rng.integers(0, 256, (min(50, side - top) // 10 + 1, side // 10 + 1), dtype=np.uint8)
        writer.write(coarse.repeat(10, 0).repeat(10, 1)[: min(50, side - top), :side])
    writer.close()


def make_weights(path: Path) -> None:
    import torch

    from des4.engine import EvalConfig
    from des4.models import ModelConfig, build_segmenter
    from des4.weights import WeightsInfo, save_weights

    torch.manual_seed(0)
    model = ModelConfig(encoder=ENCODER, weights="none", channels=16, low_channels=8)
    names = tuple(f"class_{index}" for index in range(CLASSES))
    info = WeightsInfo(model=model, head="linear", classes=names, palette=((90, 90, 90),) * CLASSES, tail=(),
                       eval=EvalConfig(), method="supervised")  # fmt: skip
    save_weights(path, build_segmenter(model, CLASSES, "linear").state_dict(), info)


def child(folder: Path, side: int, settings: list[str]) -> None:
    """Predict, and print what that took."""
    from torch import Tensor

    from des4.engine import tiles
    from des4.engine.process import prepare_process
    from des4.predict import Predictor, predict_files

    prepare_process()  # as the command line does
    predictor = Predictor(folder / "weights.safetensors", "cpu")
    predictor.configure(settings)
    make, files = tiles.scratch, [0.0]

    def counted(*shape: int) -> Tensor:
        size = 4 * math.prod(shape)
        files.append(size / 2**20 if size >= tiles.SCRATCH_FROM else 0)
        return make(*shape)

    tiles.scratch = counted
    before = peak()
    start = time.process_time()
    summary = predict_files(predictor, [folder / f"{side}.png"], folder / f"out-{side}")
    assert summary.done == 1, summary.skipped
    seconds = time.process_time() - start
    print(f"| {side} | {side**2 / 1e6:.0f} | {before:.0f} | {peak():.0f} | {sum(files):.0f} | {seconds:.0f} |")


def peak() -> float:
    """Most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(sides: list[int], settings: list[str]) -> None:
    print("| side | megapixels | peak before, MiB | peak, MiB | scratch, MiB | s |\n" + 6 * "| --- " + "|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_weights(folder / "weights.safetensors")
        for side in sides:
            make_image(folder / f"{side}.png", side)
            subprocess.run([sys.executable, __file__, "--child", name, str(side), *settings], check=True)  # noqa: S603


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    else:
        given = [text for text in sys.argv[1:] if "=" in text]
        main([int(text) for text in sys.argv[1:] if text not in given] or [1000, 2000, 4000], given)
