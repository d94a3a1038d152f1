import math

import pytest
import torch
from torch import nn

from des4.models import LinearClassifier, ModelConfig, PrototypeClassifier, build_segmenter
from des4.models.encoders.pyramid import PyramidEncoder
from des4.types import Bands, ConfigError


@pytest.mark.parametrize("size", [(513, 513), (769, 769), (801, 801), (65, 161), (97, 50), (33, 33)])
def test_any_size_gives_logits_at_stride_4(tiny_model: ModelConfig, size: tuple[int, int]) -> None:
    segmenter = build_segmenter(tiny_model, 5, "linear").eval()
    with torch.no_grad():
        logits = segmenter(torch.rand(1, 3, *size))
    assert logits.shape == (1, 5, math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    assert logits.isfinite().all()


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_output_strides(tiny_model: ModelConfig, stride: int) -> None:
    segmenter = build_segmenter(tiny_model.model_copy(update={"output_stride": stride}), 3, "linear")
    low, deep = segmenter.encode(torch.rand(2, 3, 65, 65))
    assert low.shape[-1] == 17
    assert deep.shape[-1] == math.ceil(65 / stride)
    assert segmenter(torch.rand(2, 3, 65, 65)).shape == (2, 3, 17, 17)


@pytest.mark.parametrize("size", [33, 65])
def test_one_image_trains(tiny_model: ModelConfig, size: int) -> None:
    segmenter = build_segmenter(tiny_model, 3, "linear").train()
    segmenter(torch.rand(1, 3, size, size)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in segmenter.parameters())


def test_heads_are_interchangeable(tiny_model: ModelConfig) -> None:
    image = torch.rand(2, 3, 33, 33)
    for head, kind in (("linear", LinearClassifier), ("prototype", PrototypeClassifier)):
        asked = build_segmenter(tiny_model, 3, head)  # type: ignore[arg-type]
        configured = build_segmenter(
            tiny_model.model_copy(update={"head": head}), 3, "prototype" if head == "linear" else "linear"
        )
        for segmenter in (asked, configured):
            assert isinstance(segmenter.head, kind)
            assert segmenter(image).shape == (2, 3, 9, 9)


def test_settings_reach_the_prototypes(tiny_model: ModelConfig) -> None:
    settings = {"temperature": 0.5, "prototype_momentum": 0.7, "prototype_start": "random"}
    head = build_segmenter(tiny_model.model_copy(update=settings), 3, "prototype").head
    assert isinstance(head, PrototypeClassifier)
    assert (head.temperature, head.momentum) == (0.5, 0.7)
    assert head.seen.all()


@pytest.mark.parametrize("head", ["linear", "prototype"])
@pytest.mark.parametrize("kind", ["auto", "none", "linear", "norm"])
def test_embeddings(tiny_model: ModelConfig, head: str, kind: str) -> None:
    segmenter = build_segmenter(tiny_model.model_copy(update={"embedding": kind}), 3, head)  # type: ignore[arg-type]
    features = segmenter.features(torch.rand(2, 3, 33, 33))
    resolved = kind if kind != "auto" else {"linear": "none", "prototype": "norm"}[head]
    assert features.shape == (2, 16 if resolved == "none" else 12, 9, 9)
    assert (features.min() >= 0) == (resolved == "none")  # only what follows a ReLU is never negative
    if resolved == "norm":
        torch.testing.assert_close(features.mean((0, 2, 3)), torch.zeros(12), atol=1e-5, rtol=0)
    assert segmenter.head(features).shape == (2, 3, 9, 9)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_the_network_normalises_its_input_itself(tiny_model: ModelConfig, name: str) -> None:
    segmenter = build_segmenter(tiny_model.model_copy(update={"encoder": name}), 3, "linear").eval()
    mean, std = (torch.tensor(segmenter.encoder.network.default_cfg[key])[:, None, None] for key in ("mean", "std"))
    image = torch.rand(1, 3, 33, 33)
    low, side, deep = segmenter.encoder.network((image - mean) / std)
    for mine, plain in zip(segmenter.encode(image), (low, deep), strict=True):
        assert torch.equal(mine, plain)
    segmenter.encoder.yields_side = True
    (_, again), found = segmenter.encode_with_side(image)
    assert torch.equal(again, deep)
    assert torch.equal(found, side)
    assert found.shape[1] == segmenter.encoder.side_channels
    assert not {"mean", "std"} & segmenter.state_dict().keys()  # they belong to the encoder's name, not to its weights


def test_convolutions_start_as_kaiming_says_and_the_classifier_small(tiny_model: ModelConfig) -> None:
    torch.manual_seed(0)
    segmenter = build_segmenter(tiny_model.model_copy(update={"channels": 64}), 9, "linear")
    fuse = next(m for m in segmenter.decoder.fuse.modules() if isinstance(m, nn.Conv2d))
    assert fuse.weight.std().item() == pytest.approx(math.sqrt(2 / (fuse.in_channels * 9)), rel=0.05)
    assert isinstance(segmenter.head, LinearClassifier)
    assert segmenter.head.weight.weight.std().item() == pytest.approx(0.01, rel=0.2)


# ── encoders ─────────────────────────────────────────────────────────────────────────────────────────────────────────

ENCODERS = ["test_resnet", "test_efficientnet", "test_byobnet", "test_convnext", "mobilenetv3_small_050"]


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_yield_two_maps_and_use_all_their_parameters(name: str) -> None:
    encoder = PyramidEncoder(name, 16).train()
    low, deep = encoder(torch.rand(2, 3, 64, 96))
    assert low.shape == (2, encoder.channels[0], 16, 24)
    assert deep.shape == (2, encoder.channels[1], 4, 6)
    (low.square().sum() + deep.square().sum()).backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("name", "stride", "reason"),
    [
        ("no_such_network", 16, "Unknown model"),
        ("test_vit_relpos", 16, "output_stride"),
        ("test_vit_relpos", 32, "strides [16, 16, 16]"),
        ("test_mambaout", 32, "channels last"),
        ("test_coatnet", 32, "65 × 97"),
    ],
)
def test_unsuitable_encoders_are_refused_in_one_line(name: str, stride: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PyramidEncoder(name, stride)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("model.encoder: ")
    assert f"`{name}`" in message
    assert reason in message


def test_an_encoder_loads_its_own_state_and_names_what_is_missing() -> None:
    source, encoder = PyramidEncoder("test_efficientnet", 16), PyramidEncoder("test_efficientnet", 16)
    state = source.network.state_dict()
    assert encoder.load({**state, "classifier.weight": torch.zeros(1)}) == []
    for mine, theirs in zip(encoder.network.state_dict().values(), state.values(), strict=True):
        assert torch.equal(mine, theirs)
    lost = state.pop("conv_stem.weight")
    assert encoder.load(state) == ["conv_stem.weight"]
    assert encoder.load({**state, "conv_stem.weight": lost[:1]}) == ["conv_stem.weight"]  # another shape is no match


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_resnet"])
@pytest.mark.parametrize("num_bands", [1, 6])
def test_weights_of_rgb_are_kept_for_other_bands(name: str, num_bands: int) -> None:
    rgb, other = PyramidEncoder(name, 16).eval(), PyramidEncoder(name, 16, num_bands).eval()
    assert other.load(rgb.network.state_dict()) == []
    image = torch.rand(1, 3, 32, 32) if num_bands == 6 else torch.rand(1, 1, 32, 32).expand(1, 3, 32, 32)
    bands = image.repeat(1, 2, 1, 1) if num_bands == 6 else image[:, :1]  # which say what the colours say
    with torch.inference_mode():
        for expected, found in zip(rgb(image), other(bands), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_bands_are_normalised_with_their_own_statistics(tiny_model: ModelConfig) -> None:
    mean, std = (0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)
    bands = Bands(numbers=(1, 2, 3, 4), type="uint16", ranges=((0, 1),) * 4, mean=mean, std=std)
    segmenter = build_segmenter(tiny_model, 3, "linear", bands).eval()
    image = torch.rand(2, 4, 32, 48)
    seen = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    for found, expected in zip(segmenter.encode(image), segmenter.encoder(seen), strict=True):
        torch.testing.assert_close(found, expected)
    assert segmenter(image).shape == (2, 3, 8, 12)


def test_a_network_whose_pyramid_flattens_its_stages_loads_under_the_networks_own_names() -> None:
    import timm

    state = timm.create_model("test_convnext").state_dict()
    encoder = PyramidEncoder("test_convnext", 16)
    assert encoder.load(state) == []
    assert torch.equal(encoder.network.state_dict()["stem_0.weight"], state["stem.0.weight"])
