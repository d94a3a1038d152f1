"""A model card: what the network is, how good, on which data, and how to use it; Markdown with the hubs' header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from des4.runlog import RunFolder
from des4.types import Bands
from des4.weights import WeightsInfo


def model_card(
    weights: Path, info: WeightsInfo, *, address: str | None = None, licence: str | None = None, samples: bool = False
) -> str:
    """Write the card of a weights file; with the figures of its run, if it lies in a run folder that has finished.

    address: of the repository on the hub that it is for. licence: its short name. samples: whether there is
    samples.png.
    """
    run = weights.parent.parent
    results: dict[str, Any] = {}
    if weights.parent.name == "weights" and (run / "results.json").is_file():
        results = RunFolder.open(run).results()
    header: dict[str, Any] = {
        "library_name": "des4",
        "pipeline_tag": "image-segmentation",
        **({"license": licence} if licence else {}),
        "tags": ["semantic-segmentation", "semi-supervised", info.method, info.model.encoder],
    }
    lines = ["---", yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip(), "---", ""]
    lines += [f"# {info.method} on {info.model.encoder}", ""]
    lines += [f"A network for semantic segmentation with {len(info.classes)} classes, trained with des4.", ""]
    if info.oracle:
        lines += ["**ORACLE.** It learnt from the true labels of its unlabeled images: its figures are no result.", ""]
    picture = "photo.jpg" if info.bands is None else "scene.tif"
    source = address or "model.safetensors"
    if address:
        lines += ["## Use", "", "```", 'pip install "des4[hub]"', f"des4 predict {address} {picture}", "```", ""]
    lines += [
        *([] if address else ["## Use", ""]),
        "```python",
        "import des4",
        "",
        f'predictor = des4.load("{source}")',
    ]
    lines += [f'labels = predictor.predict("{picture}")  # (H, W) class indices', "```", ""]
    lines += [
        f"Pictures are {_pictures(info.bands)}; the normalisation is part of the network. Nothing in the file is code.",
        "",
    ]
    lines += ["## Classes", "", "| index | name | colour | rare |", "| --- | --- | --- | --- |"]
    for index, (name, colour) in enumerate(zip(info.classes, info.palette, strict=True)):
        shown = "#{:02x}{:02x}{:02x}".format(*colour)
        lines.append(f"| {index} | {_cell(name)} | {shown} | {'yes' if name in info.tail else ''} |")
    lines += ["", "Rare: fewer of the labeled pixels than the median class.", ""]
    lines += _figures_of(weights.name, results)
    if samples:
        lines += ["Validation images, their masks, and what the network says:", "", "![samples](samples.png)", ""]
    lines += [
        "## Limits",
        "",
        "It knows nothing but these classes, and pictures like those it was trained on. Score it on",
    ]
    lines += [f"your own data, class by class, before you rely on it: `des4 eval {source} data=FOLDER`.", ""]
    if licence:
        lines += ["## Licence", "", f"{_cell(licence)}, as whoever published it says.", ""]
    else:
        lines += [
            "## Licence",
            "",
            "To be stated by whoever publishes it: that of the training data and of the encoder's",
        ]
        lines += ["weights may bind it.", ""]
    return "\n".join(lines)


def _pictures(bands: Bands | None) -> str:
    if bands is None:
        return "8-bit RGB of any size"
    return f"files of any size, of which it reads the bands {', '.join(map(str, bands.numbers))} of {bands.type} values"


def _figures_of(file: str, results: dict[str, Any]) -> list[str]:
    """Write what is known of how good a network is. file: of its run, whose results are those of the last step."""
    best = (results.get("best") or {}) if file == "best.safetensors" else {}
    if results and (file == "last.safetensors" or (best and best["step"] == results["step"])):
        return _figures(results)
    if best:
        data = results["data"]
        return ["## Figures", "", f"{_percent(best['miou'])} % mIoU on {data['val']} validation images of "
                f"`{data['name']}`, at step {best['step']}. It was chosen as the best of all validations on the images "
                "that it is scored on, so it flatters the network.", ""]  # fmt: skip
    return ["## Figures", "", "Not known: no results of a run are those of this file.", ""]


def _figures(results: dict[str, Any]) -> list[str]:
    data = results.get("data", {})
    lines = ["## Figures", "", f"On {data.get('val', '?')} validation images of `{data.get('name', '?')}`, after "
             f"training with {data.get('labeled', '?')} labeled and {data.get('unlabeled', '?')} unlabeled ones "
             f"(lists by hash: {_short(data.get('labeled_hash'))}, {_short(data.get('unlabeled_hash'))}, "
             f"{_short(data.get('val_hash'))}). One seed.", ""]  # fmt: skip
    lines += ["| figure | % |", "| --- | --- |"]
    for key, name in (
        ("miou", "mIoU"),
        ("tail_miou", "mIoU of the rare classes"),
        ("pixel_accuracy", "pixel accuracy"),
    ):
        lines.append(f"| {name} | {_percent(results.get(key))} |")
    lines += [f"| IoU of {_cell(name)} | {_percent(value)} |" for name, value in results.get("iou", {}).items()]
    return [*lines, ""]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _short(digest: str | None) -> str:
    return f"`{digest[:12]}`" if digest else "unknown"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
