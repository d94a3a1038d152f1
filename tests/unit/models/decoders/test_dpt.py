import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from des4.models import ModelConfig, Segmenter, build_segmenter
from des4.models.decoders.dpt import DPT, Fusion, ResidualUnit, reassemble
from des4.models.encoders.vit import DEFAULT_STRIDE


@pytest.fixture
def vit_model(tiny_model: ModelConfig) -> ModelConfig:
    return tiny_model.model_copy(update={"encoder": "test_vit"})


@pytest.mark.parametrize(
    ("encoder", "size", "grid"),
    [
        ("test_vit", (65, 97), (16, 24)),
        ("test_vit", (33, 33), (8, 8)),
        ("test_vit", (50, 16), (12, 4)),
        ("test_vit", (161, 64), (40, 16)),
        ("vit_small_patch14_dinov2", (65, 97), (20, 28)),
        ("vit_tiny_patch16_dinov3_qkvb", (70, 40), (16, 12)),
    ],
)
def test_any_size_gives_logits_at_a_quarter_of_the_patch(
    vit_model: ModelConfig, encoder: str, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    segmenter = build_segmenter(vit_model.model_copy(update={"encoder": encoder}), 5, "linear").eval()
    assert isinstance(segmenter.decoder, DPT)
    with torch.no_grad():
        logits = segmenter(torch.rand(1, 3, *size))
    assert logits.shape == (1, 5, *grid)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [48, 65])
def test_one_image_trains_everything(vit_model: ModelConfig, size: int) -> None:
    segmenter = build_segmenter(vit_model, 3, "linear").train()
    segmenter(torch.rand(1, 3, size, size)).square().sum().backward()
    assert [key for key, p in segmenter.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in segmenter.parameters() if p.grad is not None)


@pytest.mark.parametrize("head", ["linear", "prototype"])
@pytest.mark.parametrize("kind", ["auto", "none", "linear", "norm"])
def test_embeddings(vit_model: ModelConfig, head: str, kind: str) -> None:
    segmenter = build_segmenter(vit_model.model_copy(update={"embedding": kind}), 3, head)  # type: ignore[arg-type]
    features = segmenter.features(torch.rand(2, 3, 48, 48))
    resolved = kind if kind != "auto" else {"linear": "none", "prototype": "norm"}[head]
    assert features.shape == (2, 16 if resolved == "none" else 12, 12, 12)
    assert (features.min() >= 0) == (resolved == "none")
    if resolved == "norm":
        torch.testing.assert_close(features.mean((0, 2, 3)), torch.zeros(12), atol=1e-5, rtol=0)
    assert segmenter.head(features).shape == (2, 3, 12, 12)


def test_levels_and_widths_of_vit_small() -> None:
    """UniMatch v2 reassembles ViT-S to 48, 96, 192 and 384 channels, and fuses them at 64."""
    decoder = DPT(384, channels=64, embedding="none", embedding_dim=8)
    tokens = torch.rand(1, 384, 5, 7)
    assert [layer[0].out_channels for layer in decoder.reassemble] == [48, 96, 192, 384]  # type: ignore[index,union-attr]
    sizes = [tuple(layer(tokens).shape) for layer in decoder.reassemble]
    assert sizes == [(1, 64, 20, 28), (1, 64, 10, 14), (1, 64, 5, 7), (1, 64, 3, 4)]
    assert decoder.eval()((tokens,) * 4).shape == (1, 64, 20, 28)


def test_each_map_has_its_level(vit_model: ModelConfig) -> None:
    """The last map becomes the coarsest level: what changes there spreads further than what changes in the first."""
    torch.manual_seed(0)
    decoder = DPT(16, channels=8, embedding="none", embedding_dim=8).eval()
    maps = tuple(torch.rand(1, 16, 16, 16) for _ in range(4))
    with torch.no_grad():
        before, reach = decoder(maps), []
        for index in range(4):
            moved = [each.clone() for each in maps]
            moved[index][..., 8, 8] += 1
            reach.append(int((decoder(tuple(moved)) != before).any(1).sum()))
    assert reach == sorted(reach)
    assert 0 < reach[0] < reach[3] / 4


def test_the_projection_of_a_fusion_commutes_with_its_resizing() -> None:
    """As in the paper it follows the resizing; here it comes first, on a quarter of the pixels."""
    torch.manual_seed(0)
    fusion = Fusion(4).eval()
    level, coarser = torch.rand(2, 4, 9, 6), torch.rand(2, 4, 5, 3)
    above = F.interpolate(coarser, size=(9, 6), mode="bilinear", align_corners=True)
    with torch.no_grad():
        expected = fusion.refine(fusion.enter(level) + fusion.project(above))
        torch.testing.assert_close(fusion(level, coarser), expected, atol=1e-5, rtol=1e-4)


def test_convolutions_start_with_the_variance_of_what_they_read() -> None:
    torch.manual_seed(0)
    layers = reassemble(64, 4, 32)
    decoder = DPT(256, channels=64, embedding="none", embedding_dim=8)
    transposed = decoder.reassemble[0][1]  # type: ignore[index]
    assert isinstance(layers[1], nn.ConvTranspose2d)
    assert isinstance(transposed, nn.ConvTranspose2d)
    assert transposed.weight.std().item() == pytest.approx(math.sqrt(2 / 32), rel=0.05)  # 256 / 8 channels, one place
    plain = decoder.fusions[0].enter.branch[1]  # type: ignore[union-attr,index]
    assert plain.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)


def test_low_channels_have_no_effect_and_the_stride_is_not_chosen(vit_model: ModelConfig) -> None:
    torch.manual_seed(0)
    one = build_segmenter(vit_model, 3, "linear").state_dict()
    torch.manual_seed(0)
    two = build_segmenter(vit_model.model_copy(update={"low_channels": 7}), 3, "linear").state_dict()
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert ModelConfig().output_stride == DEFAULT_STRIDE


def halves(size: tuple[int, int], split: int) -> tuple[Tensor, Tensor]:
    label = (torch.arange(size[1]) >= split).long().expand(1, *size)
    return label[:, None].float().expand(-1, 3, -1, -1), label


def test_a_trained_network_finds_the_edge_where_it_is(vit_model: ModelConfig) -> None:
    """Trained on 64 × 64 pixels, it finds edges in sizes that are no multiples of the patch."""
    torch.manual_seed(0)
    segmenter: Segmenter = build_segmenter(vit_model, 2, "linear").train()
    optimiser = torch.optim.AdamW(segmenter.parameters(), lr=0.003)
    for _ in range(60):
        pairs = [halves((64, 64), int(split)) for split in torch.randint(8, 57, (8,))]
        image, label = (torch.cat(each) for each in zip(*pairs, strict=True))
        logits = F.interpolate(segmenter(image), size=(64, 64), mode="bilinear", align_corners=True)
        optimiser.zero_grad()
        F.cross_entropy(logits, label).backward()
        optimiser.step()
    segmenter.eval()
    with torch.no_grad():
        for size, split in (((70, 100), 50), ((90, 41), 20), ((65, 97), 30)):
            logits = F.interpolate(segmenter(halves(size, split)[0]), size=size, mode="bilinear", align_corners=True)
            found = (logits.argmax(1) == 0).sum(2).float()  # columns of the first class, row by row
            assert (found - split).abs().max() <= 3, (size, split, found)


def test_a_unit_whose_branch_says_nothing_leaves_what_it_gets() -> None:
    unit, maps = ResidualUnit(2), torch.randn(2, 2, 3, 3)
    nn.init.zeros_(unit.branch[-1].weight)
    assert torch.equal(unit(maps), maps)
