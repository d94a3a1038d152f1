import pytest
import torch
from pydantic import ValidationError
from torch import nn

from des4.engine.inference import EvalConfig, scaled_size, segment, window_stride


def pointwise(**kwargs):
    torch.manual_seed(0)
    return nn.Conv2d(3, 5, 1, **kwargs)


@pytest.mark.parametrize("size", [(23, 31), (8, 40), (40, 8), (5, 6), (16, 16), (17, 16)])
@pytest.mark.parametrize("average", ["probs", "logits"])
@pytest.mark.parametrize("stride", [None, 5, 16])
def test_windows_equal_the_whole_for_a_pointwise_model(size, average, stride):
    model, image = pointwise(), torch.rand(3, *size)
    whole = segment(model, image, EvalConfig())
    sliding = segment(model, image, EvalConfig(mode="sliding", window=16, stride=stride, average=average))
    torch.testing.assert_close(sliding, whole)
    torch.testing.assert_close(whole.sum(0), torch.ones(size))


def test_logits_are_brought_to_the_size_of_the_image():
    model = nn.Sequential(pointwise(), nn.AvgPool2d(4))
    for config in (EvalConfig(), EvalConfig(mode="sliding", window=13)):
        assert segment(model, torch.rand(3, 29, 18), config).shape == (5, 29, 18)


def test_overlaps_are_averaged_by_hand():
    class Position(nn.Module):
        """Two classes; the logit of the second is the column inside the window."""

        def forward(self, image):
            column = torch.arange(image.shape[-1], dtype=torch.float32).expand(1, 1, *image.shape[-2:])
            return torch.cat([torch.zeros_like(column), column], 1)

    image = torch.zeros(3, 1, 5)  # windows over columns 0–2, 2–4
    logits = segment(Position(), image, EvalConfig(mode="sliding", window=3, stride=2, average="logits"))
    torch.testing.assert_close(logits[1, 0], torch.tensor([0.0, 1, 1, 1, 2]).sigmoid())
    probs = segment(Position(), image, EvalConfig(mode="sliding", window=3, stride=2))
    expected = torch.tensor([0.0, 1, 2, 1, 2]).sigmoid()
    expected[2] = (torch.tensor(2.0).sigmoid() + 0.5) / 2
    torch.testing.assert_close(probs[1, 0], expected)
    shifted = segment(
        Position(), torch.zeros(3, 1, 4), EvalConfig(mode="sliding", window=3, stride=2, average="logits")
    )
    torch.testing.assert_close(shifted[1, 0], torch.tensor([0.0, 0.5, 1.5, 2]).sigmoid())


def test_windows_that_leave_gaps_are_refused():
    with pytest.raises(ValidationError, match="missed"):
        EvalConfig(mode="sliding", window=16, stride=17)


def test_windows_lie_two_thirds_of_their_side_apart_rounded_up():
    assert [window_stride(EvalConfig(window=side)) for side in (16, 15, 1)] == [11, 10, 1]
    assert window_stride(EvalConfig(window=16, stride=5)) == 5


def test_a_side_never_shrinks_to_nothing():
    assert scaled_size((3, 100), 0.1) == [1, 10]
    assert segment(pointwise(), torch.rand(3, 3, 100), EvalConfig(resize=0.1)).shape == (5, 3, 100)


def test_no_graph_is_kept():
    assert not segment(pointwise(), torch.rand(3, 4, 4), EvalConfig()).requires_grad


@pytest.mark.parametrize("mode", ["whole", "sliding"])
def test_a_scaled_image_is_seen_smaller_and_answered_in_full(mode):
    seen = []
    model = pointwise()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    image = torch.tensor([0.2, 0.5, 0.9])[:, None, None].expand(3, 20, 30)
    probs = segment(model, image, EvalConfig(mode=mode, window=64, resize=0.5))
    assert seen == [(10, 15)]
    torch.testing.assert_close(probs, segment(model, image, EvalConfig()))
