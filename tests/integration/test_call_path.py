"""The way from `train` to a loss is short, and docs/architecture.md tells it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import des4
from des4.methods.ingredients import supervision

PACKAGE = Path(des4.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"
TO_LOSSES = ["train", "Trainer.fit", "TrainStep.__call__", "TrainStep.gradients"]


class Reached(Exception):  # noqa: N818  # it is none
    """Ends the run at the first loss on labels. names: of our functions that led to it, the outermost first."""

    def __init__(self) -> None:
        self.names: list[str] = []
        frame = sys._getframe(2)
        while frame is not None:
            if Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
                self.names.insert(0, frame.f_code.co_qualname)
            frame = frame.f_back  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("settings", "way"),
    [
        ({}, ["MeanTeacher.losses"]),
        ({"teacher_decoder": "decoupled"}, ["TeacherStudent.losses_and_decoder", "MeanTeacher.losses"]),
    ],
    ids=["alone", "with a decoder of the teacher's own"],
)
def test_five_calls_lead_from_train_to_a_methods_equations(
    settings: dict[str, Any], way: list[str], tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: Any, **__: Any) -> None:
        raise Reached

    monkeypatch.setattr(supervision, "cross_entropy", reached)
    with pytest.raises(Reached) as end:
        des4.train(tiny, method="mean_teacher", out=tmp_path / "run", **settings)
    assert end.value.names == [*TO_LOSSES, *way, "Method.supervise", "Supervision.on_labels"]


def test_the_docs_tell_the_way() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "`train > fit > step > gradients > losses`" in text
    assert all(f"`{name}`" in text for name in ("Trainer.fit", "TrainStep", "TrainStep.gradients"))
