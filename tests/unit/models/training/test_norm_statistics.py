import pytest
import torch
from timm.layers import BatchNormAct2d, EvoNorm2dB0
from torch import nn

from des4.models import PrototypeClassifier, norm_statistics


class Others(nn.Module):
    """Buffers that are no statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.head = PrototypeClassifier(3, 4)
        self.register_buffer("running", torch.zeros(1))
        self.register_buffer("queue_running_mean_of_features", torch.zeros(9))


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(4), BatchNormAct2d(4), EvoNorm2dB0(4), nn.InstanceNorm2d(4, track_running_stats=True)]
)
def test_what_a_pass_in_train_mode_moves(norm: nn.Module) -> None:
    module = nn.Sequential(Others(), norm)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    norm.train()(torch.randn(2, 4, 3, 3))
    moved = [buffer for name, buffer in module.named_buffers() if not torch.equal(before[name], buffer)]
    assert moved
    found = norm_statistics(module)
    assert all(any(one is other for other in found) for one in moved)
    assert len(found) == len(list(norm.buffers()))


def test_a_shared_norm_is_listed_once_and_the_others_not_at_all() -> None:
    norm = nn.BatchNorm2d(2)
    assert len(norm_statistics(nn.ModuleDict({"one": norm, "two": norm}))) == 3
    assert norm_statistics(Others()) == []
    assert norm_statistics(nn.Sequential(nn.GroupNorm(1, 2), nn.LayerNorm(2))) == []
