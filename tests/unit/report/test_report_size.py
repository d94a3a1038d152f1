"""Pages stay below 3 MB, however many classes and diagrams there are, and say what that cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image

from des4.report import classes, page, plots
from des4.report.page import write_report
from des4.report.templates import PICTURES, Drawn, diagram, fit, photographs
from des4.runlog import RunFolder

MakeRun = Callable[..., RunFolder]
LIMIT = 3_000_000


def noise(file: Path | IO[bytes], narrow: bool = False, side: int = 80) -> None:
    """Draw what no format makes small: a byte a pixel, nearly."""
    size = (side // 2 if narrow else side, side)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format="PNG")


def weight(figures: list[Drawn]) -> int:
    return sum(len(address) * 3 // 4 for each in figures for drawn in each.values() for address in drawn.values())


def test_diagrams_lose_their_narrow_copies_before_their_sharpness() -> None:
    figures: list[Drawn] = [{"a": diagram(noise), "b": diagram(noise, narrow=False)}, {"c": diagram(noise)}]
    whole = fit(figures)
    assert whole.figures == figures and not whole.said and whole.room == PICTURES - weight(figures)
    wide = weight([{name: {"wide": drawn["wide"]} for name, drawn in each.items()} for each in figures])
    one = fit(figures, weight(figures) - 1)
    assert [sorted(drawn) for each in one.figures for drawn in each.values()] == [
        ["wide"],
        ["wide"],
        ["narrow", "wide"],
    ]
    assert "1 of the 3 diagrams have no copy for the width of a phone." in one.said
    assert len(figures[0]["a"]) == 2, "what came in is as it was"
    least = fit(figures, wide // 2)
    assert weight(least.figures) <= wide // 2 and least.room == PICTURES - weight(least.figures)
    assert "2 of the 3 diagrams have no copy" in least.said and "% of their sharpness" in least.said


def test_a_diagram_may_be_longer_than_the_format(tmp_path: Path) -> None:
    def long(file: IO[bytes], narrow: bool) -> None:
        Image.new("RGB", (20, 17_000), "white").save(file, format="PNG")

    assert diagram(long, tmp_path / "long.png")["wide"].startswith("data:image/webp;base64,")
    assert Image.open(tmp_path / "long.png").height == 17_000, "the file is the original"


def test_photographs_get_as_small_as_it_takes(tmp_path: Path) -> None:
    noise(tmp_path / "a.png", side=200)
    assert len(photographs({"": tmp_path / "a.png"}, 500)[""]) < 500 * 4 / 3 + 30


def test_of_many_classes_the_most_frequent_and_the_rarest_are_drawn() -> None:
    assert classes.ends("abcdef", 2, 1) == ["a", "b", "f"] and classes.ends("abc", 2, 1) == ["a", "b", "c"]
    share = {f"{n:03}": (151.0 - n) * (n % 2) for n in range(151)}
    names = classes.shown(share)
    assert names[:2] == ["001", "003"] and names[-1] == "149" and len(names) == 21
    assert classes.told(share) == "21 of 151 classes are drawn: the 7 most frequent and the 14 rarest"
    few = {name: share[name] if name < "020" else 0.0 for name in share}
    assert len(classes.shown(few)) == 10
    assert classes.told(few) == "10 of 151 classes are drawn: those that have labeled pixels"
    assert classes.told({"a": 1.0, "b": 0.0}) == "", "there are no more than can be told apart"
    assert len(classes.shown(dict.fromkeys(share, 0.0))) == 21


def of_many_classes(run: RunFolder, count: int, lines: int = 3) -> list[str]:
    """Let a run have so many classes, and all that a DeS4 run records of them; return their names, rarest last."""
    rng = np.random.default_rng(count)
    names = [f"class number {n}" for n in range(count)]
    share = {name: float(2.0 ** -min(n, 40)) for n, name in enumerate(names)}
    by_class: dict[str, float] = dict(zip(names, rng.random(count).tolist(), strict=True))
    quality = {"threshold": 0.9, "precision": by_class, "coverage": by_class}
    scores = {"miou": 0.5, "tail_miou": 0.3, "pixel_accuracy": 0.8, "iou": by_class}
    models = {m: {**scores, "confusion": rng.integers(0, 99, (count, count)).tolist()} for m in ("teacher", "student")}
    drift = {"factor": 2.0, "ratio": dict.fromkeys(names, 1.0), "warned": []}
    run.write_results({
        **run.results(), **scores, "models": models, "pixel_share": share, "tail_classes": names[count // 2 :],
        "pseudo_labels": quality, "drift": drift, "truth": {"images": 7, "model": "teacher", **scores, **quality},
    })  # fmt: skip
    for step in range(20, 20 + 10 * lines, 10):
        run.log(step, {"loss": float(rng.random()), "lr": 0.01, "entropy/low": rng.random(count).tolist(),
                       "drift/shares": rng.dirichlet(np.ones(count)).tolist(), "drift/confidence": 0.9,
                       "drift/agreement": 0.8, "drift/kept": 0.7})  # fmt: skip
    for step in (30, 40):
        line: dict[str, Any] = {
            f"truth/{kind}/{n}": float(rng.random()) for n in names for kind in ("precision", "coverage")
        }
        pixels = rng.integers(1, 99, (count, 20))
        inside = {"low": [0.1] * count, "high": [1.0] * count, "pixels": pixels.ravel().tolist(),
                  "taken": (pixels // 2).ravel().tolist(), "moved": rng.random(count).tolist(),
                  "cosine": rng.random(count * (count - 1) // 2).tolist()}  # fmt: skip
        run.log(step, line | {f"inside/feed/{key}": value for key, value in inside.items()})
    return names


def test_a_page_of_151_classes_is_small_and_says_what_is_left_out(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    names = of_many_classes(run, 151)
    large = dict.fromkeys(("wide", "narrow"), "data:image/webp;base64," + 50_000 * "AAAA")  # 150 kB each
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(page, "diagram", lambda draw, path, narrow: drawn.update({path.stem: draw.args}) or large)
    monkeypatch.setattr(plots, "class_bars", lambda series, share, tail, *path, said: drawn.update(bars=(share, said)))
    noise(run.plots / "samples.png", side=300)
    text = write_report(run).read_text(encoding="utf-8")
    assert len(text) < LIMIT
    assert sum(len(large[kind]) for kind in large) * len(drawn) > LIMIT, "they were too large"
    said = "21 of 151 classes are drawn: the 7 most frequent and the 14 rarest"
    for each in ("diagrams have no copy for the width of a phone", f"whole images; mIoU 50.00 %. {said}.",
                 "<summary>All classes</summary>", "Samples of the validation list"):  # fmt: skip
        assert each in text, each
    assert text.count(said) == 4, "at what the method logged, drift, quality, prototypes"
    ends = names[:7] + names[-14:]
    assert [*drawn["bars"][0]] == ends and drawn["bars"][1] == said
    assert [*drawn["truth"][1]] == drawn["drift"][2] == drawn["truth_over_time"][2] == ends
    assert drawn["stats"][1:] == (names, ends) and drawn["feed_moved"][2:] == (names, ends)
    for name in names:
        assert text.count(f"<td>{name}<") == 3, "the tables hold all"


@pytest.mark.slow
@pytest.mark.parametrize("count", [21, 151])
def test_a_page_of_many_classes_as_it_is_drawn(make_run: MakeRun, count: int) -> None:
    run = make_run()
    of_many_classes(run, count, lines=300)
    noise(run.plots / "samples.png", side=2000)
    assert len(write_report(run).read_text(encoding="utf-8")) < LIMIT
