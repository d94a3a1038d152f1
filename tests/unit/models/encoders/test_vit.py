import math
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from des4.engine.cost import step_cost
from des4.models.encoders.vit import TransformerEncoder, blocks_to_read, is_transformer, nearest_count
from des4.models.encoders.weights import load_pretrained
from des4.models.training.blocks import blocks
from des4.types import Batch, ConfigError, Labeled, WeightsError

# class token; registers and the norm behind the pooling; attention pooling; registers and RMSNorm; rotary positions in
# a list of blocks; distillation token
NETWORKS = [
    "test_vit",
    "test_vit2",
    "test_vit3",
    "test_vit4",
    "vit_tiny_patch16_dinov3_qkvb",
    "deit_tiny_distilled_patch16_224",
]


def seen_by(encoder: TransformerEncoder, image: Tensor) -> Tensor:
    """What the patches are cut from."""
    seen: list[Tensor] = []
    handle = encoder.network.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        encoder(image)
    handle.remove()
    return seen[0]


# ── which networks, blocks and sizes ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("vit_small_patch14_dinov2.lvd142m", True),
        ("vit_large_patch14_reg4_dinov2", True),
        ("vit_base_patch16_dinov3", True),
        ("deit3_small_patch16_224", True),
        ("eva02_tiny_patch14_224", True),
        ("beit_base_patch16_224", True),
        ("resnet101", False),
        ("swin_tiny_patch4_window7_224", False),
        ("no_such_network", False),
    ],
)
def test_plain_transformers_are_known_by_name(name: str, answer: bool) -> None:
    assert is_transformer(name) is answer


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (4, (0, 1, 2, 3)),
        (6, (1, 2, 4, 5)),
        (9, (2, 4, 6, 8)),
        (12, (2, 5, 8, 11)),
        (24, (4, 11, 17, 23)),
        (40, (9, 19, 29, 39)),
    ],
)
def test_the_last_block_of_each_quarter_is_read(depth: int, expected: tuple[int, ...]) -> None:
    assert blocks_to_read(depth) == expected


@pytest.mark.parametrize(
    ("side", "patch", "count"),
    [
        (1, 16, 1),
        (16, 16, 1),
        (23, 16, 1),
        (24, 16, 2),
        (65, 16, 4),
        (97, 16, 6),
        (518, 14, 37),
        (513, 14, 37),
        (512, 14, 37),
    ],
)
def test_nearest_count(side: int, patch: int, count: int) -> None:
    assert nearest_count(side, patch) == count


# ── maps ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", NETWORKS)
def test_four_maps_of_any_size_and_every_parameter_in_use(name: str) -> None:
    encoder = TransformerEncoder(name).train()
    maps = encoder(torch.rand(2, 3, 65, 97))
    assert [tuple(each.shape) for each in maps] == [(2, channels, 4, 6) for channels in encoder.channels]
    assert len(maps) == 4
    sum((each * torch.randn_like(each)).sum() for each in maps).backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []
    with torch.no_grad():
        assert encoder(torch.rand(1, 3, 5, 40))[0].shape[-2:] == (1, 3)  # 40 / 16 = 2.5, rounded up


def test_patches_of_14_pixels() -> None:
    encoder = TransformerEncoder("vit_small_patch14_dinov2").eval()
    with torch.no_grad():
        maps = encoder(torch.rand(1, 3, 65, 97))  # 65 / 14 = 4.6, 97 / 14 = 6.9
    assert [tuple(each.shape) for each in maps] == [(1, 384, 5, 7)] * 4
    assert encoder.indices == (2, 5, 8, 11)
    assert encoder.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_dinov3_qkvb"])
def test_maps_are_the_networks_own_intermediate_tokens_under_its_final_norm(name: str) -> None:
    whole, encoder = timm.create_model(name, dynamic_img_size=True).eval(), TransformerEncoder(name).eval()
    if isinstance(whole.norm, nn.LayerNorm):
        nn.init.normal_(whole.norm.weight)
    assert encoder.load(whole.state_dict()) == []
    image = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        _, expected = whole.forward_intermediates(image, indices=list(encoder.indices), norm=True)
        found = encoder(image)
        last = whole.forward_features(image)[:, whole.num_prefix_tokens :]
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(found[-1].flatten(2).mT, last)


def test_nothing_behind_the_last_map_is_kept() -> None:
    for name in NETWORKS:
        network = TransformerEncoder(name).network
        places = {key.split(".")[0] for key in network.state_dict()}
        assert places <= {"blocks", "norm", "patch_embed", "pos_embed", "cls_token", "reg_token", "dist_token"}, name
        assert not isinstance(network.norm, nn.Identity)
        assert list(blocks(network)) == list(network.blocks)  # gradient checkpointing and sharding find them


class Encoding(nn.Module):
    """Sums the last map up."""

    WAITS = False

    def __init__(self, name: str) -> None:
        super().__init__()
        self.encoder = TransformerEncoder(name)

    def prepared(self, batch: Batch) -> Batch:
        return batch

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.encoder(batch.labeled.image)[-1].sum()}


def test_the_cost_of_a_step_counts_attention() -> None:
    """By hand, for 2 images of 4 × 4 patches and a class token, D = 64, six blocks whose inner layer is 3D wide."""
    images, patches, dim, depth = 2, 16, 64, 6
    tokens = patches + 1
    patching = 2 * images * patches * dim * (3 * 16 * 16)
    linear = depth * 2 * images * tokens * dim * (3 * dim + dim + 3 * dim + 3 * dim)  # query, key, value; out; MLP
    products = depth * 2 * images * tokens * tokens * dim  # of queries and keys, or of weights and values
    batch = Batch(Labeled(torch.rand(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.int64), torch.arange(2)))
    flops = step_cost(Encoding("test_vit"), batch).flops  # type: ignore[arg-type]
    assert flops.forward + flops.plain == patching + linear + 2 * products
    # The backward pass needs no gradient of the image, and multiplies queries and keys again.
    assert flops.backward == patching + 2 * linear + 5 * products


# ── alignment ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("height", "width"), [(65, 97), (70, 100), (90, 41), (64, 96), (24, 23)])
def test_patches_cover_the_whole_image_and_nothing_else(height: int, width: int) -> None:
    """Ramps from edge to edge stay ramps from edge to edge: no padding, no cut, no shift."""
    rows, columns = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    image = torch.stack([rows.expand(-1, width), columns.expand(height, -1), torch.ones(height, width)])[None]
    seen = seen_by(TransformerEncoder("test_vit"), image)
    h, w = 16 * nearest_count(height, 16), 16 * nearest_count(width, 16)
    expected = torch.stack(
        [torch.linspace(0, 1, h)[:, None].expand(-1, w), torch.linspace(0, 1, w).expand(h, -1), torch.ones(h, w)]
    )
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=0)
    if (height, width) == (h, w):
        assert torch.equal(seen, image)


def test_an_image_of_two_halves_has_maps_of_two_halves() -> None:
    """70 × 100 pixels become 4 × 6 patches: without position embeddings, patches of one colour have one token."""
    encoder = TransformerEncoder("test_vit").eval()
    nn.init.zeros_(encoder.network.pos_embed)
    image = torch.zeros(1, 3, 70, 100)
    image[..., 50:] = 1
    with torch.no_grad():
        for tokens in encoder(image):
            left, right = tokens[..., :3], tokens[..., 3:]
            for half in (left, right):
                torch.testing.assert_close(half, half[..., :1, :1].expand_as(half), atol=1e-5, rtol=1e-4)
            assert (left - right).abs().amax() > 0.01


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_under_timms_names_load_bit_by_bit(name: str, tmp_path: Path) -> None:
    whole = timm.create_model(name)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.normal_()
    state = whole.state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    encoder = TransformerEncoder(name)
    load_pretrained(encoder, str(tmp_path / "weights.safetensors"))
    for key, value in encoder.network.state_dict().items():
        theirs = key if key in state else key.replace("norm.", "fc_norm.")
        assert torch.equal(value, state[theirs]), key


def test_position_embeddings_of_another_grid_are_resampled_as_timm_does() -> None:
    encoder = TransformerEncoder("test_vit")
    grid = encoder.network.patch_embed.grid_size
    square = timm.create_model("test_vit", img_size=96).state_dict()
    assert encoder.load(square) == []
    expected = resample_abs_pos_embed(square["pos_embed"], new_size=list(grid), num_prefix_tokens=1)
    assert torch.equal(encoder.network.pos_embed, expected)
    assert torch.equal(encoder.network.pos_embed[:, :1], square["pos_embed"][:, :1])
    oblong = timm.create_model("test_vit", img_size=(96, 64)).state_dict()
    assert encoder.load(oblong) == ["pos_embed"]  # 24 positions may lie in many ways


def dinov2_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A table as DINOv2's authors publish it: with a mask token, and registers that share the positions' table."""
    theirs = {**state, "mask_token": torch.zeros(1, state["pos_embed"].shape[-1])}
    if "reg_token" in theirs:
        theirs["register_tokens"] = theirs.pop("reg_token")
        position = torch.randn(1, 1, theirs["pos_embed"].shape[-1])
        theirs["pos_embed"] = torch.cat([position, theirs["pos_embed"]], dim=1)
        theirs["cls_token"] = theirs["cls_token"] - position
    return theirs


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"])
def test_dinov2s_own_files_load(name: str, tmp_path: Path) -> None:
    source, encoder = TransformerEncoder(name).network.state_dict(), TransformerEncoder(name)
    torch.save(dinov2_names(source), tmp_path / "dinov2.pth")
    load_pretrained(encoder, str(tmp_path / "dinov2.pth"))
    found = encoder.network.state_dict()
    torch.testing.assert_close(found.pop("cls_token"), source["cls_token"])
    assert [key for key, value in found.items() if not torch.equal(value, source[key])] == []


def test_dinov3s_own_files_load(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_dinov3_qkvb"
    encoder = TransformerEncoder(name)
    state = {key: torch.randn_like(value) for key, value in encoder.network.state_dict().items()}
    theirs = {"mask_token": torch.zeros(1, 192), "rope_embed.periods": torch.ones(16)}
    for key, value in state.items():
        if key.endswith("q_bias"):
            parts = [value, torch.zeros_like(value), state[key.replace("q_bias", "v_bias")]]
            theirs[key.replace("q_bias", "qkv.bias")] = torch.cat(parts)
        elif not key.endswith("v_bias"):
            renamed = key.replace("reg_token", "storage_tokens").replace("gamma_1", "ls1.gamma")
            theirs[renamed.replace("gamma_2", "ls2.gamma")] = value
    torch.save(theirs, tmp_path / "dinov3.pth")
    load_pretrained(encoder, str(tmp_path / "dinov3.pth"))
    assert [key for key, value in encoder.network.state_dict().items() if not torch.equal(value, state[key])] == []


def test_what_is_missing_is_named() -> None:
    encoder = TransformerEncoder("test_vit2")
    state = timm.create_model("test_vit2").state_dict()
    del state["fc_norm.weight"]
    assert encoder.load(state) == ["norm.weight"]
    assert "reg_token" in encoder.load({key: value for key, value in state.items() if key != "reg_token"})


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path) -> None:
    for name in ("test_resnet", "test_vit3"):
        torch.save(timm.create_model(name).state_dict(), tmp_path / "other.pth")
        with pytest.raises(WeightsError, match=r"^model\.weights: .*`test_vit`") as caught:
            load_pretrained(TransformerEncoder("test_vit"), str(tmp_path / "other.pth"))
        assert "\n" not in str(caught.value)


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "stride", "reason"),
    [
        ("beit_base_patch16_224", 16, "images of any size"),
        ("test_vit", 8, "model.output_stride=8"),
        ("test_vit", 32, "patches, 16"),
    ],
)
def test_unsuitable_transformers_and_strides_are_refused_in_one_line(name: str, stride: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TransformerEncoder(name, stride)
    message = str(caught.value)
    assert "\n" not in message
    assert f"`{name}`" in message
    assert reason in message


def test_a_transformer_of_three_blocks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, depth=3))
    with pytest.raises(ConfigError, match=r"model\.encoder: `test_vit` has 3 blocks"):
        TransformerEncoder("test_vit")


def test_another_implementation_of_transformers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.models import vision_transformer

    monkeypatch.setattr(vision_transformer, "_USE_NAFLEX_DEFAULT", True)
    with pytest.raises(ConfigError, match=r"model\.encoder: .*`test_vit`"):
        TransformerEncoder("test_vit")


def test_positions_follow_the_size_of_the_image() -> None:
    """Tokens of an even image differ by their positions alone, which are stretched over whatever grid there is."""
    encoder = TransformerEncoder("test_vit").eval()
    position = torch.zeros_like(encoder.network.pos_embed)
    side = math.isqrt(position.shape[1] - 1)
    position[0, 1:, 0] = torch.linspace(0, 1, side).repeat(side)  # grows from left to right
    encoder.network.pos_embed.data = position
    encoder.network.blocks = nn.Sequential(*(nn.Identity() for _ in encoder.network.blocks))
    encoder.network.norm = nn.Identity()
    with torch.no_grad():
        for width in (48, 224, 480):
            first = encoder(torch.zeros(1, 3, 32, width))[0][0, 0]
            torch.testing.assert_close(first[0], first[1])
            assert (first[0].diff() > 0).all()
            middle = first[0].mean() - encoder.network.patch_embed.proj.bias[0]
            torch.testing.assert_close(middle, torch.tensor(0.5), atol=0.01, rtol=0)


@pytest.mark.slow
def test_of_all_transformers_in_timm_beit_alone_is_refused() -> None:
    refused = []
    with torch.device("meta"):  # shapes without memory
        for name in filter(is_transformer, timm.list_models()):
            try:
                TransformerEncoder(name)
            except ConfigError:
                refused.append(name)
    assert refused
    assert all(name.startswith("beit") for name in refused)


def test_weights_of_rgb_are_kept_for_other_bands() -> None:
    rgb, other = TransformerEncoder("test_vit").eval(), TransformerEncoder("test_vit", num_bands=6).eval()
    assert other.load(rgb.network.state_dict()) == []
    image = torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        for expected, found in zip(rgb(image), other(image.repeat(1, 2, 1, 1)), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
