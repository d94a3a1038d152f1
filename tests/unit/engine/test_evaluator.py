import pytest
import torch
from torch import nn

from des4.engine.evaluator import Evaluator
from des4.engine.inference import EvalConfig
from des4.types import DataError

CPU = torch.device("cpu")


class Pictures:
    """Images whose red, green or blue pixels are class 0, 1, 2; `b` has an ignored column, and is of another size."""

    classes = ("red", "green", "blue")
    labels = {  # noqa: RUF012
        "a": torch.tensor([[0, 0, 1], [1, 1, 0]], dtype=torch.uint8),
        "b": torch.tensor([[255, 1, 1, 1], [255, 0, 1, 1]], dtype=torch.uint8),
    }

    def __init__(self):
        self.reads = []

    def image(self, sample_id):
        self.reads.append(sample_id)
        return nn.functional.one_hot(self.labels[sample_id].long() % 3, 3).permute(2, 0, 1).to(torch.uint8) * 255

    def label(self, sample_id):
        return self.labels[sample_id]


class Perfect(nn.Module):
    def forward(self, image):
        return image * 4


class AlwaysRed(nn.Module):
    def forward(self, image):
        return torch.tensor([1.0, 0, 0])[None, :, None, None].expand(image.shape)


class SureOfRed(nn.Module):
    """Calls every pixel red: with a confidence of 0.96 where it is, else of 0.58."""

    def forward(self, image):
        return torch.cat([1 + 3 * image[:, :1], torch.zeros_like(image[:, 1:])], 1)


@pytest.mark.parametrize("mode", ["whole", "sliding"])
def test_all_models_are_scored_on_one_reading_of_each_image(mode):
    pictures = Pictures()
    evaluator = Evaluator(pictures, ("a", "b"), EvalConfig(mode=mode, window=2), CPU, tail=[1])
    evaluation = evaluator({"teacher": Perfect(), "student": AlwaysRed()})
    assert pictures.reads == ["a", "b"]
    assert evaluation.headline == "teacher"
    teacher, student = evaluation.results["teacher"], evaluation.results["student"]
    assert torch.equal(teacher.confusion, torch.diag(torch.tensor([4, 8, 0])))
    assert (teacher.miou, teacher.pixel_accuracy) == (1, 1)
    assert student.confusion[:, 0].tolist() == [4, 8, 0]
    assert student.tail == ("green",) and student.tail_miou == 0
    assert student.iou["red"] == 4 / 12


def test_pseudo_labels_are_those_of_whoever_makes_them():
    evaluator = Evaluator(pictures := Pictures(), ["a", "b"], EvalConfig(), CPU)
    student, teacher = AlwaysRed(), Perfect()
    taught = evaluator({"student": student, "teacher": teacher}, labeler=teacher)
    assert taught.pseudo_labels.miou == taught.pseudo_labels.precision["red"] == 1
    other = evaluator({"student": student}, threshold=0.9, labeler=(trained := nn.Sequential(teacher)))
    assert list(other.results) == ["student"] and list(other.image_miou.values()) == list(taught.image_miou.values())
    assert other.pseudo_labels.miou == other.pseudo_labels.coverage["red"] == 1  # its confidence is 0.96
    assert trained.training
    assert pictures.reads == ["a", "b"] * 2


def test_images_are_scored_by_the_headline_whoever_makes_the_pseudo_labels():
    evaluator = Evaluator(Pictures(), ["b", "a"], EvalConfig(), CPU)
    found = evaluator({"student": AlwaysRed(), "teacher": (teacher := Perfect())}, labeler=teacher)
    assert found.image_miou == pytest.approx({"b": (1 / 6 + 0) / 2, "a": (3 / 6 + 0) / 2})  # red is all it says


def test_pixels_at_the_threshold_are_kept():
    sure = nn.Sequential(Perfect(), Perfect(), Perfect(), Perfect())  # logits of 256
    quality = Evaluator(Pictures(), ["a", "b"], EvalConfig(), CPU)({"student": sure}, threshold=1.0).pseudo_labels
    assert quality.coverage["red"] == quality.coverage["green"] == 1


def test_the_miou_of_pseudo_labels_is_of_all_pixels_kept_or_not():
    evaluator = Evaluator(Pictures(), ["a", "b"], EvalConfig(), CPU)
    quality = evaluator({"student": SureOfRed()}, threshold=0.9).pseudo_labels
    assert (quality.precision["red"], quality.coverage["red"], quality.coverage["green"]) == (1, 1, 0)
    assert quality.miou == pytest.approx((4 / 12 + 0) / 2)


def test_by_default_pseudo_labels_are_those_of_the_headline_above_the_threshold():
    evaluator = Evaluator(Pictures(), ["a", "b"], EvalConfig(), CPU)
    everything = evaluator({"student": AlwaysRed(), "teacher": Perfect()}, threshold=0.0).pseudo_labels
    assert everything.precision["red"] == 4 / 12
    assert everything.coverage["red"] == everything.coverage["green"] == 1
    nothing = evaluator({"student": AlwaysRed()}, threshold=0.9).pseudo_labels  # its confidence is 0.58
    assert nothing.threshold == 0.9
    assert nothing.coverage["red"] == nothing.coverage["green"] == 0


def test_training_flags_are_given_back_even_after_an_error():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3).eval(), nn.Dropout())
    before = [module.training for module in model.modules()]
    running = model[1].running_mean.clone()
    Evaluator(Pictures(), ["a"], EvalConfig(), CPU)({"student": model})
    assert [module.training for module in model.modules()] == before
    assert torch.equal(model[1].running_mean, running)
    with pytest.raises(KeyError):
        Evaluator(Pictures(), ["missing"], EvalConfig(), CPU)({"student": model})
    assert [module.training for module in model.modules()] == before


def test_an_empty_list_is_refused():
    with pytest.raises(DataError, match="val"):
        Evaluator(Pictures(), [], EvalConfig(), CPU)


def test_progress_walks_over_the_ids():
    seen = []

    def walk(ids):
        for sample_id in ids:
            seen.append(sample_id)
            yield sample_id

    Evaluator(Pictures(), ["b", "a"], EvalConfig(), CPU)({"student": Perfect()}, progress=walk)
    assert seen == ["b", "a"]
